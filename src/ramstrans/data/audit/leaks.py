"""Find photographs of one moment, scene or group in different splits: what is tested was seen in training.

Copies are the business of `duplicates`; these are different photographs, such as those of a burst.

`MIN_LIKENESS` was chosen on 50 classes of CUB-200-2011: of 41,670 pairs of one class in different splits 10
reach it that are not near-duplicates; 2 of them show the same bird in the same moment, by eye. Of 150
photographs that were shifted, turned and zoomed a little (2 %, 1 degree, 2 %), 149 reach it with their
original; of 150 with 5 %, 3 degrees and 5 %, 81 do.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramstrans.data.audit.duplicates import MAX_PAIRS, Fingerprints, likeness, members, merged
from ramstrans.data.audit.findings import Finding
from ramstrans.data.records import ImageSet, Record
from ramstrans.data.splits import divided_groups

MAX_PAUSE = timedelta(seconds=60)
"""Between two photographs of one class that were taken together."""

MIN_LIKENESS = 0.85
"""Cosine of the fingerprints, as they are or mirrored, of two photographs of one class that are alike."""


def leak_findings(
    images: ImageSet, times: Mapping[Path, datetime | None], fingerprints: Mapping[Path, Fingerprints]
) -> Iterator[Finding]:
    """Find groups in several splits and, of each class, photographs of one moment or scene.

    Args:
        images: The data set, of readable files.
        times: When each was taken, or None.
        fingerprints: (64,) of each file, see `duplicates`.
    """
    for group, records in divided_groups(images).items():
        yield _finding("group across splits", records, f"'{group}'")
    members: dict[int, list[Record]] = defaultdict(list)
    for record in images.records:
        for label in record.classes:
            members[label].append(record)
    for label, name in enumerate(images.class_names):
        records = members[label]
        for together in taken_together(records, times):
            first, last = (times[record.path] or datetime.min for record in (together[0], together[-1]))
            seconds = round((last - first).total_seconds())
            detail = f"'{name}', {len(together)} images in {seconds} s from {first:%Y-%m-%d %H:%M:%S}"
            yield _finding("taken together across splits", together, detail)
        for alike in alike_across_splits(records, fingerprints):
            yield _finding("alike across splits", alike, f"'{name}'")


def taken_together(
    records: Sequence[Record], times: Mapping[Path, datetime | None]
) -> Iterator[list[Record]]:
    """Yield the runs of photographs with pauses up to `MAX_PAUSE` that are in several splits, by time."""
    timed = [(moment, record) for record in records if (moment := times[record.path]) is not None]
    timed.sort(key=lambda pair: pair[0])
    starts = [0, *(i for i, (a, b) in enumerate(pairwise(timed), 1) if b[0] - a[0] > MAX_PAUSE), len(timed)]
    for start, end in pairwise(starts):
        run = [record for _, record in timed[start:end]]
        if len({record.split for record in run}) > 1:
            yield run


def alike_across_splits(
    records: Sequence[Record], fingerprints: Mapping[Path, Fingerprints]
) -> Iterator[list[Record]]:
    """Yield sets of records connected by likeness across splits, near-duplicates apart.

    Args:
        records: N records of one class; N x N pairs are compared, in blocks.
        fingerprints: (64,) of each file.
    """
    splits = np.array([record.split for record in records])
    if len(set(splits.tolist())) < 2:
        return
    prints = np.stack([fingerprints[record.path] for record in records])
    group: NDArray[np.integer] = np.arange(len(prints))
    rows = max(1, MAX_PAIRS // len(prints))
    for start in range(0, len(prints), rows):
        cosine, is_near = likeness(prints[start : start + rows], prints[start:])
        is_divided = splits[start : start + rows, None] != splits[start:]
        first, second = np.nonzero((cosine >= MIN_LIKENESS) & ~is_near & is_divided)
        group = merged(group, start + first, start + second)
    for together in members(group):
        yield [records[member] for member in together]


def _finding(kind: str, records: Sequence[Record], detail: str) -> Finding:
    splits = ", ".join(dict.fromkeys(record.split for record in records))
    return Finding(kind, tuple(record.path for record in records), f"{splits}: {detail}")
