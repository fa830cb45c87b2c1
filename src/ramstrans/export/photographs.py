"""Photographs that an export is checked, calibrated and judged on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import RamsTransError, UsageError
from ramstrans.evaluation.config import EvaluationConfig, EvaluationData
from ramstrans.evaluation.images import data_config, read_drawn, read_images, with_labels_of
from ramstrans.inference.arguments import expand_inputs
from ramstrans.saved.metadata import ModelMetadata

Item = TypeVar("Item")


class Labelled(NamedTuple):
    """Photographs whose classes are known.

    Attributes:
        records: Labelled as the model's classes.
        source: Where they are from, in words.
    """

    records: tuple[Record, ...]
    source: str


def photographs_of(folder: Path, option: str) -> list[Path]:
    """The photographs in a folder and below, for the option that names it.

    Raises:
        UsageError: It is not a folder.
        DataError: It has none.
    """
    if not folder.is_dir():
        raise UsageError(f"{option} {folder} is not a folder; give one with photographs")
    return list(expand_inputs([folder]))


def own_images(metadata: ModelMetadata, remedy: str) -> ImageSet:
    """The data that a run was trained on, with its splits; the remedy ends the message if they are gone.

    Raises:
        UsageError: Its files have gone.
    """
    try:
        return read_drawn(metadata, data_config(metadata.run_options("data"), EvaluationData())).images
    except RamsTransError as error:
        raise UsageError(f"the run's own photographs cannot be read ({error}); {remedy}") from error


def to_verify(metadata: ModelMetadata, folder: Path | None, count: int) -> list[Path]:
    """At most `count` photographs, evenly spread, of a folder or else of the run's test images.

    Raises:
        UsageError: The folder does not exist, or the run's images do not any more.
        DataError: The folder has none.
    """
    return _some(metadata, folder, count, "test", "--verify")


def to_calibrate(metadata: ModelMetadata, folder: Path | None, count: int) -> list[Path]:
    """At most `count` photographs, evenly spread, of a folder or else of the run's training images.

    Raises:
        UsageError: The folder does not exist, or the run's images do not any more.
        DataError: The folder has none.
    """
    return _some(metadata, folder, count, "train", "--calibrate")


def _some(metadata: ModelMetadata, folder: Path | None, count: int, split: Split, option: str) -> list[Path]:
    if folder is not None:
        return spread(photographs_of(folder, option), count)
    records = own_images(metadata, f"give others: {option} FOLDER").of_split(split)
    return spread([record.path for record in records], count)


def to_judge(run: Path, metadata: ModelMetadata, root: Path | None) -> Labelled:
    """The labelled photographs that a smaller graph is judged on.

    Those are the run's validation images. Its training images, which the model knows, would hide a loss, and
    its test images are not for choosing; so a run without validation images needs other ones.

    Raises:
        UsageError: The run has no validation images, and no root was given.
        DataError: The data set cannot be read, or has other classes.
    """
    if root is None:
        images = own_images(metadata, "give others: --judge FOLDER")
        if not images.of_split("val"):
            raise UsageError(
                "this run has no validation images to judge int8 on (data.val_fraction 0); give labelled "
                "photographs that it was not trained on: --judge FOLDER, with a folder of images per class"
            )
        return Labelled(with_labels_of(metadata, images, "val"), "validation images of the run")
    config = EvaluationConfig(run, data=EvaluationData(root=root))
    images = read_images(metadata, data_config(metadata.run_options("data"), config.data), config).images
    return Labelled(with_labels_of(metadata, images, "test"), f"images of {root.resolve().name}")


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of some items, evenly spread over them.

    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    total = len(items)
    return [items[index * total // count] for index in range(count)] if total > count else list(items)
