"""A close look at a data set: what is wrong with its files, boxes, classes and splits, in one pass.

Every file is decoded once, a JPEG reduced; one that cannot be is a finding among the others. Labels are
doubted by a trained model, see `evaluation.label_errors`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ramstrans.data.audit.duplicates import Fingerprints, fingerprint, near_groups
from ramstrans.data.audit.files import NUM_THREADS
from ramstrans.data.audit.findings import Finding, sort_findings
from ramstrans.data.config import DataConfig
from ramstrans.data.reading.decode import FORMATS, decode_reduced, open_file
from ramstrans.data.reading.retry import open_retrying
from ramstrans.data.reading.threads import in_threads
from ramstrans.data.records import Box, ImageSet, Record
from ramstrans.errors import UnreadableImageError

EDGE_TOLERANCE = 1.0
"""Pixels that a box may run past the edge unmentioned: as 11 of cub50's do, whose places count from 1."""

MAX_RATIO = 3.0
"""Longer side over shorter, above which an image is elongated: the centre crop keeps less than a third."""

FEW_TRAINING_IMAGES = 5
MAX_IMBALANCE = 10.0
"""Training images of the largest class over those of the smallest."""

_LEAST_SIDE = 64  # twice the side that a fingerprint is taken at


class ImageFacts(NamedTuple):
    """What is kept of a decoded file.

    Attributes:
        size: `(height, width)` in pixels after EXIF rotation.
        grey: How a picture without colour is stored, e.g. `"L"`; None for one with colour.
        digest: Of size and pixels: files that differ in metadata only have the same.
        fingerprint: (64,) see `fingerprints`.
    """

    size: tuple[int, int]
    grey: str | None
    digest: bytes
    fingerprint: Fingerprints


Facts = Mapping[Path, ImageFacts | UnreadableImageError]


def audit_images(
    images: ImageSet,
    *,
    smallest_side: int = 224,
    ids: Mapping[Path, str] | None = None,
    max_pixels: int = DataConfig.max_pixels,
    num_workers: int = NUM_THREADS,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Finding]:
    """Look at every file, box and class of a data set.

    Args:
        images: The data set.
        smallest_side: Images with a shorter side below this, in pixels, are tiny; e.g. the model's input.
        ids: What the data set calls its images, see `record_ids`.
        max_pixels: As in `decode_image`.
        num_workers: Threads; 0 decodes in this one.
        progress: Called after each file with the number of files done and their total.

    Returns:
        The findings, the worst kinds first. Those about classes count readable images.
    """
    facts = read_facts(images.records, max_pixels, num_workers, progress)
    readable = images._replace(
        records=tuple(record for record in images.records if isinstance(facts[record.path], ImageFacts))
    )
    findings = [
        *_of_files(facts, smallest_side),
        *_of_pictures(readable, facts),
        *_of_annotations(readable.records, facts),
        *_of_classes(readable),
    ]
    names = ids or {}
    return sort_findings([with_ids(finding, names) for finding in findings])


