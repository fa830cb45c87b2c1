"""Validation and test splits drawn from the training images, and a check of the classes."""

import hashlib
import random
from collections import defaultdict
from pathlib import Path

from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import DataError, first_few

_MAX_NAMED = 5


def hold_out(images: ImageSet, fraction: float, seed: int, into: Split) -> ImageSet:
    """Move a fraction of each class's training images, in [0, 1), into another split, `val` or `test`.

    The draw of a class depends only on the seed, its name, and its own files: neither the order of
    the records nor the other classes change it. `fraction * num_images` is rounded up or down at
    random, so that the total is right on average however small the classes are; one training image of
    each class stays. A file listed more than once moves with all its records. Records keep their order.

    >>> records = tuple(Record(Path(f"{i:02}.jpg"), i // 10, "train") for i in range(20))
    >>> held = hold_out(ImageSet(("crow", "wren"), records), 0.3, seed=0, into="val")
    >>> held.counts("val"), held.counts("train")
    ({'crow': 3, 'wren': 3}, {'crow': 7, 'wren': 7})
    """
    assert 0 <= fraction < 1, f"the fraction to hold out is {fraction}"
    paths_of: dict[int, set[Path]] = defaultdict(set)
    for record in images.of_split("train"):
        paths_of[record.label].add(record.path)
    drawn = {
        (label, path)
        for label, paths in paths_of.items()
        for path in _draw(paths, fraction, f"{seed} {into} {images.class_names[label]}")
    }

    def moved(record: Record) -> Record:
        is_drawn = record.split == "train" and (record.label, record.path) in drawn
        return record._replace(split=into) if is_drawn else record

    return images._replace(records=tuple(moved(record) for record in images.records))


def check_classes(images: ImageSet) -> None:
    """Raise unless there are two classes or more, each with training images.

    Raises:
        DataError: Naming the first few classes without training images.

    >>> check_classes(ImageSet(("crow",), (Record(Path("0.jpg"), 0, "train"),)))
    Traceback (most recent call last):
    ramstrans.errors.DataError: the data set has one class only, 'crow'; give it two or more
    """
    names = images.class_names
    if not names or not images.records:
        raise DataError(
            "the data set holds no images; give it two classes or more, each with training images"
        )
    if len(names) == 1:
        raise DataError(f"the data set has one class only, '{names[0]}'; give it two or more")
    without = [name for name, count in images.counts("train").items() if count == 0]
    if without:
        named = first_few([f"'{name}'" for name in without], _MAX_NAMED)
        raise DataError(
            f"{len(without)} of {len(names)} classes have no training images: {named}; "
            "add some, or remove the class"
        )


def _draw(paths: set[Path], fraction: float, key: str) -> list[Path]:
    """Draw a fraction of the paths with a generator seeded by the key, the same on every machine."""
    name = key.encode(errors="surrogateescape")  # a folder may be named in any bytes
    generator = random.Random(int.from_bytes(hashlib.sha256(name).digest()))
    whole, rest = divmod(fraction * len(paths), 1)
    count = min(int(whole) + (generator.random() < rest), len(paths) - 1)
    return generator.sample(sorted(paths), count)
