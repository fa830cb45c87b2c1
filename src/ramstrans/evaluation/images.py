"""Which images are evaluated: those of the run, or of another set, with its splits and the model's labels."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.files import find_unreadable
from ramstrans.data.build import (
    DEFAULT_TOYBIRDS_ROOT,
    build_cache,
    draw_splits,
    fingerprint,
    read_image_set,
)
from ramstrans.data.config import DataConfig
from ramstrans.data.detect import detect_format
from ramstrans.data.held_out import without_classes
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.records import SPLITS, ImageSet, Record, Split
from ramstrans.errors import DataError, UsageError
from ramstrans.evaluation.config import EvaluationConfig, EvaluationData
from ramstrans.plain import counted
from ramstrans.saved.metadata import ModelMetadata

logger = logging.getLogger(__name__)

MAX_REFERENCES = 5000
"""Training images that others are compared with, or 5 of each class if those are more."""

MIN_PER_CLASS = 5

_OWN_FORMATS = ("folder", "table", "hugging_face", "shards")
"""Formats of people's own data; each of the others is a published set with an agreed test split."""


def dataset_of(
    metadata: ModelMetadata, images: ImageSet, split: Split, data: DataConfig, progress: Progress
) -> tuple[ImageDataset, list[str]]:
    """Build the data set of a split, labelled as the model's classes, and one line per file left out.

    Files that cannot be decoded are left out if the config says `skip`; otherwise the first one stops the
    evaluation.

    Raises:
        DataError: As `with_labels_of`, or no file can be decoded.
    """
    records, errors = with_labels_of(metadata, images, split), []
    if data.on_unreadable == "skip":
        errors = find_unreadable(records, data.max_pixels, progress=progress, timeout=data.read_timeout)
        unreadable = {error.path for error in errors}
        records = tuple(record for record in records if record.path not in unreadable)
    if not records:
        raise DataError(f"none of the {len(errors)} files can be read, e.g. {errors[0]}; repair them")
    dataset = ImageDataset(
        records,
        metadata.preprocessing,
        metadata.model.input_size,
        cache=build_cache(data, is_read_once=True),
        max_pixels=data.max_pixels,
        num_classes=len(metadata.class_names) if metadata.model.multi_label else None,
    )
    return dataset, [f"left out: {error}" for error in errors]


def data_config(trained_on: Mapping[str, object], given: EvaluationData) -> DataConfig:
    """Data options of the training run, with those given; the format of another root is detected."""
    known = {field.name for field in dataclasses.fields(DataConfig)}
    known -= {"resize", "crop", "fit", "zoom_pixels"}  # the model's own preprocessing counts
    known -= {"hold_out_classes"}  # by the model's class names, in `read_drawn`
    values = {key: value for key, value in trained_on.items() if key in known}
    if given.root is not None and given.root.exists() and not is_same_root(given.root, trained_on):
        values["name"] = detect_format(given.root)
        values.pop("image_folder", None)  # of the other table
    if given.label_column is not None:
        values.pop("label_columns", None)  # the names stand in one column now
    values |= {key: value for key, value in dataclasses.asdict(given).items() if value is not None}
    if "name" not in values:
        raise UsageError("this saved model does not say what it was trained on; give --data.root")
    if not Path(str(values.get("cache_dir"))).is_dir():
        values.pop("cache_dir", None)  # of another machine: the default does as well
    return DataConfig(**values | {"on_unlabelled": "skip"})  # type: ignore[arg-type]


def is_same_root(root: Path, trained_on: Mapping[str, object]) -> bool:
    """Whether a root is the one of the training run."""
    return Path(root).resolve() == Path(str(trained_on.get("root") or DEFAULT_TOYBIRDS_ROOT)).resolve()


class DrawnImages(NamedTuple):
    """A data set with its splits.

    Attributes:
        images: Of the model's classes.
        held_out: Of the classes that training left out; None if it left none out.
    """

    images: ImageSet
    held_out: ImageSet | None


def trained_images(
    metadata: ModelMetadata,
    data: DataConfig,
    given: EvaluationData,
    without: str,
    progress: Progress = no_progress,
) -> ImageSet | None:
    """The images of the training run, with its splits; None, with a warning, if another set is given instead.

    Args:
        metadata: Of the model.
        data: Options of the data in use.
        given: What they were given as; another root than the run's may stand for images that are gone.
        without: What follows if they are.
        progress: Reports files done.
    """
    trained_on = metadata.run_options("data")
    if given.root is None or is_same_root(given.root, trained_on):
        return read_drawn(metadata, data, progress).images
    try:
        return read_drawn(metadata, data_config(trained_on, EvaluationData()), progress).images
    except (DataError, UsageError) as error:
        logger.warning("the images that the model was trained on cannot be read (%s): %s", error, without)
        return None


def known_images(
    metadata: ModelMetadata,
    images: ImageSet,
    evaluated: Sequence[Record],
    data: DataConfig,
    given: EvaluationData,
    progress: Progress = no_progress,
) -> tuple[Record, ...]:
    """Images of the model's classes, to find copies of: evaluated ones, and some of each class of the run.

    Those are training and validation images, see `some_of_each`.

    Args:
        metadata: Of the model.
        images: The data set that is evaluated, with its splits.
        evaluated: Its images that are.
        data: How it is read.
        given: What it was given as.
        progress: Reports files done.
    """
    own: ImageSet | None = images
    if metadata.training.get("images") != fingerprint(images, data):
        without = "--unknown is not searched for copies of them"
        own = trained_images(metadata, data, given, without, progress)
    parts = [] if own is None else [own.of_split("train"), own.of_split("val")]
    return (*evaluated, *chain.from_iterable(some_of_each(part, len(metadata.class_names)) for part in parts))


