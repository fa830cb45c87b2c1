"""`train --resume` after the last step: a missing evaluation, more epochs; without the first weights."""

import json
import shutil

import pytest
import yaml
from safetensors.torch import save_file

from ramstrans.cli import main
from ramstrans.errors import OutputError
from ramstrans.evaluation.report import build as reporting
from ramstrans.evaluation.report import write as evaluation
from ramstrans.models.backbones import build_backbone
from ramstrans.models.config import ModelConfig
from ramstrans.saved.model import load_state
from ramstrans.training import loop
from tests.tiny import BACKBONE, TINY, same_state, write_config

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def first_weights(tmp_path):
    """A file of first weights."""
    path = tmp_path / "first.safetensors"
    vit = build_backbone(ModelConfig(backbone=BACKBONE, backbone_options=TINY, image_size=24, num_classes=3))
    save_file(vit.state_dict(), path)
    return path


@pytest.fixture
def recipe(birds, first_weights, tmp_path):
    """Three epochs of three steps, from a file of weights."""
    training = {"epochs": 3, "batch_size": 3, "optimizer": "adamw", "warmup_steps": 1, "lr": 0.008}
    return write_config(
        tmp_path / "recipe.yaml", birds, model={"weights": str(first_weights)}, training=training
    )


def train(recipe, run, *options):
    return main(["train", "--config", str(recipe), "--output", str(run), *options])


def resume(run, *options):
    return main(["train", "--resume", str(run), *options])


def steps_taken(monkeypatch):
    """Call a run, and this lists the steps that it takes."""
    taken, step = [], loop.TrainLoop.save_if_due

    def noted(self, *args, **options):
        taken.append(self.state.step)
        return step(self, *args, **options)

    monkeypatch.setattr(loop.TrainLoop, "save_if_due", noted)
    return taken


def full_disk(*_args, **_options):
    raise OutputError("report cannot be written (No space left on device)")


@pytest.mark.parametrize(
    "what_is_left",
    [
        "all",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("no checkpoints", "no model", "half a report")
        ),
    ],
)
def test_a_run_whose_evaluation_failed_is_finished(what_is_left, recipe, tmp_path, monkeypatch, capsys):
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert train(recipe, whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "write_report", full_disk)
        assert train(recipe, run) == 2
    assert not (run / "report.json").exists()
    if what_is_left == "no checkpoints":
        shutil.rmtree(run / "checkpoints")
    elif what_is_left == "no model":
        (run / "model.safetensors").unlink()
    elif what_is_left == "half a report":
        (run / "report.json").write_text('{"config": ')
    taken = steps_taken(monkeypatch)
    assert resume(run) == 0, capsys.readouterr().err
    assert taken == []
    assert same_state(load_state(run), load_state(whole))
    reports = [json.loads((folder / "report.json").read_text()) for folder in (run, whole)]
    for key in ("fused", "scales", "epoch", "steps", "chosen_on"):
        assert reports[0][key] == reports[1][key]
    assert resume(run) == 2
    assert "has finished" in capsys.readouterr().err


def test_the_report_is_written_last(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "utf8_text", full_disk)
    with pytest.raises(OutputError):
        reporting.write_report(tmp_path, {}, "page", "page")
    assert list(tmp_path.iterdir()) == []


def test_more_epochs_after_the_last_one(recipe, tmp_path, monkeypatch, capsys):
    """Of 9 steps the cosine is at 0 after the last; of 18, with one of warm-up, it has passed 8/17 there."""
    run = tmp_path / "run"
    assert train(recipe, run) == 0
    capsys.readouterr()
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "write_report", full_disk)
        assert resume(run, "--training.epochs", "6") == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "instead of" in line]
    rate = 0.004 * (1 + 0.09226835946330202)  # cos(pi 8 / 17)
    assert told == [
        "18 steps instead of 9: the learning rate falls along one cosine over all of them; at step 9 it goes "
        f"on with {rate:.3g}, where it was 0"
    ]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = {row["step"]: row["lr"] for row in rows if row["kind"] == "train"}
    assert list(steps)[-9:] == list(range(10, 19))
    assert steps[10] == pytest.approx(rate)
    assert [row["epoch"] for row in rows if row["kind"] == "validation"] == [1, 2, 3, 4, 5, 6]
    assert yaml.safe_load((run / "run.yaml").read_text())["training"]["epochs"] == 6
    assert resume(run) == 0  # what is left is the evaluation, without another word about epochs
    assert json.loads((run / "report.json").read_text())["steps"] == 18


def test_a_run_that_was_always_longer_has_the_same_rates(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)

    def rates(run):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {row["step"]: row["lr"] for row in rows if row["kind"] == "train" and row["step"] > 9}

    assert train(recipe, tmp_path / "longer", "--training.epochs", "4") == 0
    assert train(recipe, tmp_path / "run") == 0
    assert resume(tmp_path / "run", "--training.epochs", "4") == 0
    assert rates(tmp_path / "run") == rates(tmp_path / "longer")


def test_nothing_but_the_folder_and_the_data_is_needed(recipe, first_weights, tmp_path, monkeypatch):
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert train(recipe, whole) == 0
    save, saved = loop.TrainLoop.save, []

    def stop_after(self):
        save(self)
        saved.append(self.state.step)
        self.signals.received = 15

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainLoop, "save", stop_after)
        assert train(recipe, run) == 143
    first_weights.unlink()
    assert resume(run) == 0
    assert saved[-1] < 9
    assert same_state(load_state(run), load_state(whole))


def test_without_a_checkpoint_the_first_weights_are_needed(recipe, first_weights, tmp_path, fails, capsys):
    run = tmp_path / "run"
    assert train(recipe, run, "--training.checkpoint_every", "0") == 0
    for name in ("report.json", "model.safetensors"):
        (run / name).unlink()
    first_weights.unlink()
    capsys.readouterr()
    line = fails(1, "train", "--resume", run)
    assert "has no checkpoint yet" in line
    assert line.endswith("start another run")
