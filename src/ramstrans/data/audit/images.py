"""Audit a data set's files, boxes, classes and splits in one pass.

Each file is decoded once, a JPEG at reduced size; an unreadable file is a finding like any other.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.boxes_classes import box_findings, class_findings
from ramstrans.data.audit.duplicates import Fingerprints, fingerprint, near_groups
from ramstrans.data.audit.files import decode_each
from ramstrans.data.audit.findings import Finding
from ramstrans.data.audit.leaks import leak_findings
from ramstrans.data.config import DataConfig
from ramstrans.data.reading.decode import decode_reduced
from ramstrans.data.reading.exif import taken_at
from ramstrans.data.records import ImageSet, Record
from ramstrans.errors import UnreadableImageError

MAX_RATIO = 3.0
"""Longer side over shorter above which an image is elongated: the centre crop keeps less than a third."""

_MIN_SIDE = 64  # twice the side at which a fingerprint is computed


class ImageFacts(NamedTuple):
    """What the audit keeps of a decoded file.

    Attributes:
        size: `(height, width)` in pixels after EXIF rotation.
        is_grey: Whether its pixels have no colour.
        digest: Hash of size and pixels: equal for files that differ only in metadata.
        fingerprint: (64,) see `duplicates`.
        taken_at: When it was taken, by its EXIF data, or None.
    """

    size: tuple[int, int]
    is_grey: bool
    digest: bytes
    fingerprint: Fingerprints
    taken_at: datetime | None


def audit_images(
    images: ImageSet,
    *,
    smallest_side: int = 224,
    max_pixels: int = DataConfig.max_pixels,
    progress: Progress = no_progress,
    timeout: float = DataConfig.read_timeout,
) -> list[Finding]:
    """Check every file, box and class of a data set.

    Args:
        images: The data set.
        smallest_side: Images with a shorter side below this, in pixels, are tiny; e.g. the model's input.
        max_pixels: As in `decode_reduced`.
        progress: Reports files done.
        timeout: As in `find_unreadable`.

    Returns:
        The findings. Those about classes count readable images.
    """
    read = partial(read_facts, max_pixels=max_pixels)
    outcomes = dict(decode_each(read, images.records, progress, timeout))
    facts = {path: outcome for path, outcome in outcomes.items() if isinstance(outcome, ImageFacts)}
    readable = images._replace(records=tuple(record for record in images.records if record.path in facts))
    return [
        *_file_findings(outcomes, smallest_side),
        *_duplicate_findings(readable, facts),
        *leak_findings(
            readable,
            {path: found.taken_at for path, found in facts.items()},
            {path: found.fingerprint for path, found in facts.items()},
        ),
        *box_findings(readable.records, {path: found.size for path, found in facts.items()}),
        *class_findings(readable),
    ]


def read_facts(path: Path, max_pixels: int = DataConfig.max_pixels) -> ImageFacts:
    """Decode a file and keep what the audit needs.

    Raises:
        UnreadableImageError: It cannot be decoded.
    """
    image, size = decode_reduced(path, (_MIN_SIDE, _MIN_SIDE), max_pixels=max_pixels)
    pixels = np.asarray(image)
    digest = hashlib.blake2b(repr(size).encode() + pixels.tobytes(), digest_size=16).digest()
    return ImageFacts(
        size, bool((pixels == pixels[..., :1]).all()), digest, fingerprint(image), taken_at(path)
    )


def _file_findings(
    outcomes: Mapping[Path, ImageFacts | UnreadableImageError], smallest_side: int
) -> Iterator[Finding]:
    """Find unreadable, greyscale, tiny and elongated images."""
    for path, found in outcomes.items():
        if isinstance(found, UnreadableImageError):
            yield Finding("unreadable", (path,), found.reason)
            continue
        height, width = found.size
        if found.is_grey:
            yield Finding("greyscale", (path,), "no colour")
        if min(found.size) < smallest_side:
            detail = f"{width} x {height} pixels, the shorter side below {smallest_side}"
            yield Finding("tiny", (path,), detail)
        if max(found.size) > MAX_RATIO * min(found.size):
            detail = f"{width} x {height} pixels, over {MAX_RATIO:g} to 1"
            yield Finding("elongated", (path,), detail)


def _duplicate_findings(images: ImageSet, facts: Mapping[Path, ImageFacts]) -> Iterator[Finding]:
    """Find images with the same pixels, or nearly the same."""
    copies: dict[bytes, list[Record]] = defaultdict(list)
    for record in images.records:
        copies[facts[record.path].digest].append(record)
    distinct = list(copies.values())
    for records in distinct:
        if len(records) > 1:
            yield _repeated("duplicate", records, images.class_names)
    if distinct:
        prints = np.stack([facts[records[0].path].fingerprint for records in distinct])
        for group in near_groups(prints):
            records = [record for index in group for record in distinct[index]]
            yield _repeated("near-duplicate", records, images.class_names)


def _repeated(kind: str, records: Sequence[Record], class_names: Sequence[str]) -> Finding:
    """Make a finding about records of one image."""
    if len({record.classes for record in records}) > 1:
        kind += " with two labels"
    elif len({record.split for record in records}) > 1:
        kind += " across splits"
    names = [";".join(class_names[label] for label in record.classes) for record in records]
    shown = dict.fromkeys(f"{record.split} '{name}'" for record, name in zip(records, names, strict=True))
    return Finding(kind, tuple(record.path for record in records), ", ".join(shown))
