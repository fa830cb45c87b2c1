"""`ramstrans predict`, from its arguments to its table."""

import csv
import io

from ramstrans.cli import main


def test_predict_from_standard_input(trained, colors, monkeypatch, capsys):
    """Paths come from a pipe; standard output is pure CSV, messages go to standard error."""
    images = sorted((colors / "test").glob("*/*.png"))
    paths = "\n".join([*map(str, images), "missing.jpg"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(paths.encode())))
    assert main(["predict", str(trained.folder), "-", "--top_k", "2", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert [row["path"] for row in rows] == [*map(str, images), "missing.jpg"]
    assert {row["label_1"] for row in rows[:-1]} <= set(trained.prepared.images.class_names)
    assert all(0 < float(row["probability_1"]) <= 1 for row in rows[:-1])
    assert rows[-1]["error"] == "no such file"
    assert rows[-1]["label_1"] == ""
    assert "7 images, 1 of them unreadable" in printed.err


def test_an_existing_output_is_replaced_only_on_request(trained, colors, tmp_path, fails):
    output = tmp_path / "birds.csv"
    output.write_text("old")
    arguments = ["predict", trained.folder, colors / "test", "--output", output, "--device", "cpu"]
    assert "exists" in fails(2, *arguments)
    assert output.read_text() == "old"
    assert main([*map(str, arguments), "--overwrite", "true"]) == 0
    assert len(output.read_text().splitlines()) == 7


def test_options_that_are_not_allowed(trained, colors, fails):
    arguments = ["predict", trained.folder, colors / "test", "--device", "cpu"]
    assert "batch_size" in fails(2, *arguments, "--batch_size", "0")
    assert "--format parquet cannot go to standard output" in fails(2, *arguments, "--format", "parquet")
