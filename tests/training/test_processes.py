"""One process, two with copies (DDP), and two with shards (FSDP2) of the model: the same run."""

import dataclasses
import json
import shutil
import sys

import pytest
import torch

from ramstrans.cli import main
from ramstrans.models.methods.build import build_model
from ramstrans.saved.model import load_into, load_metadata, load_state
from tests.processes import log_every_step, python, run_ranks
from tests.tiny import write_config

FSDP = ("--training.fsdp", "true")
RECIPES = {
    "plain": (),
    "ema": ("ema_decay", 0.9),
    "lora": ("finetune", "lora", "ema_decay", 0.9, "lora_mlp", "true", "optimizer", "adamw", "lr", 0.003),
    "head": ("finetune", "head", "train_norms", "true", "gradient_clip", 0.01),
    "blocks": ("freeze_blocks", 1, "gradient_checkpointing", "true"),
    "bf16": ("precision", "bf16"),
    "fused": ("fused_target", 0.5),
}
"""Options of training, and their values in turn."""


@pytest.fixture(scope="module")
def recipe(birds, tmp_path_factory):
    """No batch, and no split, is divisible by two: 9 training images in batches of 5, 3 of validation."""
    training = {
        **{"epochs": 3, "batch_size": 5, "lr": 0.01, "optimizer": "sgd", "warmup_steps": 2},
        **{"gradient_accumulation_steps": 2, "checkpoint_every": 2, "keep_checkpoints": 9},
    }
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    return write_config(path, birds, model={"zoom_source": "full"}, training=training)


@pytest.fixture(scope="module")
def trained_by(recipe, tmp_path_factory):
    """Trains a recipe with some processes, once for the module; returns the run folder."""
    root, runs = tmp_path_factory.mktemp("runs"), {}

    def trained_by(count, name, *options):
        key = (count, name, *options)
        if key not in runs:
            runs[key] = root / str(len(runs))
            arguments = ("--config", recipe, "--output", runs[key], *options_of(name), *options)
            run_ranks(count, "train", *arguments, prepare=log_every_step)
        return runs[key]

    return trained_by


def options_of(recipe):
    names, values = RECIPES[recipe][::2], RECIPES[recipe][1::2]
    return [text for pair in zip(names, values, strict=True) for text in (f"--training.{pair[0]}", pair[1])]


def rows_of(run, kind):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def assert_same(run, expected, rel=1e-5):
    """The losses of every step that was logged, the figures and the weights."""
    found, wanted = ({row["step"]: row for row in rows_of(folder, "train")} for folder in (run, expected))
    assert max(found) == max(wanted) == 6
    for step, row in found.items():
        assert row["loss_scales"] == pytest.approx(wanted[step]["loss_scales"], rel=rel)
    for row, wanted_row in zip(rows_of(run, "validation"), rows_of(expected, "validation"), strict=True):
        assert row.keys() == wanted_row.keys()
        for key, value in row.items():
            assert value == (pytest.approx(wanted_row[key], rel=rel) if "loss" in key else wanted_row[key])
    weights, wanted_weights = load_state(run), load_state(expected)
    assert weights.keys() == wanted_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, wanted_weights[name], rtol=10 * rel, atol=rel / 10)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (run, expected)]
    exact = ("num_images", "chosen_on", "epoch", "steps")
    for key in (*exact, "scales", "fused", "classes") if rel < 1e-4 else exact:
        assert without_ece(reports[0][key]) == without_ece(reports[1][key]), key
    if rel < 1e-4:
        ece, wanted_ece = (report["fused"]["ece"] for report in reports)
        assert ece == pytest.approx(wanted_ece, abs=1e-3)  # it follows the last bits of probabilities


def without_ece(values):
    """The same without the one figure that is not made of counts."""
    if isinstance(values, dict):
        return {key: value for key, value in values.items() if key != "ece"}
    return values


@pytest.mark.slow
def test_torchrun_trains_the_same_model_and_one_process_reports(recipe, trained_by, tmp_path):
    """Workers are spawned where processes communicate, so that each imports everything again."""
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, "-m", "ramstrans")
    options = ("--config", recipe, "--output", tmp_path / "run", "--data.num_workers", 1)
    done = python(*launch, "train", *options)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", trained_by(1, "plain"))
    assert done.stderr.count("9 train, 3 val, 6 test images") == 1
    assert done.stdout.count("6 images of the test split") == 1


@pytest.mark.slow
def test_two_shards_train_the_same_model_and_one_process_reports(recipe, trained_by, tmp_path):
    done = run_ranks(2, "train", "--config", recipe, "--output", tmp_path / "run", *FSDP)
    assert_same(tmp_path / "run", trained_by(1, "plain"))
    assert done.stderr.count("9 train, 3 val, 6 test images") == 1
    assert done.stdout.count("6 images of the test split") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ema", "lora", "head", "blocks"])
def test_two_shards_train_the_same_model_by_every_recipe(name, trained_by):
    if name == "lora":
        pytest.importorskip("peft", reason="peft is not installed")
    assert_same(trained_by(2, name, *FSDP), trained_by(1, name))


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), FSDP], ids=["ddp", "fsdp"])
def test_a_pass_for_the_fused_answer_goes_before_in_every_process(options, trained_by):
    assert_same(trained_by(2, "fused", *options), trained_by(1, "fused"))


@pytest.mark.slow
def test_half_precision_is_the_same_with_shards_and_copies(trained_by):
    """Boxes in half precision would be whole pixels at best."""
    sharded = trained_by(2, "bf16", *FSDP)
    assert_same(sharded, trained_by(2, "bf16"), rel=1e-6)
    assert_same(sharded, trained_by(1, "bf16"), rel=1e-3)


@pytest.mark.slow
def test_saved_adapters_need_no_peft(trained_by, monkeypatch):
    pytest.importorskip("peft", reason="peft is not installed")
    folder = trained_by(2, "lora", *FSDP)
    monkeypatch.setitem(sys.modules, "peft", None)
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


@pytest.mark.slow
def test_a_sharded_run_resumes_to_the_same_bits(trained_by, tmp_path):
    whole = trained_by(2, "ema", *FSDP)
    resumed = cut_back(whole, tmp_path / "run", 2)
    assert "from the checkpoint of step 2" in run_ranks(2, "train", "--resume", resumed).stderr
    weights = load_state(whole)
    for name, tensor in load_state(resumed).items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.slow
def test_a_sharded_run_resumes_with_more_processes(trained_by, tmp_path):
    whole = trained_by(2, "ema", *FSDP)
    resumed = cut_back(whole, tmp_path / "run", 2)
    assert "3 processes, where 2 began" in run_ranks(3, "train", "--resume", resumed).stderr
    assert_same(resumed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), FSDP], ids=["ddp", "fsdp"])
def test_more_processes_than_images_per_micro_batch(options, trained_by):
    """Batches of 5 and 4 in two micro-batches: some of the four processes have one image, others none."""
    assert_same(trained_by(4, "ema", *options), trained_by(1, "ema"))


def test_shards_need_several_processes(recipe, tmp_path, capsys):
    arguments = ["train", "--config", recipe, "--output", tmp_path / "run", *FSDP]
    assert main(list(map(str, arguments))) == 2
    assert "needs several processes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
