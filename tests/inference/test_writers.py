import csv
import io
import json
import math
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from ramstrans.calibration.taxonomy import RankAnswer
from ramstrans.errors import UsageError
from ramstrans.inference import writers as module
from ramstrans.inference.prediction import Prediction, PriorsEffect, ScalePrediction
from ramstrans.inference.rows import RowWriter, resumable_file
from ramstrans.inference.writers import FORMATS, PRIORS_COLUMNS, RANK_COLUMNS, choose_format, column_names

LABELS = ("Owl, barn", 'The "Rook"', "Müller's\nWren")
GOOD = Prediction(
    Path("some folder/ä, b.jpg"),
    LABELS,
    (0.7, 0.2, 0.0999999999),
    (
        ScalePrediction(LABELS, (0.6, 0.3, 0.1), (1.25, 2.0, 30.123456, 40.0), True),
        ScalePrediction(LABELS[::-1], (0.8, 0.1, 0.1), (2.5, 3.0, 17.0, 19.0), False),
    ),
)
BAD = Prediction(Path("b\udce9d.jpg"), error="no such file")
PREDICTIONS = [GOOD, BAD, GOOD._replace(path=None), BAD, GOOD]


def write(target, format_name=None, predictions=PREDICTIONS, num_labels=5):
    with resumable_file(target, choose_format(target, format_name), num_labels, {}) as rows:
        for prediction in predictions:
            rows.write(prediction)
    return target


def test_the_path_of_a_url_is_as_it_was_given_and_rows_of_it_are_kept(tmp_path):
    url = "https://birds.org/wren.jpg"
    line = write(tmp_path / "x.csv", predictions=[BAD._replace(path=Path(url))]).read_text().splitlines()[1]
    assert line.startswith(f"{url},no such file,")
    rows = RowWriter(io.StringIO(), "csv", 5, kept=(url,))
    assert list(rows.remaining([url, "a.jpg"])) == ["a.jpg"]


def test_csv(tmp_path):
    with write(tmp_path / "new" / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "path",
        "error",
        *(f"label_{rank}" for rank in (1, 2, 3, 4, 5)),
        *(f"probability_{rank}" for rank in (1, 2, 3, 4, 5)),
        "region_x0",
        "region_y0",
        "region_x1",
        "region_y1",
        "has_region",
        "unknown",
        "unknown_score",
        "set",
        "answer",
        "answer_rank",
        "answer_probability",
        "priors",
        "label_before",
        "probability_before",
        "changed",
    ]
    assert len(rows) == 5
    good, bad, nameless = rows[:3]
    assert good["path"] == "some folder/ä, b.jpg"
    assert good["error"] == good["label_4"] == good["probability_5"] == nameless["path"] == ""
    assert tuple(good[f"label_{rank}"] for rank in (1, 2, 3)) == LABELS
    assert [float(good[f"probability_{rank}"]) for rank in (1, 2, 3)] == [0.7, 0.2, 0.1]
    region = [*(good[f"region_{side}"] for side in ("x0", "y0", "x1", "y1")), good["has_region"]]
    assert region == ["1.25", "2.0", "30.12", "40.0", "True"]
    assert bad.pop("path") == r"b\udce9d.jpg"
    assert bad.pop("error") == "no such file"
    assert set(bad.values()) == {""}


