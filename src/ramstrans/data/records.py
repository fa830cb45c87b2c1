"""A data set as read: a list of labelled image files."""

from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Box = tuple[float, float, float, float]
"""`(x0, y0, x1, y1)`, half-open float pixels."""


class Part(NamedTuple):
    """One visible part of the object: its name, and its position in pixels of the original image."""

    name: str
    x: float
    y: float


class Record(NamedTuple):
    """One labelled image.

    Attributes:
        path: The image file.
        label: Index into `ImageSet.class_names`; -1 if `labels` has them.
        split: The split it belongs to.
        box: The object's `(x0, y0, x1, y1)`, half-open float pixels of the original image after
            EXIF rotation, or None if the data set has none. May extend past the edge.
        parts: The visible parts; empty if the data set has none.
        group: Images with the same name here, e.g. those of one animal, are never drawn into different
            splits; "" if this one belongs to none.
        labels: The classes of an image that may have several, ascending, or none at all; None in a data set
            whose images have one class each.
    """

    path: Path
    label: int
    split: Split
    box: Box | None = None
    parts: tuple[Part, ...] = ()
    group: str = ""
    labels: tuple[int, ...] | None = None

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes of the image: one, or, where it may have several, those that it has."""
        return (self.label,) if self.labels is None else self.labels


class ImageSet(NamedTuple):
    """A data set as read: its classes, in label order, and its records, in file order.

    Attributes:
        class_names: The classes, all with different names.
        records: The images.
        hierarchy: For each class, in label order, the groups above it, nearest first, e.g.
            `("Finches", "Perching Birds", "Birds")`; empty if the data set has none. Two groups are the
            same if they and all above them have the same names: a genus of plants may share its name with
            one of birds.
        ranks: Names of the ranks of the classes and of the groups above them, that of the classes first, e.g.
            `("species", "genus", "family")`; empty if the data set does not name them. A class with fewer
            groups lacks the finest ones; one that lacks a rank in between has "" there.

    >>> records = tuple(Record(Path(f"{i}.jpg"), i % 2, "train") for i in range(3))
    >>> images = ImageSet(("crow", "wren"), records)
    >>> len(images.of_split("train")), images.counts("train")
    (3, {'crow': 2, 'wren': 1})
    """

    class_names: tuple[str, ...]
    records: tuple[Record, ...]
    hierarchy: tuple[tuple[str, ...], ...] = ()
    ranks: tuple[str, ...] = ()

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return any(record.labels is not None for record in self.records[:1])

    def of_split(self, split: Split) -> tuple[Record, ...]:
        """The records of one split, in order."""
        return tuple(record for record in self.records if record.split == split)

    def counts(self, split: Split) -> dict[str, int]:
        """Number of records of each class in one split, in label order, zeros included."""
        labels = Counter(label for record in self.of_split(split) for label in record.classes)
        return {name: labels[index] for index, name in enumerate(self.class_names)}
