"""Options of the data: which photographs, how they are split, and how they become tensors."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ramstrans.errors import ConfigError


@dataclass(frozen=True)
class DataConfig:
    """Which photographs, how they are split, and how they become tensors.

    Attributes:
        name: Layout of the data set. `toybirds` is drawn on first use where `root` does not hold it yet.
        root: Folder of the data set, or the table's file. None is allowed for `toybirds` only.
        path_column: Column of a table with the image paths, relative to the table's folder or absolute.
        label_column: Column of a table with the class names.
        split_column: Column of a table with `train`, `val` or `test`; absent means a split by seed.
        val_fraction: Share of the training images of each class held out for validation, in [0, 1).
        test_fraction: Share of the images of each class held out for the test, in (0, 1), where the
            data set brings no test split of its own.
        split_seed: Seed of those two draws.
        on_unreadable: What to do with training or test files that cannot be decoded: name them all
            and stop before the first epoch, or name them all and leave them out.
        resize: Shorter side, in pixels, after resizing, or an exact `[height, width]`.
            None: 8/7 of the crop.
        crop: Side, in pixels, of the square that is cut out (at random in training, from the centre
            otherwise), or `[height, width]`. None: the model's image size, twice that for
            `zoom_source: full`.
        flip: Mirror training images at random.
        color_jitter: Strength of random brightness, contrast and saturation in training; 0 is off.
        num_workers: Loader processes; 0 loads in the main process.
        cache: `none` decodes each image each time; `memory` keeps resized ones for the next epoch, in
            the memory of each loader process by itself; `disk` keeps them in `cache_dir` for all
            processes, epochs and runs.
        cache_dir: Folder for `disk`, which may be deleted at any time; it takes 3 bytes a pixel, e.g.
            1 MB an image at `resize: 512`. None: `ramstrans/images` in `$XDG_CACHE_HOME` or `~/.cache`.
        max_pixels: Images with more pixels than this are refused as decompression bombs.
    """

    name: Literal["cub", "toybirds", "folder", "table"] = "toybirds"
    root: Path | None = None
    path_column: str = "path"
    label_column: str = "label"
    split_column: str = "split"
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    on_unreadable: Literal["stop", "skip"] = "stop"
    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    flip: bool = True
    color_jitter: float = 0.0
    num_workers: int = 0
    cache: Literal["none", "memory", "disk"] = "none"
    cache_dir: Path | None = None
    max_pixels: int = 200_000_000

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"data.val_fraction is {self.val_fraction}; give a share in [0, 1)")
        if not 0 < self.test_fraction < 1:
            raise ConfigError(f"data.test_fraction is {self.test_fraction}; give a share in (0, 1)")
        if self.color_jitter < 0:
            raise ConfigError(f"data.color_jitter is {self.color_jitter}; give 0 or more")
        if self.num_workers < 0:
            raise ConfigError(f"data.num_workers is {self.num_workers}; give 0 or more")
        if self.max_pixels < 1:
            raise ConfigError(f"data.max_pixels is {self.max_pixels}; give 1 or more")
        if self.root is None and self.name != "toybirds":
            raise ConfigError(
                f"data.name is '{self.name}' but no --data.root was given; name its folder or file"
            )
        if self.cache_dir is not None and self.cache != "disk":
            warnings.warn(
                f"data.cache_dir is ignored with data.cache {self.cache}; give --data.cache disk to use it",
                stacklevel=3,
            )
