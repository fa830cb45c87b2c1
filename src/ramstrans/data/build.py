"""From `DataConfig` to splits, preprocessing and cache. A new data set is one file, one line in `READERS`."""

import dataclasses
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.files import find_unreadable
from ramstrans.data.config import DataConfig, DatasetFormat
from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.datasets.fgvc_aircraft import read_fgvc_aircraft
from ramstrans.data.datasets.flowers102 import read_flowers102
from ramstrans.data.datasets.food101 import read_food101
from ramstrans.data.datasets.hugging_face import images_beside, read_hugging_face
from ramstrans.data.datasets.image_folder import read_image_folder
from ramstrans.data.datasets.inaturalist import read_inaturalist
from ramstrans.data.datasets.nabirds import read_nabirds
from ramstrans.data.datasets.oxford_pets import read_oxford_pets
from ramstrans.data.datasets.stanford_cars import read_stanford_cars
from ramstrans.data.datasets.stanford_dogs import read_stanford_dogs
from ramstrans.data.datasets.table import read_table
from ramstrans.data.detect import check_root
from ramstrans.data.groups import with_groups
from ramstrans.data.held_out import held_out_names, without_classes
from ramstrans.data.preprocessing import Preprocessing, Reading, Size
from ramstrans.data.reading.cache import DiskCache, MemoryCache, default_cache_dir
from ramstrans.data.records import ImageSet, Split
from ramstrans.data.sharding.manifest import read_shards
from ramstrans.data.splits import check_classes, check_groups, hold_out, hold_out_fold
from ramstrans.data.toybirds.generator import is_toybirds, make_toybirds
from ramstrans.distributed import from_first_process
from ramstrans.errors import DataError, UnreadableImageError, first_few
from ramstrans.files import check_room
from ramstrans.plain import counted

logger = logging.getLogger(__name__)

Reader = Callable[[Path, DataConfig], ImageSet]

MAX_VAL_FRACTION, MIN_VAL_IMAGES = 0.2, 50
"""Share to hold out at most where none is given, for validation images enough to choose an epoch by."""

LITTLE_SEEN = 0.25
"""Share of a square photograph below which a crop is probably a mistake; by default it is 0.77."""

DEFAULT_TOYBIRDS_ROOT = Path("runs/toybirds-data")


def _by_root(read: Callable[[Path], ImageSet]) -> Reader:
    """A reader that needs no option but the root."""
    return lambda root, _config: read(root)


READERS: dict[DatasetFormat, Reader] = {
    "cub": _by_root(read_cub),
    "toybirds": _by_root(read_cub),
    "folder": lambda root, config: read_image_folder(root, config.class_level),
    "table": lambda root, config: read_table(
        root,
        path_column=config.path_column,
        label_column=config.label_column,
        split_column=config.split_column,
        image_folder=config.image_folder,
        group_column=config.group_column,
        on_unlabelled=config.on_unlabelled,
        multi_label=config.multi_label,
        label_separator=config.label_separator,
        label_columns=config.label_columns,
    ),
    "nabirds": _by_root(read_nabirds),
    "stanford_dogs": _by_root(read_stanford_dogs),
    "stanford_cars": _by_root(read_stanford_cars),
    "fgvc_aircraft": lambda root, config: read_fgvc_aircraft(root, config.aircraft_level),
    "inaturalist": lambda root, config: read_inaturalist(root, config.train_folder),
    "flowers102": _by_root(read_flowers102),
    "oxford_pets": _by_root(read_oxford_pets),
    "food101": _by_root(read_food101),
    "hugging_face": lambda root, config: read_hugging_face(root, config.path_column, config.label_column),
    "shards": _by_root(read_shards),
}
"""For each format a function of root and config."""


def build_image_set(config: DataConfig, progress: Progress = no_progress) -> ImageSet:
    """Read a data set and give it the splits that training needs, see `draw_splits`.

    Raises:
        ConfigError: The data set needs a root, and none is given.
        DataError: The data set cannot be used, such as one without training or test images; the message says
            why.
    """
    images = read_image_set(config, progress)
    check_classes(images)
    drawn = draw_splits(images, config)
    if left_out := [f"'{name}'" for name in images.class_names if name not in drawn.class_names]:
        logger.info("left out of training: %s, %s", counted(len(left_out), "class"), first_few(left_out))
    images = drawn
    check_groups(images)
    check_held_out(images, config)
    return images


