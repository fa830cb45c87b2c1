"""Options of the data: which images, how they are split, and how they become tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ramstrans import options
from ramstrans.data.preprocessing import Fit
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
"""Formats of data sets; `build.READERS` has a reader for each."""

BOUNDS: dict[str, options.Bound] = {
    "val_fraction": options.FROM_0_BELOW_1,
    "test_fraction": options.ABOVE_0_BELOW_1,
    "rand_magnitude": options.Bound("0 to 30", lambda value: 0 <= value <= 30),
    **dict.fromkeys(("random_erasing", "balance"), options.FROM_0_TO_1),
    **dict.fromkeys(("color_jitter", "rand_augment", "num_workers", "read_timeout"), options.AT_LEAST_0),
    **dict.fromkeys(("max_pixels", "zoom_pixels", "shuffle_window"), options.AT_LEAST_1),
    **dict.fromkeys(("group_level", "fold", "hold_out_classes"), options.AT_LEAST_1),
    "folds": options.Bound("2 or more", lambda value: value >= 2),
}


@dataclass(frozen=True)
class DataConfig:
    """Which images, how they are split, and how they become tensors.

    Attributes:
        name: Format of the data set. `toybirds` is drawn on first use if `root` does not hold it yet.
        root: Folder of the data set, the table's file, or, for `hugging_face`, a name on the hub. Only
            `toybirds` can be read without one.
        path_column: Column of a table with the image paths, relative to `image_folder` or absolute;
            for `hugging_face`, the column of images if there are several.
        label_column: Column of a table or of `hugging_face` with the class names.
        multi_label: For a `table`: an image may have several labels, or none. Their names stand in the label
            column, `wren;crow`, or in several rows of the same image; or see `label_columns`.
        label_separator: What stands between names in a cell; after a backslash it is part of a name.
        label_columns: Columns of a table that are a label each, with 1 where an image has it and 0 where not:
            names or patterns, `a,b` or `has_*`. Sets `multi_label`.
        split_column: Column of a table with `train`, `val` or `test`; without it splits are drawn by seed.
        image_folder: Folder that the paths of a table are relative to; None: the table's own.
        class_level: What the classes of a `folder` are: its `top` folders with all images below them, or
            each folder that holds images, the `leaf` folders, e.g. species in `<genus>/<species>/`.
        aircraft_level: What the classes of `fgvc_aircraft` are.
        train_folder: Which training images of `inaturalist` 2021 to take; None: those that exist.
        val_fraction: Fraction of each class's training images held out for validation, in [0, 1). None: a
            tenth, up to a fifth where a tenth would be less than 50 images.
        test_fraction: Fraction of each class's images held out for the test, in (0, 1), if the data set has
            no test split of its own.
        split_seed: Seed of those draws, and of the folds.
        group_column: Column of a table that says what belongs together, e.g. photographs of one animal or
            site: no group is drawn into two splits. Rows with an empty cell belong to no group.
        group_level: For `folder`: level below the class whose folders are groups, e.g. 1 for
            `wren/bird_7/1.jpg`.
        group_day: Photographs taken on the same day, by their EXIF data, are a group.
        hold_out_classes: Train without this many classes, drawn by `split_seed`; `evaluate` measures how well
            images of them are told to be unknown.
        folds: Cross-validation: divide all images into this many parts, each of which is the test split of
            one run; the report is of all runs. None: one run.
        fold: With `folds`: make only this run, from 1 to `folds`.
        on_unreadable: What to do with training or test files that cannot be decoded: report them all and
            stop before the first epoch, or report them all and leave them out.
        on_unlabelled: What to do with rows of a table whose label is empty: stop, or leave them out and say
            how many. `evaluate` leaves them out.
        resize: Shorter side in pixels after resizing, or an exact `[height, width]`.
            None: 8/7 of the crop.
        crop: Side in pixels of the square that is cut out (at random in training, from the centre
            otherwise), or `[height, width]`. None: the model's image size, twice that for
            `zoom_source: full`.
        fit: What is seen of an image of another shape than the model's input. `crop`: the centre;
            `squash`: all of it, distorted; `pad`: all of it, with grey bars. In training, `squash` and `pad`
            see random parts, from the crop's size up to the whole.
        zoom_pixels: With `zoom_source: native`: most pixels of a photograph that regions are cut from; larger
            ones are reduced to so many. Each takes 3 bytes per pixel in batches and caches: 12 MB.
        flip: Mirror training images at random.
        color_jitter: Strength of random brightness, contrast and saturation in training; 0 is off.
        rand_augment: Operations of RandAugment per training image; 0 is off.
        rand_magnitude: Their strength, 0 to 30.
        random_erasing: Probability that a rectangle of a training image is erased.
        balance: How often classes are drawn in training, in [0, 1]. 0: as often as they have images; 1: all
            equally often; 0.5: by the square root of their images. The length of an epoch stays the same.
        shuffle_window: For `shards`: how many are read, and mixed, at a time in training; None: all.
        num_workers: Loader processes; 0 loads in the main process.
        read_timeout: Seconds that a batch may take to load before the run ends with an error; 0: any time.
            Less than the 600 seconds after which NCCL gives up waiting for a process, so that this error,
            which names the file, comes first.
        cache: `none` decodes each image every time; `memory` keeps resized ones for the next epoch, in the
            memory of each loader process; `disk` keeps them in `cache_dir` for all processes, epochs and
            runs.
        cache_dir: Folder for `disk`, which may be deleted at any time; it takes 3 bytes per pixel, e.g.
            1 MB per image at `resize: 512`. None: `ramstrans/images` in `$XDG_CACHE_HOME` or `~/.cache`.
        max_pixels: Images with more pixels than this are refused as decompression bombs.
    """

    name: DatasetFormat = "toybirds"
    root: Path | None = None
    path_column: str = "path"
    label_column: str = "label"
    multi_label: bool = False
    label_separator: str = ";"
    label_columns: tuple[str, ...] | str | None = None
    split_column: str = "split"
    image_folder: Path | None = None
    class_level: Literal["top", "leaf"] = "top"
    aircraft_level: Literal["variant", "family", "manufacturer"] = "variant"
    train_folder: Literal["train", "train_mini"] | None = None
    val_fraction: float | None = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    group_column: str | None = None
    group_level: int | None = None
    group_day: bool = False
    hold_out_classes: int | None = None
    folds: int | None = None
    fold: int | None = None
    on_unreadable: Literal["stop", "skip"] = "stop"
    on_unlabelled: Literal["stop", "skip"] = "stop"
    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    fit: Fit = "crop"
    zoom_pixels: int = 4_000_000
    flip: bool = True
    color_jitter: float = 0.0
    rand_augment: int = 0
    rand_magnitude: int = 9
    random_erasing: float = 0.0
    balance: float = 0.0
    shuffle_window: int | None = None
    num_workers: int = 0
    read_timeout: float = 300.0
    cache: Literal["none", "memory", "disk"] = "none"
    cache_dir: Path | None = None
    max_pixels: int = 200_000_000

    def __post_init__(self) -> None:
        options.paths_from_text(self, "root", "image_folder", "cache_dir")
        options.check_names("data.", self)
        options.check_bounds("data", self, BOUNDS)
        if self.label_columns is not None:
            object.__setattr__(self, "multi_label", True)
        if self.multi_label:
            self._check_multi_label()
        grouped_by = [name for name in ("group_column", "group_level", "group_day") if getattr(self, name)]
        if len(grouped_by) > 1:
            raise ConfigError(
                f"data.{grouped_by[0]} and data.{grouped_by[1]} are both given; give one of them"
            )
        for option, format_ in (("group_column", "table"), ("group_level", "folder")):
            if getattr(self, option) is not None and self.name not in (format_, None):  # None: to be detected
                raise ConfigError(
                    f"data.{option} is of data.name {format_}, and this is '{self.name}': its images would "
                    "not be grouped; leave it out"
                )
        if self.folds is not None and self.fold is not None and self.fold > self.folds:
            raise ConfigError(f"data.fold is {self.fold}; give 1 to {self.folds} (data.folds)")
        needs = {  # the name is None while it is still to be detected
            "label_separator": (self.multi_label and self.label_columns is None, "data.multi_label"),
            "fold": (self.folds is not None, "data.folds"),
            "test_fraction": (self.folds is None, "data.folds null"),
            "cache_dir": (self.cache == "disk", "data.cache disk"),
            "image_folder": (self.name in ("table", None), "data.name table"),
            "class_level": (self.name in ("folder", None), "data.name folder"),
            "aircraft_level": (self.name == "fgvc_aircraft", "data.name fgvc_aircraft"),
            "train_folder": (self.name == "inaturalist", "data.name inaturalist"),
            "rand_magnitude": (self.rand_augment > 0, "data.rand_augment"),
            "shuffle_window": (self.name == "shards", "data.name shards"),
        }
        options.warn_ignored("data", self, needs)

    def _check_multi_label(self) -> None:
        """Refuse what does not go with several labels per image."""
        if self.name not in ("table", None):  # None while it is still to be detected
            raise ConfigError(
                f"data.multi_label reads a table (CSV, TSV, Excel, Parquet), and this is '{self.name}'; give "
                "one with the columns path and label (wren;crow)"
            )
        if not self.label_separator.strip(" ") and self.label_separator != " ":
            raise ConfigError("data.label_separator is empty; give what stands between names, e.g. ';'")
        if self.balance:
            raise ConfigError(
                "data.balance draws classes, and data.multi_label has images of several; use "
                "training.class_weights balanced instead"
            )
        if self.hold_out_classes is not None:
            raise ConfigError(
                "data.hold_out_classes leaves out images of a class, and data.multi_label has images of "
                "several; leave it out"
            )
        if self.folds is not None:
            raise ConfigError("data.folds reports top-1, and data.multi_label has none; leave data.folds out")
