"""Classes that training leaves out: what an unknown class looks like, for evaluations."""

import hashlib
import random
from collections.abc import Collection, Sequence

from ramstrans.data.records import ImageSet
from ramstrans.errors import DataError


def held_out_names(class_names: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """Draw the classes to leave out, in label order; the draw depends on the seed and the names alone.

    Raises:
        DataError: Fewer than two classes would be left.

    >>> held_out_names(("crow", "jay", "owl", "wren"), 2, seed=0)
    ('jay', 'owl')
    """
    if count > len(class_names) - 2:
        raise DataError(
            f"data.hold_out_classes {count} of {len(class_names)} classes leaves fewer than two to train on; "
            f"give at most {max(len(class_names) - 2, 0)}"
        )
    names = "\n".join(sorted(class_names)).encode(errors="surrogateescape")
    generator = random.Random(int.from_bytes(hashlib.sha256(f"{seed} classes\n".encode() + names).digest()))
    drawn = set(generator.sample(sorted(class_names), count))
    return tuple(name for name in class_names if name in drawn)


def without_classes(images: ImageSet, names: Collection[str]) -> ImageSet:
    """The data set without some classes, whose other labels move up.

    >>> from pathlib import Path
    >>> from ramstrans.data.records import Record
    >>> records = tuple(Record(Path(f"{label}.jpg"), label, "train") for label in range(3))
    >>> without_classes(ImageSet(("crow", "jay", "owl"), records), ["jay"]).counts("train")
    {'crow': 1, 'owl': 1}
    """
    kept = [label for label, name in enumerate(images.class_names) if name not in names]
    renumbered = {label: new for new, label in enumerate(kept)}
    return ImageSet(
        tuple(images.class_names[label] for label in kept),
        tuple(
            record._replace(label=renumbered[record.label])
            for record in images.records
            if record.label in renumbered
        ),
        tuple(images.hierarchy[label] for label in kept) if images.hierarchy else (),
        images.ranks,
    )
