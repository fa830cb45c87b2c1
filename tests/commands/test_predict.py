"""`ramstrans predict`, from its arguments to its table."""

import csv
import io
import os
import signal

import pytest

from ramstrans.cli import main
from ramstrans.inference.predictor import Predictor


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


def read_rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_what_does_not_exist_is_a_row_and_exit_code_3(trained, colors, capsys):
    image = str(colors / "test" / "Azure_tit" / "0.png")
    names = ["nix.jpg", "typo/*.jpg", "https://birds.org/a.jpg"]
    for name in names:
        assert main(["predict", str(trained.folder), image, name, "--device", "cpu"]) == 3
        printed = capsys.readouterr()
        first, second = read_rows(printed.out)
        assert (first["error"], second["label_1"]) == ("", "")
        assert second["error"]
        line = printed.err.splitlines()[-1]
        assert line == f"ramstrans: {name}: {second['error']}; 1 image was read all the same"


def test_nothing_that_can_be_read_is_exit_code_3(trained, tmp_path, capsys):
    (tmp_path / "empty.jpg").touch()
    line = ["predict", str(trained.folder), str(tmp_path), "--device", "cpu", "--output"]
    assert main([*line, str(tmp_path / "x.csv")]) == 3
    assert read_rows((tmp_path / "x.csv").read_text())[0]["error"] == "empty file"
    assert "nothing could be read of 1 image" in capsys.readouterr().err


def test_a_pattern_that_the_shell_left_alone(trained, colors, capsys):
    pattern = str(colors / "test" / "*" / "0.png")
    assert main(["predict", str(trained.folder), pattern, "--device", "cpu"]) == 0
    assert len(read_rows(capsys.readouterr().out)) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_command_says_what_is_kept_and_goes_on(
    trained, colors, tmp_path, capsys, monkeypatch, number, code
):
    images = [str(path) for path in sorted((colors / "test").glob("*/*.png"))]
    line = ["predict", str(trained.folder), *images, "--batch_size", "2", "--device", "cpu", "--output"]
    assert main([*line, str(tmp_path / "whole.csv")]) == 0
    predict, calls = Predictor._predict, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return predict(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "_predict", stopped)
        assert main([*line, str(tmp_path / "x.csv")]) == code
    kept = tmp_path / "x.csv.partial"
    assert capsys.readouterr().err.endswith(f"; 4 rows kept in {kept}; the same command goes on there\n")
    assert len(read_rows(kept.read_text())) == 4
    assert main([*line, str(tmp_path / "x.csv")]) == 0
    assert f"going on after the 4 rows of {kept}" in capsys.readouterr().err
    assert (tmp_path / "x.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not kept.exists()


def test_names_that_are_not_utf_8_and_a_terminal_that_is_not(trained, colors, tmp_path, monkeypatch):
    name = os.fsencode(tmp_path) + b"/b\xe9d_\xe9\xb3\xa5.png"
    with open(name, "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write((colors / "test" / "Azure_tit" / "0.png").read_bytes())
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding="ascii", write_through=True))
    assert main(["predict", str(trained.folder), str(tmp_path), "--device", "cpu"]) == 0
    assert r"b\udce9d_\u9ce5.png" in printed.getvalue().decode()
