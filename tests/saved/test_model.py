import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import ramstrans
from ramstrans.errors import ConfigError, OutputError, UsageError, WeightsError
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.saved.model import (
    load_into,
    load_metadata,
    load_model,
    load_state,
    save_metadata,
    save_model,
)
from tests.inference.builders import make_folder
from tests.saved.test_metadata import METADATA

STATE = {"a.weight": torch.randn(3, 5), "b": torch.arange(7)}


def test_folder_comes_back(tmp_path):
    folder = tmp_path / "runs" / "one"
    save_model(folder, STATE, METADATA)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert load_metadata(folder).class_names == METADATA.class_names
    state = load_state(folder)
    assert set(state) == set(STATE)
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)
    text = (folder / "config.json").read_text(encoding="utf-8")
    assert "secret" not in text
    assert "Mönchsgrasmücke" in text


def test_views_and_shared_tensors_are_saved(tmp_path):
    whole = torch.randn(4, 3)
    save_model(tmp_path, {"a": whole.T, "b": whole[1:], "c": whole[:1].expand(5, 3)}, METADATA)
    state = load_state(tmp_path)
    assert torch.equal(state["a"], whole.T)
    assert torch.equal(state["c"], whole[:1].expand(5, 3))


def test_an_undecodable_class_name_comes_back(tmp_path):
    name = os.fsdecode(b"cr\xffow")
    save_model(tmp_path, STATE, dataclasses.replace(METADATA, class_names=("a", name)))
    assert load_metadata(tmp_path).class_names == ("a", name)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{"])
def test_damaged_metadata_name_their_file(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_metadata(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_model_is_loaded_ready_for_inference(tmp_path):
    model, metadata = load_model(make_folder(tmp_path), torch.device("cpu"))
    assert not model.training
    assert isinstance(metadata, ModelMetadata)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in load_state(tmp_path).items())
    with pytest.raises(UsageError, match="toaster"):
        load_model(tmp_path, "toaster")


def test_the_number_of_classes_is_filled_in(tmp_path):
    metadata = load_metadata(make_folder(tmp_path))
    unknown = dataclasses.replace(metadata, model=dataclasses.replace(metadata.model, num_classes=None))
    save_metadata(tmp_path, unknown)
    assert '"num_classes": null' in (tmp_path / "config.json").read_text()
    model, loaded = load_model(tmp_path, "cpu")
    assert loaded == metadata
    assert model(torch.zeros(1, 3, 48, 32)).fused.shape == (1, 7)


@pytest.mark.slow
def test_reading_metadata_does_not_import_timm(tmp_path):
    save_metadata(tmp_path, METADATA)
    code = (
        "import sys; from pathlib import Path; from ramstrans.saved.model import load_metadata; "
        "load_metadata(Path(sys.argv[1])); assert 'timm' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(ramstrans.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)


@pytest.mark.parametrize("load", [load_metadata, load_state, load_model])
def test_missing_folder_and_missing_file(tmp_path, load):
    with pytest.raises(WeightsError, match="nowhere is not a folder; give the run folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"has no (config.json|model.safetensors); a saved model has"):
        load(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(
        WeightsError, match=r"is a run that has not ended; go on with `ramstrans train --resume"
    ):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_weights_are_to_be_copied_again(tmp_path, keep):
    save_model(tmp_path, STATE, METADATA)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="copy it again"):
        load_state(tmp_path)


def test_foreign_weights_are_to_be_copied_again(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"<html>not found</html>" * 99)
    with pytest.raises(WeightsError, match="copy it again"):
        load_state(tmp_path)


def test_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    save_model(tmp_path, STATE, METADATA)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left"):
        save_model(tmp_path, {"a": torch.zeros(2)}, METADATA)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folder_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "run").touch()
    for folder in (tmp_path / "run", tmp_path / "run" / "inner"):
        with pytest.raises(OutputError, match="cannot be written"):
            save_model(folder, STATE, METADATA)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(3, 5)}, r"bias \(3,\) is missing"),
        (
            {"weight": torch.zeros(2, 5), "bias": torch.zeros(3)},
            r"weight is \(2, 5\), not the \(3, 5\) of the model",
        ),
        (
            {"weight": torch.zeros(3, 5), "bias": torch.zeros(3), "x": torch.zeros(1)},
            r"x \(1,\) is not in the model",
        ),
    ],
)
def test_load_into_names_what_does_not_fit(state, message):
    with pytest.raises(WeightsError, match=message):
        load_into(nn.Linear(5, 3), state)
