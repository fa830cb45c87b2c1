"""Folders that hold no model that can be used, by every command that takes one."""

import json
import shutil

import pytest


@pytest.fixture
def model_folder(trained, tmp_path):
    """A copy of the trained model's two files."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(trained.folder / name, folder)
    return folder


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_a_truncated_model_is_told(command, model_folder, colors, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    image = [] if command == "evaluate" else [colors / "test" / "Azure_tit" / "0.png"]
    line = fails(1, command, model_folder, *image, "--device", "cpu")
    assert "model.safetensors is truncated" in line
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    assert len(list(model_folder.iterdir())) == 2


def test_a_model_of_a_newer_version_is_told(model_folder, fails):
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    assert "upgrade with pip" in fails(2, "predict", model_folder, "bird.jpg")


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_a_missing_run_is_told(command, tmp_path, fails):
    image = [] if command == "evaluate" else ["bird.jpg"]
    assert "nowhere is no folder" in fails(1, command, tmp_path / "nowhere", *image)
