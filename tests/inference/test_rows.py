"""An interrupted `predict --output` keeps its rows, and goes on behind them."""

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from ramstrans.errors import OutputError
from ramstrans.inference.prediction import Prediction
from ramstrans.inference.rows import _csv_rows, partial_files, resumable_file
from ramstrans.inference.writers import FORMATS
from ramstrans.plain import csv_text

PATHS = ["a.jpg", "b,\n.jpg", "c\udce9.jpg", "d\r.jpg", "e.jpg"]
SETTINGS = {"model": "7f", "precision": "fp32"}


def predict(path):
    """What a model would predict; the second image is broken."""
    error = "empty file" if path == PATHS[1] else None
    return Prediction(Path(path), () if error else ("wren",), () if error else (0.75,), (), error)


def write(target, format_name="csv", *, stop_after=99, paths=PATHS, settings=SETTINGS, **options):
    """Predict the paths; a KeyboardInterrupt comes after so many. Returns the number predicted here."""
    num_predicted = 0
    with resumable_file(target, format_name, 2, settings, **options) as rows:
        for path in rows.remaining(paths):
            if num_predicted == stop_after:
                raise KeyboardInterrupt
            rows.write(predict(path))
            num_predicted += 1
        assert rows.num_rows == len(paths)
        assert rows.num_unreadable == 1
    return num_predicted


def interrupt(target, stop_after=2, **options):
    with pytest.raises(KeyboardInterrupt) as caught:
        write(target, stop_after=stop_after, **options)
    return getattr(caught.value, "__notes__", [])


def content(target, format_name):
    return pd.read_parquet(target).to_csv() if format_name == "parquet" else target.read_bytes()


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_same_command_goes_on_and_gives_the_same_file(tmp_path, format_name):
    whole, target = tmp_path / "whole", tmp_path / "new" / "target"
    assert write(whole, format_name) == 5
    partial, _ = partial_files(target)
    assert interrupt(target, format_name=format_name) == [
        f"2 rows kept in {partial}; the same command goes on there"
    ]
    assert not target.exists()
    assert interrupt(target, 1, format_name=format_name)[0].startswith("3 rows kept")
    assert write(target, format_name) == 2
    assert content(target, format_name) == content(whole, format_name)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_row_that_was_cut_off_is_written_again(tmp_path, format_name):
    whole, target = tmp_path / "whole", tmp_path / "target"
    write(whole, format_name)
    interrupt(target, 3, format_name=format_name)
    partial, _ = partial_files(target)
    kept = partial.read_bytes()
    ends = [index + 1 for index in range(len(kept)) if kept[: index + 1].endswith(b"\n")]
    for size in range(len(kept), ends[-2], -3):  # as after kill -9, within the last row
        partial.write_bytes(kept[:size])
        assert write(target, format_name, overwrite=True) in (2, 3)
        assert content(target, format_name) == content(whole, format_name)
        target.unlink()
        interrupt(target, 3, format_name=format_name)


def test_a_row_with_a_large_set_is_read_again(tmp_path):
    """Python's reader of CSV refuses cells of more than 131,072 characters, unless it is told."""
    cells = [["path", "error"], ["a.jpg", "x" * 200_000], ["b.jpg", ""]]
    stream = io.BytesIO("".join(map(csv_text, [[row] for row in cells])).encode())
    assert [path for path, _, _ in _csv_rows(stream, cells[0])] == ["a.jpg", "b.jpg"]


def test_kept_rows_are_those_of_a_table(tmp_path):
    interrupt(tmp_path / "x.csv")
    partial, mark = partial_files(tmp_path / "x.csv")
    with partial.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["error"], row["label_1"]) for row in rows] == [
        ("a.jpg", "", "wren"),
        ("b,\n.jpg", "empty file", ""),
    ]
    assert json.loads(mark.read_text()) == {"format": "csv", "top_k": 2, **SETTINGS}


def test_other_settings_or_a_file_of_somebody_else_are_refused_unless_replaced(tmp_path):
    target = tmp_path / "x.csv"
    interrupt(target)
    partial, mark = partial_files(target)
    before = partial.read_bytes()
    other = SETTINGS | {"model": "e1"}
    with pytest.raises(OutputError, match=r"another command .*\(model differs\); remove it, or --overwrite"):
        write(target, settings=other)
    interrupt(tmp_path / "y.csv", settings=SETTINGS | {"priors": "c4"})
    with pytest.raises(OutputError, match=r"another command .*\(priors differs\)"):
        write(tmp_path / "y.csv")
    mark.unlink()
    with pytest.raises(OutputError, match="format, top_k, model, precision differs"):
        write(target)
    assert partial.read_bytes() == before
    assert write(target, settings=other, overwrite=True) == 5


@pytest.mark.parametrize("paths", [["a.jpg", "x.jpg", *PATHS[2:]], ["x.jpg"]])
def test_images_that_have_changed_are_refused(tmp_path, paths):
    interrupt(tmp_path / "x.csv")
    with pytest.raises(OutputError, match=r"but image \d is now x.jpg: the images have changed"):
        write(tmp_path / "x.csv", paths=paths)
    assert write(tmp_path / "x.csv") == 3


def test_fewer_images_than_rows_are_refused(tmp_path):
    interrupt(tmp_path / "x.csv", 3)
    with pytest.raises(OutputError, match="3 rows, but there are only 2 images now"):
        write(tmp_path / "x.csv", paths=PATHS[:2])


def test_nothing_is_left_if_nothing_was_predicted(tmp_path):
    assert interrupt(tmp_path / "x.csv", 0) == []
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "x.csv"
    target.write_text("old")
    interrupt(target, overwrite=True)
    assert target.read_text() == "old"
    write(target, overwrite=True)
    assert target.read_text().startswith("path,")


def test_a_full_disk_keeps_the_rows_too(tmp_path):
    def fill_the_disk():
        with resumable_file(tmp_path / "x.csv", "csv", 2, SETTINGS) as rows:
            rows.write(predict("a.jpg"))
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left") as caught:
        fill_the_disk()
    assert "1 row kept" in caught.value.__notes__[0]
    assert write(tmp_path / "x.csv") == 4


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "x.csv")
