"""What a check of a data set finds, and which of it would spoil a result."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ramstrans.errors import UsageError
from ramstrans.plain import utf8_text

Severity = Literal["spoils", "note"]

KINDS: dict[str, Severity] = {
    "unreadable": "spoils",
    "damaged shard": "spoils",
    "class without training images": "spoils",
    "duplicate with two labels": "spoils",
    "duplicate across splits": "spoils",
    "near-duplicate with two labels": "spoils",
    "near-duplicate across splits": "spoils",
    "empty box": "spoils",
    "box outside": "spoils",
    "duplicate": "note",
    "near-duplicate": "note",
    "box past the edge": "note",
    "part outside": "note",
    "greyscale": "note",
    "tiny": "note",
    "elongated": "note",
    "class with few training images": "note",
    "class without test images": "note",
    "imbalance": "note",
    "suspected label": "note",
}
"""Every kind of finding, the worst first: with one that `spoils`, measured accuracies mean something else."""

SUFFIXES = (".json", ".csv")
_MAX_NAMED = 5
_COLUMNS = ("kind", "severity", "ids", "paths", "detail")


class Finding(NamedTuple):
    """One thing that was found.

    Attributes:
        kind: A key of `KINDS`.
        paths: The image files it is about; none where it is about a class.
        detail: What exactly, in a few words.
        ids: What the data set calls those images, in their order; none where it has no such names.
    """

    kind: str
    paths: tuple[Path, ...]
    detail: str
    ids: tuple[str, ...] = ()

    @property
    def severity(self) -> Severity:
        """Whether it spoils a result or is to be known only."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        """One line: `kind: path (image id), path (image id): detail`; of many paths the first few."""
        ids = self.ids or ("",) * len(self.paths)
        named = [
            f"{path} (image {key})" if key else f"{path}" for path, key in zip(self.paths, ids, strict=True)
        ]
        if len(named) > _MAX_NAMED:
            named[_MAX_NAMED:] = [f"and {len(named) - _MAX_NAMED} more"]
        parts = [self.kind, ", ".join(named), self.detail]
        return " ".join(utf8_text(": ".join(part for part in parts if part)).split())


def sort_findings(findings: Sequence[Finding]) -> list[Finding]:
    """The findings by kind, the worst first, otherwise in order.

    >>> tiny, unreadable = Finding("tiny", (), "13 x 11"), Finding("unreadable", (), "empty file")
    >>> [finding.kind for finding in sort_findings([tiny, unreadable])]
    ['unreadable', 'tiny']
    """
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: order[finding.kind])


def examples(findings: Sequence[Finding]) -> str:
    """What some findings are about, in short: the names of images or files, or of a class.

    >>> examples([Finding("tiny", (Path("folder/a.jpg"),), ""), Finding("imbalance", (), "'wren' has 1")])
    "a.jpg, 'wren' has 1"
    """
    short = [
        " = ".join(finding.ids or [path.name for path in finding.paths][:2]) or finding.detail
        for finding in findings
    ]
    return utf8_text(", ".join(short))


def has_errors(findings: Sequence[Finding]) -> bool:
    """Whether any of them spoils a result."""
    return any(finding.severity == "spoils" for finding in findings)


def check_suffix(path: Path) -> None:
    """Raise unless findings can be written into a file of that name.

    Raises:
        UsageError: An unknown suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--output {path} has no known suffix ({', '.join(SUFFIXES)}); rename it")


def encode_findings(findings: Sequence[Finding], suffix: str) -> bytes:
    """The findings as a file: `.json`, with counts, or `.csv`, one row each, several paths one a line.

    >>> found = [Finding("tiny", (Path("a.jpg"),), "13 x 11 pixels", ("7",))]
    >>> encode_findings(found, ".csv").decode().splitlines()
    ['kind,severity,ids,paths,detail', 'tiny,note,7,a.jpg,13 x 11 pixels']
    """
    rows = [_row(finding) for finding in findings]
    if suffix.lower() == ".json":
        counts = Counter(finding.kind for finding in findings)
        content = {"counts": {kind: counts[kind] for kind in KINDS}, "findings": rows}
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {key: "\n".join(cell) if isinstance(cell, list) else cell for key, cell in row.items()}
        writer.writerow(cells)
    return stream.getvalue().encode()


def _row(finding: Finding) -> dict[str, str | list[str]]:
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "ids": list(map(utf8_text, finding.ids)),
        "paths": [utf8_text(str(path)) for path in finding.paths],
        "detail": utf8_text(finding.detail),
    }
