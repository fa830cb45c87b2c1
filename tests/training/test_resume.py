"""Runs that are killed, stopped and taken up again, in real processes."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import time

import pytest
import yaml

from ramstrans.cli import main
from ramstrans.model.folder import load_state
from tests.training.builders import BACKBONE, TINY, same_state
from tests.training.processes import LAUNCH, python, start


@pytest.fixture(scope="module")
def recipe(birds, tmp_path_factory):
    """A config file: workers, accumulation, an average, dropout, mixing and uneven batches; 24 steps."""
    config = {
        "data": {
            **{"name": "cub", "root": str(birds), "val_fraction": 0.25, "num_workers": 2},
            **{"random_erasing": 0.5, "rand_augment": 1},
        },
        "model": {
            **{"backbone": BACKBONE, "backbone_options": TINY, "image_size": 24, "zoom_source": "full"},
            **{"dropout": 0.1, "drop_path": 0.1},
        },
        "training": {
            **{"epochs": 12, "batch_size": 5, "lr": 0.003, "optimizer": "adamw", "warmup_steps": 2},
            **{"accumulation": 2, "ema_decay": 0.9, "cutmix": 1.0, "mixup": 0.2, "checkpoint_every": 3},
        },
        "device": "cpu",
    }
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def unbroken(recipe, tmp_path_factory):
    """A run that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(["train", "--config", str(recipe), "--output", str(run)]) == 0
    return run


def losses_of(run):
    """What metrics.jsonl says of each step that it has a row of; a step must not be there twice."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [row for row in rows if row["kind"] == "train"]
    assert len({row["step"] for row in train}) == len(train)
    validation = [row for row in rows if row["kind"] == "validation"]
    assert [row["epoch"] for row in validation] == list(range(1, 13))
    return {row["step"]: row["loss_scales"] for row in train}, validation


def assert_same_run(run, unbroken):
    assert same_state(load_state(run), load_state(unbroken))
    losses, validation = losses_of(run)
    expected, expected_validation = losses_of(unbroken)
    assert expected.items() <= losses.items()
    assert validation == expected_validation
    reports = [json.loads((folder / "report.json").read_text()) for folder in (run, unbroken)]
    for key in ("scales", "fused", "epoch", "steps"):
        assert reports[0][key] == reports[1][key]


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again_it_ends_with_the_same_bits(seed, recipe, unbroken, tmp_path):
    run = tmp_path / "run"
    done = python("-m", "tests.training.killing", seed, 7, run, "--config", recipe)
    assert done.returncode == 0, done.stderr
    reached, code = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert len(reached) >= 3
    assert "from the checkpoint of step" in done.stderr
    assert_same_run(run, unbroken)


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_saves_and_says_how_to_go_on(number, recipe, unbroken, tmp_path):
    run = tmp_path / "run"
    process = start("-m", "ramstrans", "train", "--config", recipe, "--output", run)
    checkpoints = run / "checkpoints"
    wait_for(lambda: checkpoints.is_dir() and list(checkpoints.glob("step-*")), process)
    time.sleep(random.Random(number).random() * 0.1)
    os.killpg(process.pid, number)  # the loader's workers are hit too
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    stopped = re.search(r"stopped by SIG\w+ after step (\d+) of 24; saved: go on with `ramstrans (.*)`", said)
    assert stopped
    newest = max(int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*"))
    assert newest == int(stopped[1])
    assert main(shlex.split(stopped[2])) == 0
    assert_same_run(run, unbroken)


def test_two_processes_are_killed_and_go_on_with_the_same_bits(recipe, tmp_path):
    changed = ("--config", recipe, "--data.num_workers", "1")
    done = python(*LAUNCH, "train", *changed, "--output", tmp_path / "unbroken")
    assert done.returncode == 0, done.stderr
    run, generator = tmp_path / "run", random.Random(3)
    command = [*LAUNCH, "train", *changed, "--output", run]
    for rows in (3, 9):
        process = start(*command)
        metrics = run / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= rows, process)  # noqa: B023
        time.sleep(generator.random() * 0.2)
        os.killpg(process.pid, signal.SIGKILL)
        subprocess.run(["pkill", "-KILL", "-f", str(run)], check=False)  # torchrun's children have their own
        process.communicate()
        command = [*LAUNCH, "train", "--resume", run]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    assert "from the checkpoint of step" in done.stderr
    assert_same_run(run, tmp_path / "unbroken")


def test_a_finished_run_is_not_resumed(unbroken, capsys):
    assert main(["train", "--resume", str(unbroken)]) == 2
    assert "that run is finished" in capsys.readouterr().err


def test_a_folder_without_a_run_is_not_resumed(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "there is no" in capsys.readouterr().err


def test_what_would_make_it_another_run_is_refused(unbroken, capsys):
    assert main(["train", "--resume", str(unbroken), "--training.lr", "0.1"]) == 2
    assert "--training.lr cannot be changed in a run that is resumed" in capsys.readouterr().err
    assert main(["train", "--resume", str(unbroken), "--config", "toybirds"]) == 2
    assert "--resume and --config do not go together" in capsys.readouterr().err
