"""The scripts that judge contrasts and added classes, on made-up features and a tiny run."""

import sys

import numpy as np
import pytest

from ramstrans.data.records import Record
from scripts import contrast, few_shot


def test_contrasts_of_a_run_are_judged(trained, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["contrast.py", str(trained.folder), "--images", "4", "--share", "0.3"])
    contrast.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:2] for row in rows] == [
        [scale, name] for scale in "12" for name in ("for", "salient", "random", "against")
    ]
    change = {(scale, name): float(value.split()[0]) for scale, name, value, _ in rows}
    assert change["1", "for"] <= change["1", "against"]


@pytest.mark.parametrize("shots", [1, 5])
def test_added_classes_are_judged(shots, capsys, monkeypatch, tmp_path):
    """Classes far apart: everything that can be right is."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(6, 16))

    def part(labels, shift=0):
        labels = np.repeat(labels, 8)
        features = centres[labels + shift][:, None] + rng.normal(size=(len(labels), 2, 16))
        records = [Record(tmp_path / f"{rng.random()}.jpg", int(label), "train") for label in labels]
        return few_shot.Part(features, labels, tuple(records))

    parts = {name: part(np.arange(4)) for name in ("train", "val", "test")}
    parts |= {name: part(np.arange(2), 4) for name in ("new_train", "new_test")}
    weight, bias = centres[:4], -(centres[:4] ** 2).sum(axis=1) / 2
    monkeypatch.setattr(few_shot, "parts_of", lambda _run: (parts, weight, bias))
    monkeypatch.setattr(sys, "argv", ["few_shot.py", "run", "--shots", str(shots), "--draws", "2"])
    few_shot.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "before: top-1 100.0 % of 32 test images, 4 classes"
    cells = {tuple(line.strip("| ").split(" | ")[:2]): line.split(" | ")[2:] for line in lines[3:]}
    assert set(cells) == {
        (what, name)
        for what in ("one class", "2 classes")
        for name in ("imprinted", "20 nearest", "nearest mean")
    }
    new, old, taken = (float(cell.split()[0]) for cell in cells["one class", "imprinted"])
    assert (old, taken) == (100, 0)
    assert new > 90
