"""Options of the data: which photographs, how they are split, and how they become tensors."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ramstrans.errors import ConfigError

DatasetFormat = Literal[
    "cub",
    "toybirds",
    "folder",
    "table",
    "nabirds",
    "stanford_dogs",
    "stanford_cars",
    "fgvc_aircraft",
    "inaturalist",
    "flowers102",
    "oxford_pets",
    "food101",
    "hugging_face",
    "shards",
]
"""Every way in which a data set may lie on disk; `build.READERS` has a reader for each."""


BOUNDS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "val_fraction": ("a share in [0, 1)", lambda value: 0 <= value < 1),
    "test_fraction": ("a share in (0, 1)", lambda value: 0 < value < 1),
    "rand_magnitude": ("0 to 30", lambda value: 0 <= value <= 30),
    **dict.fromkeys(("random_erasing", "balance"), ("a number in [0, 1]", lambda value: 0 <= value <= 1)),
    **dict.fromkeys(
        ("color_jitter", "rand_augment", "num_workers", "read_retries", "read_timeout"),
        ("0 or more", lambda value: value >= 0),
    ),
    **dict.fromkeys(("max_pixels", "shuffle_window"), ("1 or more", lambda value: value >= 1)),
}
"""What numbers are allowed, in words and as a test."""


@dataclass(frozen=True)
class DataConfig:
    """Which photographs, how they are split, and how they become tensors.

    Attributes:
        name: Layout of the data set. `toybirds` is drawn on first use where `root` does not hold it yet.
        root: Folder of the data set, the table's file, or, for `hugging_face`, a name on the hub. None is
            allowed for `toybirds` only.
        path_column: Column of a table with the image paths, relative to the table's folder or absolute;
            of `hugging_face`, the column of images, where there are several.
        label_column: Column of a table or of `hugging_face` with the class names.
        split_column: Column of a table with `train`, `val` or `test`; absent means a split by seed.
        aircraft_level: What the classes of `fgvc_aircraft` are.
        train_folder: Which training images of `inaturalist` 2021 to take; None: those that are there.
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
        rand_augment: Operations of RandAugment on each training image; 0 is off.
        rand_magnitude: Their strength, 0 to 30.
        random_erasing: Probability that a rectangle of a training image is erased.
        balance: How often classes are drawn in training, in [0, 1]. 0: as often as they have images; 1: all
            alike; 0.5: by the square root of their images. An epoch stays as long.
        shuffle_window: Of `shards`: how many are read, and mixed, at a time in training; None: all.
        num_workers: Loader processes; 0 loads in the main process.
        read_retries: Times that a read is tried again when it fails for a moment, say because a network or
            file server is away, after 0.1, 0.4, 1.6, ... seconds, never more than 30. They are counted.
        read_timeout: Seconds that a batch may take, in loader processes or the main one, or one read of a
            list or folder, before the run ends with an error; 0 waits for ever. Less than the 600 that
            NVIDIA's library gives the other processes of a run, so that this error, which names the file,
            comes first.
        cache: `none` decodes each image each time; `memory` keeps resized ones for the next epoch, in
            the memory of each loader process by itself; `disk` keeps them in `cache_dir` for all
            processes, epochs and runs.
        cache_dir: Folder for `disk`, which may be deleted at any time; it takes 3 bytes a pixel, e.g.
            1 MB an image at `resize: 512`. None: `ramstrans/images` in `$XDG_CACHE_HOME` or `~/.cache`.
        max_pixels: Images with more pixels than this are refused as decompression bombs.
    """

    name: DatasetFormat = "toybirds"
    root: Path | None = None
    path_column: str = "path"
    label_column: str = "label"
    split_column: str = "split"
    aircraft_level: Literal["variant", "family", "manufacturer"] = "variant"
    train_folder: Literal["train", "train_mini"] | None = None
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    on_unreadable: Literal["stop", "skip"] = "stop"
    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    flip: bool = True
    color_jitter: float = 0.0
    rand_augment: int = 0
    rand_magnitude: int = 9
    random_erasing: float = 0.0
    balance: float = 0.0
    shuffle_window: int | None = None
    num_workers: int = 0
    read_retries: int = 4
    read_timeout: float = 300.0
    cache: Literal["none", "memory", "disk"] = "none"
    cache_dir: Path | None = None
    max_pixels: int = 200_000_000

    def __post_init__(self) -> None:
        for name, (allowed, is_allowed) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not is_allowed(value):
                raise ConfigError(f"data.{name} is {value}; give {allowed}")
        if self.root is None and self.name != "toybirds":
            raise ConfigError(
                f"data.name is '{self.name}' but no --data.root was given; name its folder or file"
            )
        for name, (is_used, needed) in self._needs().items():
            if getattr(self, name) != getattr(DataConfig, name) and not is_used:
                warnings.warn(f"data.{name} is ignored without {needed}", stacklevel=3)

    def _needs(self) -> dict[str, tuple[bool, str]]:
        """Options that have no effect without another one: whether it is there, and which."""
        return {
            "cache_dir": (self.cache == "disk", "data.cache disk"),
            "aircraft_level": (self.name == "fgvc_aircraft", "data.name fgvc_aircraft"),
            "train_folder": (self.name == "inaturalist", "data.name inaturalist"),
            "rand_magnitude": (self.rand_augment > 0, "data.rand_augment"),
            "shuffle_window": (self.name == "shards", "data.name shards"),
        }
