"""From `DataConfig` to splits and loaders. A new layout is one file and one line in `READERS`."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.files import apply_unreadable, find_unreadable
from ramstrans.data.config import DataConfig, DatasetFormat
from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.datasets.fgvc_aircraft import read_fgvc_aircraft
from ramstrans.data.datasets.flowers102 import read_flowers102
from ramstrans.data.datasets.food101 import read_food101
from ramstrans.data.datasets.hugging_face import MARKER_FILES, read_hugging_face
from ramstrans.data.datasets.image_folder import read_image_folder
from ramstrans.data.datasets.inaturalist import is_inaturalist, read_inaturalist
from ramstrans.data.datasets.nabirds import read_nabirds
from ramstrans.data.datasets.oxford_pets import read_oxford_pets
from ramstrans.data.datasets.stanford_cars import read_stanford_cars
from ramstrans.data.datasets.stanford_dogs import read_stanford_dogs
from ramstrans.data.datasets.table import read_table
from ramstrans.data.loading.transforms import Size
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading.cache import DiskCache, MemoryCache, default_cache_dir
from ramstrans.data.reading.retry import retrying, with_timeout
from ramstrans.data.records import ImageSet
from ramstrans.data.sharding.manifest import MANIFEST, read_shards
from ramstrans.data.splits import check_classes, hold_out
from ramstrans.data.toybirds.generator import ensure_toybirds, is_toybirds
from ramstrans.devices import from_first_process
from ramstrans.errors import ConfigError, DataError, UnreadableImageError

Reader = Callable[[DataConfig], ImageSet]

DEFAULT_TOYBIRDS_ROOT = Path("runs/toybirds-data")


def _draw_toybirds(root: Path, progress: Progress) -> None:
    if root.is_dir() and any(root.iterdir()) and not is_toybirds(root):
        raise DataError(
            f"{root} holds something else than a whole toybirds set; for photographs of your own give "
            "--data.name folder, table or cub, for toybirds another --data.root"
        )
    ensure_toybirds(root, progress)


def _read_table(config: DataConfig) -> ImageSet:
    assert config.root is not None, "checked by DataConfig"
    return read_table(
        config.root,
        path_column=config.path_column,
        label_column=config.label_column,
        split_column=config.split_column,
    )


def _read_fgvc_aircraft(config: DataConfig) -> ImageSet:
    assert config.root is not None, "checked by DataConfig"
    return read_fgvc_aircraft(config.root, config.aircraft_level)


def _read_inaturalist(config: DataConfig) -> ImageSet:
    assert config.root is not None, "checked by DataConfig"
    return read_inaturalist(config.root, config.train_folder)


def _read_hugging_face(config: DataConfig) -> ImageSet:
    assert config.root is not None, "checked by DataConfig"
    return read_hugging_face(config.root, config.path_column, config.label_column)


def _by_root(read: Callable[[Path], ImageSet]) -> Reader:
    """A reader that needs no option but the root."""

    def reader(config: DataConfig) -> ImageSet:
        assert config.root is not None, "checked by DataConfig"
        return read(config.root)

    return reader


READERS: dict[DatasetFormat, Reader] = {
    "cub": _by_root(read_cub),
    "toybirds": _by_root(read_cub),
    "folder": _by_root(read_image_folder),
    "table": _read_table,
    "nabirds": _by_root(read_nabirds),
    "stanford_dogs": _by_root(read_stanford_dogs),
    "stanford_cars": _by_root(read_stanford_cars),
    "fgvc_aircraft": _read_fgvc_aircraft,
    "inaturalist": _read_inaturalist,
    "flowers102": _by_root(read_flowers102),
    "oxford_pets": _by_root(read_oxford_pets),
    "food101": _by_root(read_food101),
    "hugging_face": _read_hugging_face,
    "shards": _by_root(read_shards),
}

_MARKER_FILES: dict[DatasetFormat, tuple[str, ...]] = {
    "shards": (MANIFEST,),
    "nabirds": ("hierarchy.txt", "nabirds/hierarchy.txt"),
    "cub": ("images.txt", "CUB_200_2011/images.txt"),
    "stanford_dogs": ("lists/train_list.mat", "train_list.mat", "stanford_dogs/lists/train_list.mat"),
    "stanford_cars": ("devkit/cars_meta.mat", "stanford_cars/devkit/cars_meta.mat"),
    "fgvc_aircraft": ("data/variants.txt", "fgvc-aircraft-2013b/data/variants.txt"),
    "flowers102": ("setid.mat", "flowers-102/setid.mat"),
    "oxford_pets": ("annotations/trainval.txt", "oxford-iiit-pet/annotations/trainval.txt"),
    "food101": ("meta/classes.txt", "food-101/meta/classes.txt"),
    "hugging_face": MARKER_FILES,
}
"""A file by which each layout is known; of two that have it, the first one is meant."""


def detect_format(root: Path) -> DatasetFormat:
    """The layout of a data set by what lies there: a published set's lists, a file, or folders of classes."""
    for layout, files in _MARKER_FILES.items():
        if any((root / file).is_file() for file in files):
            return layout
    if is_inaturalist(root):
        return "inaturalist"
    return "table" if root.suffix and not root.is_dir() else "folder"