def test_json_lines_hold_every_scale(tmp_path):
    lines = write(tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()
    good, bad, nameless, *_ = map(json.loads, lines)
    assert len(lines) == 5
    assert nameless["path"] is None
    assert good == {
        "path": "some folder/ä, b.jpg",
        "error": None,
        "labels": list(LABELS),
        "probabilities": [0.7, 0.2, 0.1],
        "unknown": None,
        "unknown_score": None,
        "set": None,
        "answer": None,
        "priors": None,
        "scales": [
            {
                "labels": list(LABELS),
                "probabilities": [0.6, 0.3, 0.1],
                "box": [1.25, 2, 30.12, 40],
                "has_region": True,
            },
            {
                "labels": list(LABELS[::-1]),
                "probabilities": [0.8, 0.1, 0.1],
                "box": [2.5, 3, 17, 19],
                "has_region": False,
            },
        ],
    }
    assert bad["error"] == "no such file"
    assert bad["labels"] == bad["probabilities"] == bad["scales"] == []


def test_parquet_in_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_IN_GROUP", 2)
    path = write(tmp_path / "x.parquet")
    assert pq.ParquetFile(path).num_row_groups == 3
    table = pd.read_parquet(path)
    assert list(table.columns) == column_names(5)
    assert table["path"].isna().tolist() == [False, False, True, False, False]
    assert table["error"].tolist()[1] == "no such file"
    assert table["label_3"].tolist()[0] == LABELS[2]
    assert table["label_4"].isna().all()
    assert table["probability_1"].tolist()[0] == 0.7
    assert table["region_x1"].tolist()[4] == 30.12
    assert table["has_region"].tolist()[0] is True


def test_formats_agree(tmp_path):
    tables = [pd.read_csv(write(tmp_path / "x.csv")), pd.read_parquet(write(tmp_path / "x.parquet"))]
    for column in column_names(5):
        left, right = (table[column].tolist() for table in tables)
        for a, b in zip(left, right, strict=True):
            assert a == b or (pd.isna(a) and pd.isna(b)), column


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_to_write_is_still_a_whole_file(tmp_path, name):
    path = write(tmp_path / "x", name, [], 2)
    if name == "parquet":
        assert pq.read_table(path).num_rows == 0
    else:
        assert path.read_text() == (",".join(column_names(2)) + "\n" if name == "csv" else "")


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_standard_output_stays_open(capsys, tmp_path, name):
    rows = RowWriter(sys.stdout, name, 5)
    for prediction in PREDICTIONS:
        rows.write(prediction)
    sys.stdout.write("still here\n")
    printed = capsys.readouterr().out
    assert printed == write(tmp_path / "x", name).read_text(encoding="utf-8") + "still here\n"


def test_infinite_numbers_are_null(tmp_path):
    odd = GOOD._replace(probabilities=(math.nan, math.inf, 0.1))
    assert json.loads(write(tmp_path / "x.jsonl", predictions=[odd]).read_text())["probabilities"] == [
        None,
        None,
        0.1,
    ]
    assert pd.read_csv(write(tmp_path / "x.csv", predictions=[odd]))["probability_1"].isna().all()


def test_format_is_chosen_by_name_then_suffix():
    assert choose_format(Path("a.PQ"), None) == "parquet"
    assert choose_format(Path("a.csv"), "jsonl") == "jsonl"
    assert choose_format(Path("a"), "csv") == "csv"
    for arguments in ((Path("a.xlsx"), None), (Path("a"), None), (None, "parquet"), (Path("a.csv"), "xml")):
        with pytest.raises(UsageError, match=r"--(format|output)"):
            choose_format(*arguments)


def test_a_stream_that_is_not_utf_8_gets_json_in_ascii():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1", write_through=True)
    rows = RowWriter(stream, "jsonl", 5)
    rows.write(GOOD._replace(path=Path("鳥.jpg")))
    assert raw.getvalue().isascii()
    assert json.loads(raw.getvalue())["path"] == "鳥.jpg"


def test_answers_at_ranks_and_priors_have_columns_of_their_own(tmp_path):
    certain = GOOD._replace(
        answer=RankAnswer("family", "Wrens", 0.9123456789),
        priors=PriorsEffect("month 5", LABELS[1], 0.6, changed=True),
    )
    lost = GOOD._replace(
        answer=RankAnswer("root", None, 1.0), priors=PriorsEffect(None, LABELS[0], 0.7, changed=False)
    )
    lines = write(tmp_path / "x.jsonl", predictions=[certain, lost]).read_text(encoding="utf-8").splitlines()
    first, second = map(json.loads, lines)
    assert first["answer"] == {"name": "Wrens", "rank": "family", "probability": 0.912346}
    assert first["priors"] == {
        "matched": "month 5",
        "label_before": LABELS[1],
        "probability_before": 0.6,
        "changed": True,
    }
    assert second["answer"] == {"name": None, "rank": "root", "probability": 1.0}
    assert second["priors"]["matched"] is None
    for name in ("x.csv", "x.parquet"):
        path = write(tmp_path / name, predictions=[certain, lost, GOOD])
        rows = (pd.read_csv(path) if name == "x.csv" else pd.read_parquet(path)).to_dict("records")
        columns = [*RANK_COLUMNS, *PRIORS_COLUMNS]
        assert [rows[0][column] for column in columns] == [
            *("Wrens", "family", 0.912346),
            *("month 5", LABELS[1], 0.6, True),
        ]
        assert [rows[1][column] for column in columns[1:3]] == ["root", 1.0]
        assert pd.isna(rows[1]["answer"])
        assert pd.isna(rows[1]["priors"])
        assert all(pd.isna(rows[2][column]) for column in columns)


def test_what_a_calibration_says_has_columns_of_its_own(tmp_path):
    sure = GOOD._replace(unknown=False, unknown_score=0.1234567, prediction_set=LABELS[:2])
    values = json.loads(write(tmp_path / "x.jsonl", predictions=[sure]).read_text(encoding="utf-8"))
    assert (values["unknown"], values["unknown_score"], values["set"]) == (False, 0.123457, list(LABELS[:2]))
    for name in ("x.csv", "x.parquet"):
        path = write(tmp_path / name, predictions=[sure, BAD])
        row, bad = (pd.read_csv(path) if name == "x.csv" else pd.read_parquet(path)).to_dict("records")
        assert (bool(row["unknown"]), row["unknown_score"], row["set"]) == (
            False,
            0.123457,
            ";".join(LABELS[:2]),
        )
        assert all(pd.isna(bad[column]) for column in ("unknown", "unknown_score", "set"))
