"""Runs that are killed, stopped and taken up again, in real processes."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from itertools import product

import psutil
import pytest
import yaml

from ramstrans.cli import main
from ramstrans.data.datasets.cub import read_cub
from ramstrans.saved.model import load_state
from tests.training.builders import BACKBONE, TINY, same_state
from tests.training.processes import LAUNCH, processes_of, python, start, wait_for


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
            **{
                "gradient_accumulation_steps": 2,
                "ema_decay": 0.9,
                "cutmix": 1.0,
                "mixup": 0.2,
                "checkpoint_every": 3,
            },
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
    done = python("-m", "tests.training.kill_loop", seed, 7, run, "--config", recipe)
    assert done.returncode == 0, done.stderr
    reached, code = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert len(reached) >= 3
    assert "from the checkpoint of step" in done.stderr
    assert_same_run(run, unbroken)


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


def has_ended(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_for_rows(run, count, process):
    metrics = run / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= count, process)


@pytest.mark.parametrize("seed", [0, 1])
def test_sigterm_to_every_single_process_saves_and_says_how_to_go_on(seed, recipe, unbroken, tmp_path):
    run, generator = tmp_path / "run", random.Random(seed)
    process = start("-m", "ramstrans", "train", "--config", recipe, "--output", run)
    wait_for_rows(run, 1 + 5 * seed, process)
    time.sleep(generator.random() * 0.1)
    pids = processes_of(process)
    assert len(pids) >= 3
    for pid in generator.sample(pids, len(pids)):  # the main one first, last or between
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        time.sleep(generator.choice([0, 0.02]))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "Traceback" not in said
    assert all(map(has_ended, pids))
    stopped = re.search(r"stopped by SIGTERM after step \d+ of 24; saved: go on with `ramstrans (.*)`", said)
    assert stopped, said
    assert main(shlex.split(stopped[1])) == 0
    assert_same_run(run, unbroken)


def test_a_killed_run_leaves_no_process_behind(recipe, tmp_path):
    process = start("-m", "ramstrans", "train", "--config", recipe, "--output", tmp_path / "run")
    wait_for_rows(tmp_path / "run", 1, process)
    pids = processes_of(process)
    assert len(pids) >= 3
    process.kill()
    process.communicate()
    end = time.monotonic() + 20
    while not all(map(has_ended, pids)):
        assert time.monotonic() < end, "an orphan"
        time.sleep(0.05)


HANGING = """
import sys
from ramstrans.data.reading import decode
from ramstrans.cli import main
decode._check_file = lambda path: None  # which refuses pipes, that hang as no file does that can be had here
sys.exit(main(sys.argv[1:]))
"""


def in_its_place(path):
    """A pipe, whose reading hangs, in the place of a file."""
    path.unlink()
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(("phase", "num_workers"), [("list", 0), *product(["check", "training"], [0, 1])])
def test_a_read_that_hangs_ends_the_run_and_names_the_file(phase, num_workers, recipe, birds, tmp_path):
    root = shutil.copytree(birds, tmp_path / "birds")
    photograph = read_cub(root).of_split("train")[0].path
    pipe = in_its_place(root / "classes.txt" if phase == "list" else photograph)
    code = HANGING
    if phase == "training":  # as if it had been whole when it was looked at
        code = code.replace(
            "sys.exit",
            "from ramstrans.data import build; build.find_unreadable = lambda *a, **o: []\nsys.exit",
        )
    options = {"config": recipe, "output": tmp_path / "run", "data.root": root, "data.read_timeout": 2}
    options["data.num_workers"] = num_workers
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    began = time.monotonic()
    done = python("-c", code, "train", *given)
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - began < 120
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ramstrans: ")
    assert str(pipe) in last
    assert "--data.read_timeout" in last
    assert "Traceback" not in done.stderr


STALLED = """
import sys, time
from pathlib import Path
from ramstrans.cli import main

opened = Path.open
def stall(path, *args, **options):
    if path.name == "classes.txt":
        Path(sys.argv[1]).touch()
        time.sleep(600)
    return opened(path, *args, **options)

Path.open = stall
sys.exit(main(sys.argv[2:]))
"""


def test_sigterm_before_training_begins_stops_at_once_and_leaves_nothing(recipe, tmp_path):
    process = start(
        *("-c", STALLED, tmp_path / "is read", "train", "--config", recipe, "--output", tmp_path / "run")
    )
    wait_for((tmp_path / "is read").exists, process)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert said.splitlines()[-1] == "ramstrans: stopped by SIGTERM"
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [("--data.num_workers", "1"), ("--data.num_workers", "0", "--training.fsdp", "true")],
    ids=["ddp", "fsdp"],
)
def test_two_processes_are_killed_and_go_on_with_the_same_bits(options, recipe, tmp_path):
    changed = ("--config", recipe, *options)
    done = python(*LAUNCH, "train", *changed, "--output", tmp_path / "unbroken")
    assert done.returncode == 0, done.stderr
    run, generator = tmp_path / "run", random.Random(3)
    command = [*LAUNCH, "train", *changed, "--output", run]
    for rows in (3, 9):
        process = start(*command)
        wait_for_rows(run, rows, process)
        time.sleep(generator.random() * 0.2)
        os.killpg(process.pid, signal.SIGKILL)
        subprocess.run(["pkill", "-KILL", "-f", str(run)], check=False)  # torchrun's children have their own
        process.communicate(timeout=60)  # until the loaders' processes, which are left, have ended too
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