def build_image_set(config: DataConfig, progress: Progress = no_progress) -> ImageSet:
    """Read a data set and give it the splits that training needs.

    A test split is drawn from the training images where the data set brings none, then a validation
    split of `val_fraction`, unless the data set brings one; both stratified, by `split_seed`.

    Args:
        config: Which data set.
        progress: Told while a set is drawn.

    Raises:
        DataError: The data set cannot be used; the message says why.
    """
    if config.name == "toybirds":
        config = dataclasses.replace(config, root=config.root or DEFAULT_TOYBIRDS_ROOT)
        _draw_toybirds(config.root or DEFAULT_TOYBIRDS_ROOT, progress)
    with retrying(config.read_retries) as given:
        images = with_timeout(lambda: READERS[config.name](config), given, config.read_timeout)
    if given.num_retries:
        warnings.warn(
            f"{config.root}: {given.num_retries} reads failed for a moment and were tried again", stacklevel=2
        )
    check_classes(images)
    if not images.of_split("test"):
        images = hold_out(images, config.test_fraction, config.split_seed, "test")
    if not images.of_split("val"):
        images = hold_out(images, config.val_fraction, config.split_seed, "val")
    check_classes(images)
    return images


def drop_unreadable(
    images: ImageSet,
    config: DataConfig,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = no_progress,
) -> ImageSet:
    """Decode every file once; stop at those that cannot be, or leave them out, as the config says.

    Of several processes the first one decodes, and all learn what it found.

    Args:
        images: The data set.
        config: Says what is to be done.
        say: Told of each file that is left out, and how many reads were tried again.
        progress: Told (done, total, what).

    Raises:
        DataError: A file cannot be decoded and the config says `stop`; names them.
    """

    def find() -> list[UnreadableImageError]:
        with retrying(config.read_retries) as given:
            errors = find_unreadable(
                images.records,
                config.max_pixels,
                progress=progress,
                timeout=config.read_timeout,
            )
        if given.num_retries:
            say(f"{given.num_retries} reads failed for a moment and were tried again")
        return errors

    errors = from_first_process(find)
    if config.on_unreadable == "skip":
        for error in errors:
            say(f"left out: {error}")
    return apply_unreadable(images, errors, config.on_unreadable)


def build_preprocessing(
    config: DataConfig,
    image_size: Size,
    zoom_source: str,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Preprocessing:
    """Fill in the sizes that the config leaves open, and check that they fit together.

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
    smallest = (resize, resize) if isinstance(resize, int) else resize
    if smallest[0] < crop[0] or smallest[1] < crop[1]:
        raise ConfigError(
            f"data.resize {resize} is smaller than data.crop {crop[0]}x{crop[1]}; resize to at least the crop"
        )
    return Preprocessing(resize=resize, crop=(crop[0], crop[1]), mean=mean, std=std)


def build_cache(config: DataConfig, *, is_read_once: bool) -> MemoryCache | DiskCache | None:
    """Where resized photographs are kept, or None.

    Args:
        config: Says where.
        is_read_once: Whether each photograph is read once only; memory would be filled for nothing then.

    Raises:
        OutputError: The folder on disk cannot be made.
    """
    if config.cache == "disk":
        return DiskCache(config.cache_dir or default_cache_dir())
    if config.cache == "memory" and not is_read_once:
        return MemoryCache()
    return None
