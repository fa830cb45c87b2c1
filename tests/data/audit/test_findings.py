import csv
import io
import json
import os
from pathlib import Path

import pytest

from ramstrans.data.audit.findings import (
    KINDS,
    Finding,
    encode_findings,
    examples,
    sort_findings,
)

TINY = Finding("tiny", (Path("a.jpg"),), "13 x 11 pixels")
TWICE = Finding("duplicate across splits", (Path("a.jpg"), Path("b.jpg")), "train 'wren'")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_one_line(kind):
    finding = Finding(kind, (), "a detail")
    assert str(finding) == f"{kind}: a detail"
    assert finding.severity in ("error", "warning")


def test_errors_come_first():
    severities = list(KINDS.values())
    assert severities == sorted(severities)
    findings = [Finding(kind, (), str(number)) for number in range(2) for kind in reversed(KINDS)]
    ordered = sort_findings(findings)
    assert [finding.kind for finding in ordered] == [kind for kind in KINDS for _ in range(2)]
    assert [finding.detail for finding in ordered[:4]] == ["0", "1", "0", "1"]


def test_a_line_names_paths():
    assert str(TINY) == "tiny: a.jpg: 13 x 11 pixels"
    assert str(TWICE) == "duplicate across splits: a.jpg; b.jpg: train 'wren'"


def test_a_line_names_the_first_few_of_many_paths():
    many = Finding("duplicate", tuple(Path(f"{i}.jpg") for i in range(13)), "")
    assert str(many) == "duplicate: 0.jpg; 1.jpg; 2.jpg; 3.jpg; 4.jpg; and 8 more"


def test_examples_are_names_of_files():
    assert examples([TINY, TWICE]) == "a.jpg, a.jpg = b.jpg"


@pytest.mark.parametrize("suffix", [".json", ".JSON"])
def test_json_holds_all_and_counts(suffix):
    content = json.loads(encode_findings([TWICE, TINY, TINY], suffix))
    assert content["counts"] == dict.fromkeys(KINDS, 0) | {"duplicate across splits": 1, "tiny": 2}
    assert content["findings"][0] == {
        "kind": "duplicate across splits",
        "severity": "error",
        "paths": ["a.jpg", "b.jpg"],
        "detail": "train 'wren'",
    }
    assert len(content["findings"]) == 3


def test_csv_has_one_row_per_finding():
    comma = Finding("tiny", (Path("a,b.jpg"),), 'a "tiny" one')
    rows = list(csv.DictReader(io.StringIO(encode_findings([TWICE, comma], ".csv").decode())))
    assert rows[0]["paths"].split("\n") == ["a.jpg", "b.jpg"]
    assert rows[1] == {
        "kind": "tiny",
        "severity": "warning",
        "paths": "a,b.jpg",
        "detail": 'a "tiny" one',
    }


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_odd_file_names_can_be_written_and_stay_in_their_line(suffix):
    odd = Finding("tiny", (Path(os.fsdecode(b"\xff\n.jpg")),), "")
    assert "\\udcff" in encode_findings([odd], suffix).decode()
    assert str(odd) == "tiny: \\udcff .jpg"


def test_a_file_without_findings():
    assert encode_findings([], ".csv") == b"kind,severity,paths,detail\n"
    assert json.loads(encode_findings([], ".json"))["findings"] == []
