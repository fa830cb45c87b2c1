"""Audit annotations: boxes and parts outside their image, classes with too few images."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ramstrans.data.audit.findings import Finding
from ramstrans.data.records import Box, ImageSet, Record

EDGE_TOLERANCE = 1.0
"""Pixels by which a box may pass the edge unreported: 11 boxes of cub50 do, whose pixels count from 1."""

FEW_TRAINING_IMAGES = 5
MAX_IMBALANCE = 10.0
"""Training images of the largest class over those of the smallest."""


def box_findings(records: Iterable[Record], sizes: Mapping[Path, tuple[int, int]]) -> Iterator[Finding]:
    """Find boxes and parts that do not lie in their images.

    Args:
        records: The records, of readable images.
        sizes: `(height, width)` of each image in pixels after EXIF rotation.
    """
    for record in records:
        height, width = sizes[record.path]
        if record.box is not None and (kind := box_issue(record.box, width, height)):
            corners = ", ".join(f"{corner:g}" for corner in record.box)
            yield Finding(kind, (record.path,), f"({corners}) in {width} x {height} pixels")
        for part in record.parts:
            if not (0 <= part.x <= width and 0 <= part.y <= height):
                detail = f"{part.name} at ({part.x:g}, {part.y:g}) in {width} x {height} pixels"
                yield Finding("part outside", (record.path,), detail)


def box_issue(box: Box, width: int, height: int) -> str | None:
    """Classify what is wrong with a box.

    Args:
        box: `(x0, y0, x1, y1)` in pixels of the image.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        `empty box` (also if inverted or not a number), `box outside`, `box past the edge` by more than
        `EDGE_TOLERANCE`, or None.

    >>> box_issue((2, 3, 13, 12), 11, 13), box_issue((2, 3, 12, 14), 11, 13)
    ('box past the edge', None)
    """
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):
        return "empty box"
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return "box outside"
    past = max(-x0, -y0, x1 - width, y1 - height)
    return "box past the edge" if past > EDGE_TOLERANCE else None


def class_findings(images: ImageSet) -> Iterator[Finding]:
    """Find classes with no or few images, and imbalance between classes."""
    train, test = images.counts("train"), images.counts("test")
    for name, count in train.items():
        if count == 0:
            yield Finding("class without training images", (), f"'{name}'")
        elif count < FEW_TRAINING_IMAGES:
            yield Finding("class with few training images", (), f"'{name}' has {count}")
        if test[name] == 0 and any(test.values()):
            yield Finding("class without test images", (), f"'{name}'")
    present = {name: count for name, count in train.items() if count}
    if not present:
        return
    most, fewest = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
    if present[most] > MAX_IMBALANCE * present[fewest]:
        detail = f"'{most}' has {present[most]} training images, '{fewest}' {present[fewest]}"
        yield Finding("imbalance", (), detail)
