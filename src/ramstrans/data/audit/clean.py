"""A data set without what its audit has found, as a table that `train` reads."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from ramstrans.data.audit.findings import KINDS, Finding
from ramstrans.data.datasets.table import BOX_COLUMNS
from ramstrans.data.records import SPLITS, ImageSet, Record
from ramstrans.data.splits import check_classes
from ramstrans.errors import UsageError
from ramstrans.plain import csv_text, join_labels

logger = logging.getLogger(__name__)

ERRORS = "errors"
"""Stands for every kind that is an error."""

_REPEATED = ("duplicate", "duplicate across splits", "near-duplicate", "near-duplicate across splits")
"""One of the images is kept, if possible one of the test split."""

_ACROSS_SPLITS = ("group across splits", "taken together across splits", "alike across splits")
"""The images of one split are kept, if possible of the test split."""

_BOXES = ("empty box", "box outside", "box past the edge")
"""The image is kept, its box is not."""

_OF_THE_SET = (
    *("damaged shard", "class without training images", "class with few training images"),
    *("class without test images", "imbalance"),
)
"""Not about some images, which could be left out."""

CHOICES = (ERRORS, *(kind for kind in KINDS if kind not in _OF_THE_SET))
"""What may be left out."""


def kinds_to_leave_out(names: Iterable[str]) -> set[str]:
    """The kinds of findings that names from `CHOICES` stand for.

    Raises:
        UsageError: A name is not one of them.
    """
    kinds: set[str] = set()
    for name in names:
        if name not in CHOICES:
            raise UsageError(f"--leave_out '{name}': give {', '.join(map(repr, CHOICES))}")
        kinds |= {kind for kind in CHOICES[1:] if name in (kind, ERRORS if KINDS[kind] == "error" else "")}
    return kinds


def without_findings(images: ImageSet, findings: Sequence[Finding], kinds: set[str]) -> ImageSet:
    """Leave out images, or their boxes, that findings of some kinds are about.

    Unreadable files, images with two labels, label issues and the like are all left out. Of copies, one is
    kept; of photographs that belong together but are in several splits, those of one split: of the test
    split, if there are some, so that what is tested stays the same. Classes that lose all training images
    are left out whole, which is logged.

    Raises:
        DataError: Fewer than two classes remain.
    """
    chosen = [finding for finding in findings if finding.kind in kinds]
    kept = dict(enumerate(images.records))
    partly = (*_REPEATED, *_ACROSS_SPLITS, *_BOXES)
    indices_of: dict[Path, list[int]] = defaultdict(list)
    for index, record in kept.items():
        indices_of[record.path].append(index)
    for finding in sorted(chosen, key=lambda finding: finding.kind in partly):
        of_paths = chain.from_iterable(indices_of[path] for path in set(finding.paths))
        concerned = sorted(index for index in of_paths if index in kept)
        if finding.kind in _BOXES:
            kept |= {index: kept[index]._replace(box=None) for index in concerned}
            continue
        for index in _dropped(finding.kind, concerned, kept):
            del kept[index]
    remaining = images._replace(records=tuple(kept.values()))
    for name, count in remaining.counts("train").items():
        if not count:
            logger.warning("'%s' has no training images left: the whole class is left out", name)
    return _compact(remaining)


def _dropped(kind: str, concerned: Sequence[int], kept: dict[int, Record]) -> list[int]:
    """Which of the records that a finding is about are left out."""
    if kind not in (*_REPEATED, *_ACROSS_SPLITS) or not concerned:
        return list(concerned)
    first = min(concerned, key=lambda index: -SPLITS.index(kept[index].split))
    if kind in _REPEATED:
        return [index for index in concerned if index != first]
    return [index for index in concerned if kept[index].split != kept[first].split]


def _compact(images: ImageSet) -> ImageSet:
    """The classes that have training images, with new labels."""
    names = [name for name, count in images.counts("train").items() if count]
    label_of = {name: label for label, name in enumerate(names)}
    records = []
    for record in images.records:
        kept = [images.class_names[label] for label in record.classes]
        labels = tuple(label_of[name] for name in kept if name in label_of)
        if record.labels is not None:
            records.append(record._replace(labels=labels))
        elif labels:
            records.append(record._replace(label=labels[0]))
    compact = ImageSet(tuple(names), tuple(records))
    check_classes(compact)
    return compact


def encode_table(images: ImageSet, folder: Path) -> bytes:
    """Encode a data set as CSV: path, label, split and, if there are some, group and box.

    Paths below `folder`, where the table will lie, are relative to it; others are absolute. Names that are
    not UTF-8 keep their bytes, which `read_table` finds again. Several labels are joined by `;`.

    >>> records = (Record(Path("/set/a.jpg"), 0, "train", (1, 2, 3.5, 4)), Record(Path("/b.jpg"), 0, "test"))
    >>> print(encode_table(ImageSet(("wren",), records), Path("/set")).decode(), end="")
    path,label,split,x0,y0,x1,y1
    a.jpg,wren,train,1,2,3.5,4
    /b.jpg,wren,test,,,,
    """
    has_groups = any(record.group for record in images.records)
    has_boxes = any(record.box is not None for record in images.records)
    base = folder.resolve()

    def row(record: Record) -> list[str]:
        path = record.path.absolute()
        path = path.relative_to(base) if path.is_relative_to(base) else path
        box = [f"{corner:.10g}" for corner in record.box] if record.box is not None else [""] * 4
        group, corners = [record.group] * has_groups, box * has_boxes
        names = [images.class_names[label] for label in record.classes]
        label = names[0] if record.labels is None else join_labels(names)
        return [str(path), label, record.split, *group, *corners]

    header = ["path", "label", "split", *["group"] * has_groups, *BOX_COLUMNS * has_boxes]
    return csv_text([header, *map(row, images.records)]).encode(errors="surrogateescape")


def summary(before: ImageSet, after: ImageSet, findings: Iterable[Finding], kinds: set[str]) -> str:
    """What was left out, in a line.

    >>> records = tuple(Record(Path(f"{i}.jpg"), 0, "train") for i in range(3))
    >>> before = ImageSet(("wren",), records)
    >>> found = [Finding("unreadable", (Path("0.jpg"),), "empty file")]
    >>> summary(before, before._replace(records=records[1:]), found, {"unreadable"})
    '2 of 3 images; 1 left out, for what was found: unreadable 1'
    """
    counts = Counter(finding.kind for finding in findings if finding.kind in kinds)
    found = ", ".join(f"{kind} {count}" for kind, count in counts.items()) or "nothing"
    kept, had = len(after.records), len(before.records)
    return f"{kept} of {had} images; {had - kept} left out, for what was found: {found}"
