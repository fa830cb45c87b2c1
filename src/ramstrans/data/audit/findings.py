"""Findings of a data set audit, and which of them are errors."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ramstrans.data.reading.retry import open_retrying
from ramstrans.errors import first_few
from ramstrans.plain import utf8_text

Severity = Literal["error", "warning"]

KINDS: dict[str, Severity] = {
    "unreadable": "error",
    "damaged shard": "error",
    "class without training images": "error",
    "duplicate with two labels": "error",
    "duplicate across splits": "error",
    "near-duplicate with two labels": "error",
    "near-duplicate across splits": "error",
    "empty box": "error",
    "box outside": "error",
    "duplicate": "warning",
    "near-duplicate": "warning",
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
_COLUMNS = ("kind", "severity", "ids", "paths", "detail")


class Finding(NamedTuple):
    """One finding.

    Attributes:
        kind: A key of `KINDS`.
        paths: The image files concerned; empty for a finding about a class.
        detail: What exactly, in a few words.
        ids: The data set's own names of those images, in their order; empty if it has none.
    """

    kind: str
    paths: tuple[Path, ...]
    detail: str
    ids: tuple[str, ...] = ()

    @property
    def severity(self) -> Severity:
        """`error` if it makes results misleading, else `warning`."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        """One line: `kind: path (image id); path (image id): detail`, with the first few of many paths."""
        ids = self.ids or ("",) * len(self.paths)
        named = [
            f"{path} (image {key})" if key else f"{path}" for path, key in zip(self.paths, ids, strict=True)
        ]
        parts = [self.kind, first_few(named, _MAX_NAMED), self.detail]
        return " ".join(utf8_text(": ".join(part for part in parts if part)).split())


def sort_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings by kind, the worst first, otherwise in order.

    >>> tiny, unreadable = Finding("tiny", (), "13 x 11"), Finding("unreadable", (), "empty file")
    >>> [finding.kind for finding in sort_findings([tiny, unreadable])]
    ['unreadable', 'tiny']
    """
    order = {kind: index for index, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: order[finding.kind])


def examples(findings: Sequence[Finding]) -> str:
    """List the subjects of some findings in short: names of images or files, or of a class.

    >>> examples([Finding("tiny", (Path("folder/a.jpg"),), ""), Finding("imbalance", (), "'wren' has 1")])
    "a.jpg, 'wren' has 1"
    """
    names = ([*(one.ids or [path.name for path in one.paths][:2])] or [one.detail] for one in findings)
    return utf8_text(", ".join(map(" = ".join, names)))


def has_errors(findings: Sequence[Finding]) -> bool:
    """Whether any finding is an error."""
    return any(finding.severity == "error" for finding in findings)


def record_ids(root: Path) -> dict[Path, str]:
    """Read the image ids of a data set in CUB's format, by image file; empty for other formats."""
    for folder in (root, root / "CUB_200_2011"):
        if (folder / "images.txt").is_file():
            with open_retrying(folder / "images.txt") as stream:
                lines = stream.read().decode("utf-8-sig", errors="replace").split("\n")
            rows = [line.strip().split(maxsplit=1) for line in lines]
            return {folder / "images" / row[1]: row[0] for row in rows if len(row) == 2}
    return {}


def with_ids(finding: Finding, ids: Mapping[Path, str]) -> Finding:
    """Add the data set's own names of its images to a finding, if it has such names."""
    named = tuple(ids.get(path, "") for path in finding.paths)
    return finding._replace(ids=named) if any(named) else finding


def encode_findings(findings: Sequence[Finding], suffix: str) -> bytes:
    """Encode findings as a file: `.json` with counts, or `.csv` with one row each and one path per line.

    >>> found = [Finding("tiny", (Path("a.jpg"),), "13 x 11 pixels", ("7",))]
    >>> encode_findings(found, ".csv").decode().splitlines()
    ['kind,severity,ids,paths,detail', 'tiny,warning,7,a.jpg,13 x 11 pixels']
    """
    rows = [
        {
            "kind": finding.kind,
            "severity": finding.severity,
            "ids": list(map(utf8_text, finding.ids)),
            "paths": [utf8_text(str(path)) for path in finding.paths],
            "detail": utf8_text(finding.detail),
        }
        for finding in findings
    ]
    if suffix.lower() == ".json":
        counts = Counter(finding.kind for finding in findings)
        content = {"counts": {kind: counts[kind] for kind in KINDS}, "findings": rows}
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {"ids": "\n".join(row["ids"]), "paths": "\n".join(row["paths"])})
    return stream.getvalue().encode()
