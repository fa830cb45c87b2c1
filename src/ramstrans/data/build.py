"""From `DataConfig` to splits and loaders. A new layout is one file and one line in `READERS`."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ramstrans.data.cache import DiskCache, MemoryCache, default_cache_dir
from ramstrans.data.check import apply_unreadable, find_unreadable
from ramstrans.data.config import DataConfig
from ramstrans.data.cub import read_cub
from ramstrans.data.image_folder import read_image_folder
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import ImageSet
from ramstrans.data.splits import check_classes, hold_out
from ramstrans.data.table import read_table
from ramstrans.data.toybirds import ensure_toybirds, is_toybirds
from ramstrans.data.transforms import Size
from ramstrans.errors import ConfigError, DataError

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is going on)."""

DEFAULT_TOYBIRDS_ROOT = Path("runs/toybirds-data")


def _read_toybirds(config: DataConfig, progress: Progress) -> ImageSet:
    root = config.root or DEFAULT_TOYBIRDS_ROOT
    if root.is_dir() and any(root.iterdir()) and not is_toybirds(root):
        raise DataError(
            f"{root} holds something else than a whole toybirds set; for photographs of your own give "
            "--data.name folder, table or cub, for toybirds another --data.root"
        )
    ensure_toybirds(root, progress=lambda done, total: progress(done, total, "drawing toybirds"))
    return read_cub(root)


def _read_table(config: DataConfig, _progress: Progress) -> ImageSet:
    assert config.root is not None, "checked by DataConfig"
    return read_table(
        config.root,
        path_column=config.path_column,
        label_column=config.label_column,
        split_column=config.split_column,
    )


def _read_cub(config: DataConfig, _progress: Progress) -> ImageSet:
    assert config.root is not None, "checked by DataConfig"
    return read_cub(config.root)


def _read_image_folder(config: DataConfig, _progress: Progress) -> ImageSet:
    assert config.root is not None, "checked by DataConfig"
    return read_image_folder(config.root)


READERS: dict[str, Callable[[DataConfig, Progress], ImageSet]] = {
    "cub": _read_cub,
    "toybirds": _read_toybirds,
    "folder": _read_image_folder,
    "table": _read_table,
}


def guess_layout(root: Path) -> Literal["cub", "table", "folder"]:
    """The layout of a data set by what lies there: CUB's lists, a file, or else folders of classes."""
    if any((folder / "images.txt").is_file() for folder in (root, root / "CUB_200_2011")):
        return "cub"
    return "table" if root.suffix and not root.is_dir() else "folder"


def build_image_set(config: DataConfig, progress: Progress = lambda *_: None) -> ImageSet:
    """Read a data set and give it the splits that training needs.

    A test split is drawn from the training images where the data set brings none, then a validation
    split of `val_fraction`, unless the data set brings one; both stratified, by `split_seed`.

    Args:
        config: Which data set.
        progress: Told while a set is drawn.

    Raises:
        DataError: The data set cannot be used; the message says why.
    """
    images = READERS[config.name](config, progress)
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
    progress: Progress = lambda *_: None,
) -> ImageSet:
    """Decode every file once; stop at those that cannot be, or leave them out, as the config says.

    Args:
        images: The data set.
        config: Says what is to be done.
        say: Told of each file that is left out.
        progress: Told (done, total, what).

    Raises:
        DataError: A file cannot be decoded and the config says `stop`; names them.
    """
    errors = find_unreadable(
        images.records,
        config.max_pixels,
        progress=lambda done, total: progress(done, total, "checking files"),
    )
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
