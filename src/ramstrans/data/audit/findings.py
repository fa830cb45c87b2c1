"""Findings of a data set audit, and which of them are errors."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ramstrans.errors import first_few
from ramstrans.plain import csv_text, utf8_text

Severity = Literal["error", "warning"]

KINDS: dict[str, Severity] = {
    "unreadable": "error",
    "damaged shard": "error",
    "class without training images": "error",
    "duplicate with two labels": "error",
    "duplicate across splits": "error",
    "near-duplicate with two labels": "error",
    "near-duplicate across splits": "error",
    "group across splits": "error",
    "taken together across splits": "error",
    "empty box": "error",
    "box outside": "error",
    "duplicate": "warning",
    "near-duplicate": "warning",
    "alike across splits": "warning",
    "box past the edge": "warning",
    "part outside": "warning",
    "greyscale": "warning",
    "tiny": "warning",
    "elongated": "warning",
    "class with few training images": "warning",
    "class without test images": "warning",
    "imbalance": "warning",
    "label issue": "warning",
}
"""Every kind of finding, the worst first. An error makes measured accuracies misleading."""

SUFFIXES = (".json", ".csv")
_MAX_NAMED = 5


class Finding(NamedTuple):
    """One finding.

    Attributes:
        kind: A key of `KINDS`.
        paths: The image files concerned; empty for a finding about a class.
        detail: What exactly, in a few words.
    """

    kind: str
    paths: tuple[Path, ...]
    detail: str

    @property
    def severity(self) -> Severity:
        """`error` if it makes results misleading, else `warning`."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        """One line: `kind: path; path: detail`, with the first few of many paths."""
        parts = [self.kind, first_few(list(map(str, self.paths)), _MAX_NAMED), self.detail]
        return " ".join(utf8_text(": ".join(part for part in parts if part)).split())


def sort_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings by kind, the worst first, otherwise in order.

    >>> tiny, unreadable = Finding("tiny", (), "13 x 11"), Finding("unreadable", (), "empty file")
    >>> [finding.kind for finding in sort_findings([tiny, unreadable])]
    ['unreadable', 'tiny']
    """
    order = list(KINDS)
    return sorted(findings, key=lambda finding: order.index(finding.kind))


def examples(findings: Sequence[Finding]) -> str:
    """List the subjects of some findings in short: names of files, or of a class.

    >>> examples([Finding("tiny", (Path("folder/a.jpg"),), ""), Finding("imbalance", (), "'wren' has 1")])
    "a.jpg, 'wren' has 1"
    """
    names = ([path.name for path in finding.paths[:2]] or [finding.detail] for finding in findings)
    return utf8_text(", ".join(map(" = ".join, names)))


def encode_findings(findings: Sequence[Finding], suffix: str) -> bytes:
    """Encode findings as a file: `.json` with counts, or `.csv` with one row each and one path per line.

    >>> found = [Finding("tiny", (Path("a.jpg"),), "13 x 11 pixels")]
    >>> encode_findings(found, ".csv").decode().splitlines()
    ['kind,severity,paths,detail', 'tiny,warning,a.jpg,13 x 11 pixels']
    """
    rows = [
        (one.kind, one.severity, [utf8_text(str(path)) for path in one.paths], utf8_text(one.detail))
        for one in findings
    ]
    columns = ("kind", "severity", "paths", "detail")
    if suffix.lower() == ".json":
        counts = Counter(finding.kind for finding in findings)
        listed = [dict(zip(columns, row, strict=True)) for row in rows]
        content = {"counts": {kind: counts[kind] for kind in KINDS}, "findings": listed}
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    lines = ((kind, severity, "\n".join(paths), detail) for kind, severity, paths, detail in rows)
    return csv_text([columns, *lines]).encode()