def read_facts(
    records: Iterable[Record],
    max_pixels: int = DataConfig.max_pixels,
    num_workers: int = NUM_THREADS,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[Path, ImageFacts | UnreadableImageError]:
    """Decode each file once, however often it is listed.

    Args:
        records: Whose files.
        max_pixels: As in `decode_image`.
        num_workers: Threads; 0 decodes in this one.
        progress: Called after each file with the number of files done and their total.
    """
    paths = list(dict.fromkeys(record.path for record in records))
    facts: dict[Path, ImageFacts | UnreadableImageError] = {}
    outcomes = in_threads(lambda path: _facts(path, max_pixels), paths, num_workers)
    for done, (path, outcome) in enumerate(zip(paths, outcomes, strict=True), start=1):
        facts[path] = outcome
        progress(done, len(paths))
    return facts


def record_ids(root: Path) -> dict[Path, str]:
    """What a data set in CUB's layout calls its images: the numbers of `images.txt`; empty for others."""
    for folder in (root, root / "CUB_200_2011"):
        if (folder / "images.txt").is_file():
            with open_retrying(folder / "images.txt") as stream:
                lines = stream.read().decode("utf-8-sig", errors="replace").split("\n")
            rows = [line.strip().split(maxsplit=1) for line in lines]
            return {folder / "images" / row[1]: row[0] for row in rows if len(row) == 2}
    return {}


def with_ids(finding: Finding, ids: Mapping[Path, str]) -> Finding:
    """A finding with the names of its images, if the data set has such names."""
    named = tuple(ids.get(path, "") for path in finding.paths)
    return finding._replace(ids=named) if any(named) else finding


def _facts(path: Path, max_pixels: int) -> ImageFacts | UnreadableImageError:
    try:
        image, size = decode_reduced(path, _LEAST_SIDE, max_pixels=max_pixels)
        pixels = np.asarray(image)
        is_grey = bool((pixels == pixels[..., :1]).all())
        digest = hashlib.blake2b(repr(size).encode() + pixels.tobytes(), digest_size=16).digest()
        return ImageFacts(size, _mode(path) if is_grey else None, digest, fingerprint(image))
    except UnreadableImageError as error:
        # A fresh one: the caught one's traceback would keep the half-decoded pixels alive.
        return UnreadableImageError(error.path, error.reason)


def _mode(path: Path) -> str:
    """Pillow's name of how the pixels are stored; of a file that has been decoded."""
    try:
        with open_file(path) as stream, Image.open(stream, formats=FORMATS) as image:
            return image.mode
    except Image.DecompressionBombError:  # Pillow's limit, which is not ours
        return "grey"


def _of_files(facts: Facts, smallest_side: int) -> Iterator[Finding]:
    """Unreadable, greyscale, tiny, elongated."""
    for path, found in facts.items():
        if isinstance(found, UnreadableImageError):
            yield Finding("unreadable", (path,), found.reason)
            continue
        height, width = found.size
        if found.grey is not None:
            stored = "three equal channels" if found.grey == "RGB" else "no colour"
            yield Finding("greyscale", (path,), f"{stored}, stored as {found.grey}")
        if min(found.size) < smallest_side:
            detail = f"{width} x {height} pixels, the shorter side below {smallest_side}"
            yield Finding("tiny", (path,), detail)
        if max(found.size) > MAX_RATIO * min(found.size):
            detail = f"{width} x {height} pixels, over {MAX_RATIO:g} to 1"
            yield Finding("elongated", (path,), detail)


def _of_pictures(images: ImageSet, facts: Facts) -> Iterator[Finding]:
    """The same picture twice, to the pixel or nearly, whichever records show it."""
    copies: dict[bytes, list[Record]] = defaultdict(list)
    prints: dict[bytes, Fingerprints] = {}
    for record in images.records:
        found = facts[record.path]
        assert isinstance(found, ImageFacts), "records of unreadable files are left out"
        copies[found.digest].append(record)
        prints[found.digest] = found.fingerprint
    pictures = list(copies.values())
    for records in pictures:
        if len(records) > 1:
            yield _repeated("duplicate", records, images.class_names)
    if pictures:
        for group in near_groups(np.stack(list(prints.values()))):
            records = [record for place in group for record in pictures[place]]
            yield _repeated("near-duplicate", records, images.class_names)


def _repeated(kind: str, records: Sequence[Record], class_names: Sequence[str]) -> Finding:
    """A finding on records of one picture."""
    if len({record.label for record in records}) > 1:
        kind += " with two labels"
    elif len({record.split for record in records}) > 1:
        kind += " across splits"
    shown = dict.fromkeys(f"{record.split} '{class_names[record.label]}'" for record in records)
    return Finding(kind, tuple(record.path for record in records), ", ".join(shown))


def _of_annotations(records: Iterable[Record], facts: Facts) -> Iterator[Finding]:
    """Boxes and parts that do not lie in their photographs."""
    for record in records:
        found = facts[record.path]
        assert isinstance(found, ImageFacts), "records of unreadable files are left out"
        height, width = found.size
        kind = None if record.box is None else box_issue(record.box, width, height)
        if kind is not None and record.box is not None:
            corners = ", ".join(f"{corner:g}" for corner in record.box)
            yield Finding(kind, (record.path,), f"({corners}) in {width} x {height} pixels")
        for part in record.parts:
            if not (0 <= part.x <= width and 0 <= part.y <= height):
                detail = f"{part.name} at ({part.x:g}, {part.y:g}) in {width} x {height} pixels"
                yield Finding("part outside", (record.path,), detail)


def box_issue(box: Box, width: int, height: int) -> str | None:
    """What is wrong with a box in a photograph, or None.

    Args:
        box: `(x0, y0, x1, y1)` in pixels of the photograph.
        width: Of the photograph in pixels.
        height: Likewise.

    Returns:
        `empty box` (inverted, or no number, too), `box outside`, `box past the edge` by more than
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


def _of_classes(images: ImageSet) -> Iterator[Finding]:
    """Classes with none or few images, and how unequal they are."""
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
