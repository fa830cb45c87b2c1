"""One process, two with copies (DDP), and two with shares (FSDP2) of the model: the same run."""

import json

import pytest
import torch
import yaml

from ramstrans.cli import main
from ramstrans.model.folder import load_state
from tests.training.builders import BACKBONE, TINY
from tests.training.processes import LAUNCH, python


@pytest.fixture(scope="module")
def recipe(birds, tmp_path_factory):
    """No batch, and no split, is divisible by two: 9 training images in batches of 5, 3 of validation."""
    config = {
        "data": {"name": "cub", "root": str(birds), "val_fraction": 0.25},
        "model": {"backbone": BACKBONE, "backbone_options": TINY, "image_size": 24, "zoom_source": "full"},
        "training": {
            **{"epochs": 3, "batch_size": 5, "lr": 0.01, "optimizer": "sgd", "warmup_steps": 2},
            **{"accumulation": 2, "checkpoint_every": 2},
        },
        "device": "cpu",
    }
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "alone"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ramstrans.training.loop.LOG_EVERY", 2)
        assert main(["train", "--config", str(recipe), "--output", str(run)]) == 0
    return run


def rows_of(run, kind):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


@pytest.mark.parametrize("options", [(), ("--training.fsdp", "true")], ids=["ddp", "fsdp"])
def test_two_processes_are_as_good_as_one(options, recipe, alone, tmp_path):
    run = tmp_path / "run"
    done = python(*LAUNCH, "train", "--config", recipe, "--output", run, *options)
    assert done.returncode == 0, done.stderr
    [last] = rows_of(run, "train")
    expected = rows_of(alone, "train")[-1]
    assert last["step"] == expected["step"] == 6
    assert last["loss_scales"] == pytest.approx(expected["loss_scales"], rel=1e-5)
    assert rows_of(run, "validation") == rows_of(alone, "validation")
    weights, expected_weights = load_state(run), load_state(alone)
    assert weights.keys() == expected_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected_weights[name], rtol=1e-4, atol=1e-6)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (run, alone)]
    for key in ("num_images", "scales", "fused", "classes", "chosen_on", "epoch", "steps"):
        assert reports[0][key] == reports[1][key], key
    assert done.stderr.count("9 train, 3 val, 6 test images") == 1  # one process speaks
    assert done.stdout.count("6 images of the test split") == 1


def test_a_run_with_shares_is_taken_up_again(recipe, alone, tmp_path):
    import shutil

    run, options = tmp_path / "run", ("--training.fsdp", "true", "--training.keep_checkpoints", "9")
    assert python(*LAUNCH, "train", "--config", recipe, "--output", run, *options).returncode == 0
    weights = load_state(run)
    for step in (4, 6):  # as if it had been killed in its last epoch
        shutil.rmtree(run / "checkpoints" / f"step-{step:08}")
    (run / "report.json").unlink()
    (run / "model.safetensors").unlink()
    done = python(*LAUNCH, "train", "--resume", run)
    assert done.returncode == 0, done.stderr
    assert "from the checkpoint of step 2" in done.stderr
    for name, tensor in load_state(run).items():
        assert torch.equal(tensor, weights[name]), name


def test_shares_need_several_processes(recipe, tmp_path, capsys):
    arguments = ["train", "--config", recipe, "--output", tmp_path / "run", "--training.fsdp", "true"]
    assert main(list(map(str, arguments))) == 2
    assert "needs several processes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