def build_left_out(
    config: DataConfig, class_names: Collection[str], progress: Progress = no_progress
) -> ImageSet:
    """Read the classes of a data set that are not among some names, and draw the splits that they lack.

    Raises:
        DataError: The data set cannot be read.
    """
    left_out = without_classes(read_image_set(config, progress), class_names)
    return draw_splits(left_out, dataclasses.replace(config, hold_out_classes=None))


def read_image_set(config: DataConfig, progress: Progress = no_progress) -> ImageSet:
    """Read a data set with its groups and its own splits; toybirds are drawn first, if need be.

    Raises:
        ConfigError: The data set needs a root, and none is given.
        DataError: The data set cannot be read; the message says why.
    """
    root = config.root
    if config.name == "toybirds":
        root = root or DEFAULT_TOYBIRDS_ROOT
        if not is_toybirds(root):
            if root.is_dir() and any(root.iterdir()):
                raise DataError(
                    f"{root} holds something other than a complete toybirds set; for images of your own "
                    "give --data.name folder, table or cub, for toybirds another --data.root"
                )
            make_toybirds(root, progress=progress)
    check_root(config)
    assert root is not None, "checked"
    return with_groups(READERS[config.name](root, config), config, progress)


def draw_splits(images: ImageSet, config: DataConfig) -> ImageSet:
    """Draw the splits that a data set lacks from its training images, by `split_seed`.

    First the classes that training leaves out are taken away. If the data set has no test split, one is
    drawn: a `test_fraction`, or with `folds` the part `fold` (the first one if that is None). Then, unless
    there is one, a validation split of `val_fraction`. All are stratified, and keep groups whole.

    Raises:
        DataError: The data set cannot be divided into folds, or has too few classes.
    """
    if config.hold_out_classes is not None:
        names = held_out_names(images.class_names, config.hold_out_classes, config.split_seed)
        images = without_classes(images, names)
    if config.folds is not None:
        images = hold_out_fold(images, config.folds, config.fold or 1, config.split_seed)
    elif not images.of_split("test"):
        images = hold_out(images, config.test_fraction, config.split_seed, "test")
    if not images.of_split("val"):
        fraction = config.val_fraction
        if fraction is None:
            fraction = val_fraction_for(len(images.of_split("train")))
        images = hold_out(images, fraction, config.split_seed, "val")
    return images


def val_fraction_for(num_images: int) -> float:
    """The fraction of so many training images to hold out for validation, where none is given.

    >>> val_fraction_for(1500), val_fraction_for(400), val_fraction_for(60)
    (0.1, 0.125, 0.2)
    """
    return min(max(0.1, MIN_VAL_IMAGES / max(num_images, 1)), MAX_VAL_FRACTION)


