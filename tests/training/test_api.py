"""`ramstrans.train`: a run in one call."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ramstrans
from ramstrans.errors import OutputError, UsageError
from tests.tiny import same_state, tiny_run


def test_a_run_in_one_call(birds, tmp_path, no_pictures):
    config = tiny_run(birds, training={"max_steps": 2}, output=tmp_path / "run")
    assert isinstance(config, ramstrans.RunConfig)
    seen = []
    trained = ramstrans.train(config, progress=lambda *step: seen.append(step))
    assert trained.folder == tmp_path / "run"
    assert trained.report == json.loads((tmp_path / "run" / "report.json").read_text())
    assert seen
    predictor = ramstrans.Predictor.load(trained.folder, "cpu")
    assert len(predictor.class_names) == 3
    with pytest.raises(OutputError, match="run exists"):
        ramstrans.train(config)
    again = ramstrans.train(tiny_run(birds, training={"max_steps": 2}, output=tmp_path / "again"))
    models = [ramstrans.load_model(folder).model.state_dict() for folder in (trained.folder, again.folder)]
    assert same_state(*models)


def test_folds_are_a_cross_validation(colors, tmp_path, no_pictures):
    data = {"folds": 2, "val_fraction": 0.25}
    config = tiny_run(
        colors / "train", "folder", data=data, training={"max_steps": 1}, output=tmp_path / "cv"
    )
    trained = ramstrans.train(config)
    assert trained.folder == tmp_path / "cv"
    assert [row["fold"] for row in trained.report["folds"]] == [1, 2]
    assert trained.report["num_images"] == 12


def test_going_on_needs_a_folder(birds):
    with pytest.raises(UsageError, match=r"resumes needs config\.output"):
        ramstrans.train(tiny_run(birds), resumes=True)


def test_without_an_output_the_run_gets_a_folder_of_its_own(birds, tmp_path, monkeypatch, no_pictures):
    monkeypatch.chdir(tmp_path)
    trained = ramstrans.train(tiny_run(birds, training={"max_steps": 1}))
    assert trained.folder.parent == Path("runs")
    assert (trained.folder / "model.safetensors").is_file()


def test_configs_are_public_without_importing_torch():
    code = "import sys, ramstrans; ramstrans.RunConfig; ramstrans.DataConfig; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
