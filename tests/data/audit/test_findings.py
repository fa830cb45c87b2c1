import csv
import io
import json
import os
from pathlib import Path

import pytest

from ramstrans.data.audit.findings import (
    KINDS,
    Finding,
    check_suffix,
    encode_findings,
    examples,
    has_errors,
    sort_findings,
)
from ramstrans.errors import UsageError

TINY = Finding("tiny", (Path("a.jpg"),), "13 x 11 pixels")
TWICE = Finding("duplicate across splits", (Path("a.jpg"), Path("b.jpg")), "train 'wren'", ("3", "7"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_in_one_line(kind):
    finding = Finding(kind, (), "so it is")
    assert str(finding) == f"{kind}: so it is"
    assert finding.severity in ("spoils", "note")
    assert has_errors([finding]) == (finding.severity == "spoils")


def test_kinds_that_spoil_come_first():
    severities = list(KINDS.values())
    assert severities == sorted(severities, reverse=True)
    findings = [Finding(kind, (), str(number)) for number in range(2) for kind in reversed(KINDS)]
    ordered = sort_findings(findings)
    assert [finding.kind for finding in ordered] == [kind for kind in KINDS for _ in range(2)]
    assert [finding.detail for finding in ordered[:4]] == ["0", "1", "0", "1"]


def test_a_line_names_paths_and_ids():
    assert str(TINY) == "tiny: a.jpg: 13 x 11 pixels"
    assert str(TWICE) == "duplicate across splits: a.jpg (image 3), b.jpg (image 7): train 'wren'"
    partly = TWICE._replace(ids=("", "7"))
    assert "a.jpg, b.jpg (image 7):" in str(partly)


def test_of_many_paths_the_first_few_are_named():
    many = Finding("duplicate", tuple(Path(f"{i}.jpg") for i in range(13)), "")
    assert str(many) == "duplicate: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, and 8 more"


def test_examples_prefer_ids():
    assert examples([TINY, TWICE]) == "a.jpg, 3 = 7"


@pytest.mark.parametrize("suffix", [".json", ".JSON"])
def test_json_holds_all_and_counts(suffix):
    content = json.loads(encode_findings([TWICE, TINY, TINY], suffix))
    assert content["counts"] == dict.fromkeys(KINDS, 0) | {"duplicate across splits": 1, "tiny": 2}
    assert content["findings"][0] == {
        "kind": "duplicate across splits",
        "severity": "spoils",
        "ids": ["3", "7"],
        "paths": ["a.jpg", "b.jpg"],
        "detail": "train 'wren'",
    }
    assert len(content["findings"]) == 3


def test_csv_has_a_row_each():
    comma = Finding("tiny", (Path("a,b.jpg"),), 'a "tiny" one')
    rows = list(csv.DictReader(io.StringIO(encode_findings([TWICE, comma], ".csv").decode())))
    assert rows[0]["paths"].split("\n") == ["a.jpg", "b.jpg"]
    assert rows[0]["ids"].split("\n") == ["3", "7"]
    assert rows[1] == {
        "kind": "tiny",
        "severity": "note",
        "ids": "",
        "paths": "a,b.jpg",
        "detail": 'a "tiny" one',
    }


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_odd_file_names_can_be_written_and_stay_in_their_line(suffix):
    odd = Finding("tiny", (Path(os.fsdecode(b"\xff\n.jpg")),), "")
    assert "\\udcff" in encode_findings([odd], suffix).decode()
    assert str(odd) == "tiny: \\udcff .jpg"


def test_no_findings_are_a_file_too():
    assert encode_findings([], ".csv") == b"kind,severity,ids,paths,detail\n"
    assert json.loads(encode_findings([], ".json"))["findings"] == []


def test_an_unknown_suffix():
    check_suffix(Path("found.CSV"))
    with pytest.raises(UsageError, match=r"--output found.txt has no known suffix \(\.json, \.csv\)"):
        check_suffix(Path("found.txt"))
