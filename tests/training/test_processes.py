"""One process, two with copies (DDP), and two with shares (FSDP2) of the model: the same run."""

import dataclasses
import json
import shutil
import sys

import pytest
import torch
import yaml

from ramstrans.cli import main
from ramstrans.models.methods.rams import build_model
from ramstrans.saved.model import load_into, load_metadata, load_state
from tests.training.builders import BACKBONE, TINY
from tests.training.processes import LAUNCH, forked, python


@pytest.fixture(scope="module")
def recipe(birds, tmp_path_factory):
    """No batch, and no split, is divisible by two: 9 training images in batches of 5, 3 of validation."""
    config = {
        "data": {"name": "cub", "root": str(birds), "val_fraction": 0.25},
        "model": {"backbone": BACKBONE, "backbone_options": TINY, "image_size": 24, "zoom_source": "full"},
        "training": {
            **{"epochs": 3, "batch_size": 5, "lr": 0.01, "optimizer": "sgd", "warmup_steps": 2},
            **{"gradient_accumulation_steps": 2, "checkpoint_every": 2},
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


RECIPES = {
    "average": ("ema_decay", 0.9),
    "lora": ("finetune", "lora", "ema_decay", 0.9, "lora_mlp", "true", "optimizer", "adamw", "lr", 0.003),
    "head": ("finetune", "head", "train_norms", "true", "gradient_clip", 0.01),
    "blocks": ("freeze_blocks", 1, "gradient_checkpointing", "true"),
    "bf16": ("precision", "bf16"),
}
"""Options of training, and their values in turn."""


def options_of(recipe):
    names, values = RECIPES[recipe][::2], RECIPES[recipe][1::2]
    return [text for pair in zip(names, values, strict=True) for text in (f"--training.{pair[0]}", pair[1])]


@pytest.fixture(scope="module")
def runs(recipe, tmp_path_factory):
    """Every recipe in one process, and in two that share the model."""
    folder = tmp_path_factory.mktemp("recipes")
    train = ("train", "--config", recipe, "--output")
    shared = ("--training.fsdp", "true")
    wanted = []
    for name in RECIPES:
        wanted.append((1, *train, folder / name, *options_of(name)))
        wanted.append((2, *train, folder / f"{name}-shared", *options_of(name), *shared))
    wanted.append((2, *train, folder / "bf16-copies", *options_of("bf16")))
    forked(*wanted)
    return folder


def assert_same(run, expected, rel=1e-5):
    """The losses of every step, the figures and the weights."""
    found, wanted = ([row["loss_scales"] for row in rows_of(folder, "train")] for folder in (run, expected))
    assert len(found) == len(wanted) == 6
    for losses, wanted_losses in zip(found, wanted, strict=True):
        assert losses == pytest.approx(wanted_losses, rel=rel)
    assert rows_of(run, "validation") == rows_of(expected, "validation")
    weights, wanted_weights = load_state(run), load_state(expected)
    assert weights.keys() == wanted_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, wanted_weights[name], rtol=10 * rel, atol=rel / 10)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (run, expected)]
    for key in ("num_images", "fused", "epoch") if rel < 1e-4 else ("num_images", "epoch"):
        assert reports[0][key] == reports[1][key], key


@pytest.mark.parametrize("name", ["average", "lora", "head", "blocks"])
def test_a_shared_model_is_as_good_as_one(name, runs):
    if name == "lora":
        pytest.importorskip("peft", reason="peft is not installed")
    assert_same(runs / f"{name}-shared", runs / name)


def test_half_precision_is_the_same_with_shares_and_copies(runs):
    """Boxes in half precision would be whole pixels at best."""
    assert_same(runs / "bf16-shared", runs / "bf16-copies", rel=1e-6)
    assert_same(runs / "bf16-shared", runs / "bf16", rel=1e-3)


def test_what_is_written_needs_no_peft(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    folder = runs / "lora-shared"
    model = build_model(dataclasses.replace(load_metadata(folder).model, weights=None))
    load_into(model, load_state(folder))  # every weight, and no other
    assert model.encoder.model.head.weight.isfinite().all()


def cut_back(run, copy, step):
    """A copy of a run as it was when it had been killed after a checkpoint."""
    shutil.copytree(run, copy)
    for later in (copy / "checkpoints").glob("step-*"):
        if int(later.name.removeprefix("step-")) > step:
            shutil.rmtree(later)
    (copy / "report.json").unlink()
    (copy / "model.safetensors").unlink()
    return copy


def test_a_run_with_shares_is_taken_up_again(recipe, tmp_path):
    """With its average: by as many processes to the last bit, by more of them nearly so."""
    options = ("--training.fsdp", "true", "--training.keep_checkpoints", 9, *options_of("average"))
    run = tmp_path / "run"
    forked((2, "train", "--config", recipe, "--output", run, *options))
    same, more = (cut_back(run, tmp_path / name, 2) for name in ("same", "more"))
    said = forked((2, "train", "--resume", same), (3, "train", "--resume", more))
    assert "from the checkpoint of step 2" in said[0]
    assert "3 processes, where 2 began" in said[1]
    weights = load_state(run)
    for name, tensor in load_state(same).items():
        assert torch.equal(tensor, weights[name]), name
    assert_same(more, run)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--training.fsdp", "true")], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("count", [3, 4])
def test_more_processes_than_images_in_a_part(count, options, recipe, runs, tmp_path):
    """Batches of 5 and 4 in two parts: some processes have one image where others have two, or none."""
    command = ("train", "--config", recipe, "--output", tmp_path / "run", *options, *options_of("average"))
    forked((count, *command))
    assert_same(tmp_path / "run", runs / "average")


def test_shares_need_several_processes(recipe, tmp_path, capsys):
    arguments = ["train", "--config", recipe, "--output", tmp_path / "run", "--training.fsdp", "true"]
    assert main(list(map(str, arguments))) == 2
    assert "needs several processes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
