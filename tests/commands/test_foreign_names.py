"""Files that are not used, and names that are not UTF-8, in every command that reads a folder."""

import io
import os
import shutil
import sys

import pytest

from ramstrans.cli import main

CAFE = os.fsdecode(b"caf\xe9")


@pytest.fixture(autouse=True)
def log_lines_stay_here(monkeypatch):
    """pytest-xdist cannot send captured log lines that are not UTF-8."""
    monkeypatch.setattr("_pytest.logging.LogCaptureHandler.emit", lambda *_: None)


@pytest.fixture
def folder(colors, tmp_path):
    """`colors` with a class and files whose names are Latin-1, and a film."""
    root = tmp_path / CAFE
    shutil.copytree(colors, root)
    for split in ("train", "test"):
        (root / split / "Azure_tit").rename(root / split / CAFE)
        (root / split / CAFE / "0.png").rename(root / split / CAFE / f"{CAFE}.png")
    (root / "train" / CAFE / "film.MOV").touch()
    return root


@pytest.fixture
def ascii_output_of(monkeypatch):
    """Runs a command whose standard output can hold ASCII only; gives its exit code and bytes."""

    def run(*arguments):
        stream = io.BytesIO()
        output = io.TextIOWrapper(stream, encoding="ascii", write_through=True)
        monkeypatch.setattr(sys, "stdout", output)
        return main(list(map(str, arguments))), stream.getvalue()

    return run


def test_data_check(folder, ascii_output_of, capsys, tmp_path):
    code, output = ascii_output_of("data", "check", folder, "--output", tmp_path / "found.csv")
    assert code == 0
    assert capsys.readouterr().err.count("left out 1 .mov") == 1
    assert b"caf\\udce9" in output
    assert b"caf\\udce9.png" in (tmp_path / "found.csv").read_bytes()


def test_train(folder, capsys, tmp_path):
    recipe = ["--config", "toybirds", "--data.name", "folder", "--data.root", str(folder)]
    assert main(["train", *recipe, "--dry_run", "true", "--output", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err.count("left out 1 .mov") == 1


def test_predict(trained, folder, ascii_output_of, capsys):
    code, output = ascii_output_of("predict", trained.folder, folder / "train", "--device", "cpu")
    assert code == 0
    assert capsys.readouterr().err.count("left out 1 .mov") == 1
    rows = output.splitlines()
    assert len(rows) == 13
    assert sum(b"caf\\udce9/caf\\udce9.png" in row for row in rows) == 1


def test_shards_keep_the_names(folder, tmp_path):
    from ramstrans.data.sharding.manifest import read_shards

    assert main(["data", "shard", str(folder), str(tmp_path / "out")]) == 0
    images = read_shards(tmp_path / "out")
    assert images.class_names == ("Bistre_owl", "Coral_ibis", CAFE)
    assert len(images.records) == 18