def fingerprint(images: ImageSet, config: DataConfig) -> str:
    """A hash of which files are in which class and split, wherever the folder or table lies."""
    digest = hashlib.sha256("\n".join(images.class_names).encode(errors="surrogateescape"))
    root = config.root
    if config.name == "table" and root is not None:
        root = config.image_folder or root.parent
    folders = [] if root is None else [root]
    if config.name == "hugging_face" and root is not None:  # where images of tables are unpacked
        folders.append(images_beside(root))
    for record in images.records:
        full = record.path
        path = next((full.relative_to(folder) for folder in folders if full.is_relative_to(folder)), full)
        label = record.label if record.labels is None else f"{list(record.labels)}"
        digest.update(f"\n{record.split} {label} {path}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def check_held_out(images: ImageSet, config: DataConfig) -> None:
    """Raise if there are no test images; warn if no validation images could be held out.

    Raises:
        DataError: The test split is empty.
    """
    drawn: tuple[tuple[Split, float, tuple[Split, ...]], ...] = (
        ("test", config.test_fraction, ("train", "val")),
        ("val", MAX_VAL_FRACTION if config.val_fraction is None else config.val_fraction, ("train",)),
    )
    for split, fraction, drawn_from in drawn:
        if images.of_split(split) or not fraction:
            continue
        pool = [record for record in images.records if record.split in drawn_from]
        most = max(Counter(label for record in pool for label in record.classes).values())
        units = {(label, record.group or str(record.path)) for record in pool for label in record.classes}
        if max(Counter(label for label, _ in units).values()) == 1:
            what = "group" if any(record.group for record in pool) else "image"
            reason = f"no class has a second {what} that training could spare; add some"
        else:
            enough = math.ceil(100 / most) / 100
            reason = f"the largest class has {most} images; give {enough:g} or more"
        reason = f"data.{split}_fraction {fraction:g} holds out no image: {reason}"
        if split == "test":
            raise DataError(f"{reason}, or give test images (a folder test/, or a column of splits)")
        logger.warning("%s. Without validation images the last epoch is kept, whichever is best", reason)


def drop_unreadable(
    images: ImageSet, config: DataConfig, progress: Progress = no_progress
) -> tuple[ImageSet, list[UnreadableImageError]]:
    """Decode every file once; stop if some cannot be decoded, or leave them out, as the config says.

    The first process decodes, and sends what it found to the others.

    Returns:
        The data set without the unreadable files, and an error for each of these, which is logged too.

    Raises:
        DataError: A file cannot be decoded and the config says `stop` (names the first few), or a class is
            left without training images, or the data set without test images.
    """
    errors = from_first_process(
        lambda: find_unreadable(
            images.records, config.max_pixels, progress=progress, timeout=config.read_timeout
        )
    )
    if not errors:
        return images, []
    if config.on_unreadable == "stop":
        raise DataError(
            f"{counted(len(errors), 'image file')} cannot be read: {first_few(list(map(str, errors)), 10)}. "
            "Repair or remove them, or go on without them by --data.on_unreadable skip"
        )
    unreadable = {error.path for error in errors}
    kept = (record for record in images.records if record.path not in unreadable)
    remaining = images._replace(records=tuple(kept))
    check_classes(remaining)
    num_test = len(images.of_split("test"))
    if num_test and not remaining.of_split("test"):
        raise DataError(f"none of the {num_test} test images can be read, e.g. {errors[0]}; repair them")
    for error in errors:
        logger.warning("left out: %s", error)
    if images.of_split("val") and not remaining.of_split("val"):
        logger.warning("none of the validation images can be read: the last epoch is kept, whichever is best")
    return remaining, errors


def build_preprocessing(config: DataConfig, image_size: Size, zoom_source: str) -> Preprocessing:
    """Fill in the sizes that the config leaves open.

    Raises:
        ConfigError: The crop is larger than the resized image.
    """
    crop = config.crop
    if crop is None:
        factor = 2 if zoom_source == "full" else 1
        crop = (image_size[0] * factor, image_size[1] * factor)
    elif isinstance(crop, int):
        crop = (crop, crop)
    resize = config.resize
    if resize is None:
        resize = round(max(crop) * 8 / 7)
    if config.fit != "crop" and isinstance(resize, int):
        shorter = min(crop)
        resize = round(crop[0] * resize / shorter), round(crop[1] * resize / shorter)
    zoom_pixels = config.zoom_pixels if zoom_source == "native" else None
    preprocessing = Preprocessing(resize, crop, config.fit, zoom_pixels)
    seen = math.prod(crop) / (resize**2 if isinstance(resize, int) else math.prod(resize))
    if config.fit == "crop" and seen < LITTLE_SEEN:
        logger.warning(
            "data.crop %dx%d with data.resize %s sees at most %.1f %% of a photograph; give a larger crop or "
            "a smaller resize, or data.fit squash or pad, which see all of it",
            *(*crop, resize, 100 * seen),
        )
    return preprocessing


def check_cache_room(images: ImageSet, config: DataConfig, reading: Reading) -> None:
    """Raise unless the disk has room for the images that `data.cache disk` does not hold yet.

    They are counted as squares, which take less than photographs of other shapes, and half that with
    `fit: pad`. How large photographs at their own resolution are is not known yet.

    Raises:
        OutputError: It has not.
    """
    if config.cache != "disk" or reading.zoom_pixels is not None:
        return
    cache = DiskCache(config.cache_dir or default_cache_dir())
    height, width = (reading.resize, reading.resize) if isinstance(reading.resize, int) else reading.resize
    num_bytes = 3 * height * width // (2 if reading.fit == "pad" else 1)
    missing = sum(not cache.entry(record.path, reading).exists() for record in images.records)
    check_room(cache.folder, missing * num_bytes, f"resized images (--data.cache disk, {missing} of them)")


def build_cache(config: DataConfig, *, is_read_once: bool) -> MemoryCache | DiskCache | None:
    """Build the cache of resized images, or None; images read only once are not kept in memory.

    Raises:
        OutputError: The folder on disk cannot be created.
    """
    if config.cache == "disk":
        return DiskCache(config.cache_dir or default_cache_dir())
    if config.cache == "memory" and not is_read_once:
        return MemoryCache()
    return None