class EvaluatedImages(NamedTuple):
    """The images to evaluate.

    Attributes:
        images: As `DrawnImages`.
        held_out: As `DrawnImages`.
        notes: What a reader of the report must know about the choice.
        is_whole: Whether the test split is all of the data set.
    """

    images: ImageSet
    held_out: ImageSet | None
    notes: list[str]
    is_whole: bool


def read_drawn(
    metadata: ModelMetadata, data: DataConfig, progress: Progress = no_progress, *, draws: bool = True
) -> DrawnImages:
    """Read a data set, and draw the splits that it lacks, unless it is to stay as it is.

    The classes that training left out are told by the model's class names.

    Raises:
        RamsTransError: The data set cannot be read.
    """
    images = read_image_set(data, progress)
    own = set(metadata.class_names)
    others = [name for name in images.class_names if name not in own]
    parts = [images]
    if metadata.run_options("data").get("hold_out_classes") and others:
        parts = [without_classes(images, names) for names in (others, own)]
    known, *held_out = [draw_splits(part, data) for part in parts] if draws else parts
    return DrawnImages(known, held_out[0] if held_out else None)


def read_images(
    metadata: ModelMetadata, data: DataConfig, config: EvaluationConfig, progress: Progress = no_progress
) -> EvaluatedImages:
    """Read the images to evaluate.

    The data set of the training run, also if it was moved, gets the splits of the training, and a published
    format has its own. Another data set, if no split is asked for, becomes one test split as a whole.

    Raises:
        RamsTransError: The data set cannot be read.
    """
    trained_on = metadata.run_options("data")
    if config.data.root is None or is_same_root(config.data.root, trained_on):
        return EvaluatedImages(*read_drawn(metadata, data, progress), [], False)
    images, held_out = read_drawn(metadata, data, progress, draws=False)
    has_splits = any(record.split != "train" for record in images.records)
    if has_splits:
        data = dataclasses.replace(data, folds=None, fold=None)
    drawn, others = draw_splits(images, data), held_out and draw_splits(held_out, data)
    is_own = metadata.training.get("images") == fingerprint(drawn, data)
    if config.split is not None or is_own or data.name not in _OWN_FORMATS:
        return EvaluatedImages(drawn, others, [], False)
    notes = []
    if has_splits and images.of_split("train"):
        counts = ", ".join(f"{split} {len(images.of_split(split))}" for split in SPLITS)
        notes = [
            f"all {len(images.records)} images of {data.root} are evaluated, of all its splits ({counts}): "
            "if the model was trained on some of them, its accuracy is overstated; --split test takes its "
            "test images only"
        ]
        logger.warning("%s", notes[0])
    whole = whole_test(images)
    return EvaluatedImages(whole, held_out and whole_test(held_out), notes, whole != images)


def whole_test(images: ImageSet) -> ImageSet:
    """All images as test images."""
    return images._replace(records=tuple(record._replace(split="test") for record in images.records))


def with_labels_of(metadata: ModelMetadata, images: ImageSet, split: Split) -> tuple[Record, ...]:
    """Records of a split, labelled by the model's class list.

    Raises:
        DataError: The split is empty, or a class is not the model's.
    """
    records = images.of_split(split)
    if not records:
        raise DataError(f"the data set has no {split} images; choose another --split")
    labels = {name: label for label, name in enumerate(metadata.class_names)}
    found = {images.class_names[label] for record in records for label in record.classes}
    unknown = sorted(found - set(labels))
    if unknown:
        are = "is" if len(unknown) == 1 else "are"
        raise DataError(
            f"{counted(len(unknown), 'class')} {are} not among the model's {len(labels)}, e.g. "
            f"'{unknown[0]}'; evaluate on the classes that it was trained on"
        )
    if metadata.model.multi_label:
        return tuple(
            record._replace(
                label=-1, labels=tuple(sorted(labels[images.class_names[one]] for one in record.classes))
            )
            for record in records
        )
    return tuple(record._replace(label=labels[images.class_names[record.label]]) for record in records)


def some_of_each(records: Sequence[Record], num_classes: int) -> tuple[Record, ...]:
    """Images to compare others with: all, or as many of each of C classes, evenly spaced."""
    return spread(records, max(MIN_PER_CLASS, MAX_REFERENCES // num_classes))


def spread(records: Sequence[Record], per_class: int) -> tuple[Record, ...]:
    """At most so many records of each class, evenly spaced, in order.

    >>> from pathlib import Path
    >>> records = [Record(Path(f"{index}.jpg"), index // 6, "train") for index in range(8)]
    >>> [record.path.stem for record in spread(records, 3)]
    ['0', '2', '5', '6', '7']
    """
    of_class: dict[int, list[int]] = {}
    for index, record in enumerate(records):
        of_class.setdefault(record.label, []).append(index)
    kept: list[int] = []
    for indices in of_class.values():
        positions = np.linspace(0, len(indices) - 1, min(per_class, len(indices))).round().astype(int)
        kept += [indices[position] for position in positions.tolist()]
    return tuple(records[index] for index in sorted(kept))
