"""Runs that are killed, stopped and resumed, in real processes."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ramstrans.cli import main
from ramstrans.data.datasets.cub import read_cub
from ramstrans.saved.model import load_state
from tests.processes import (
    has_ended,
    log_every_step,
    run,
    run_main,
    run_ranks,
    signal_group,
    start,
    start_ranks,
    wait_until,
)
from tests.tiny import same_state, write_config


@pytest.fixture(scope="module")
def recipe(birds, tmp_path_factory):
    """A config file: workers, accumulation, an EMA, dropout, mixing and uneven batches; 24 steps."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    return write_config(
        path,
        birds,
        data={"num_workers": 2, "random_erasing": 0.5, "rand_augment": 1},
        model={"zoom_source": "full", "dropout": 0.1, "drop_path": 0.1},
        training={
            **{"epochs": 12, "batch_size": 5, "lr": 0.003, "optimizer": "adamw", "warmup_steps": 2},
            **{"gradient_accumulation_steps": 2, "ema_decay": 0.9, "cutmix": 1.0, "mixup": 0.2},
            "checkpoint_every": 3,
        },
    )


@pytest.fixture(scope="module")
def unbroken(recipe, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    done = run("train", "--config", recipe, "--output", folder, prepare=log_every_step)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def unbroken_by_two(recipe, tmp_path_factory):
    """Trains by two processes, with copies or shards of the model, each once; gives the run folder."""
    root = tmp_path_factory.mktemp("pairs")

    def unbroken_by_two(*options):
        folder = root / "-".join(("run", *options))
        if not folder.exists():
            arguments = ("--config", recipe, "--data.num_workers", 0, *options, "--output", folder)
            run_ranks(2, "train", *arguments, prepare=log_every_step)
        return folder

    return unbroken_by_two


def losses_of(folder):
    """The losses of each logged step, and all rows of validation; neither may have gaps or repetitions."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [row for row in rows if row["kind"] == "train"]
    assert len({row["step"] for row in train}) == len(train)
    validation = [row for row in rows if row["kind"] == "validation"]
    assert [row["epoch"] for row in validation] == list(range(1, 13))
    return {row["step"]: row["loss_scales"] for row in train}, validation


def assert_same_run(folder, expected):
    assert same_state(load_state(folder), load_state(expected))
    losses, validation = losses_of(folder)
    expected_losses, expected_validation = losses_of(expected)
    assert losses
    assert losses.items() <= expected_losses.items()
    assert validation == expected_validation
    reports = [json.loads((run / "report.json").read_text()) for run in (folder, expected)]
    for key in ("scales", "fused", "epoch", "steps"):
        assert reports[0][key] == reports[1][key]


def num_rows(folder):
    """Whole rows of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for_rows(folder, count, child):
    child.wait_for(lambda: num_rows(folder) >= count)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_bits(recipe, unbroken, tmp_path):
    """The random moments fall on steps, validation and checkpoints alike."""
    folder, generator = tmp_path / "run", random.Random(0)
    command = ("train", "--config", recipe, "--output", folder)
    for _ in range(5):
        child = start(*command, prepare=log_every_step)
        wait_for_rows(folder, max(5, num_rows(folder) + generator.randint(-2, 4)), child)
        time.sleep(generator.random() * 0.1)
        child.kill()
        child.wait()
        command = ("train", "--resume", folder)
        if (folder / "report.json").exists():  # killed too late, on a very busy machine
            break
    else:
        done = run(*command, prepare=log_every_step)
        assert done.returncode == 0, done.stderr
        assert "from the checkpoint of step" in done.stderr
    assert_same_run(folder, unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_the_group_saves_and_says_how_to_go_on(number, recipe, unbroken, tmp_path):
    folder = tmp_path / "run"
    child = start("train", "--config", recipe, "--output", folder, prepare=log_every_step)
    checkpoints = folder / "checkpoints"
    child.wait_for(lambda: checkpoints.is_dir() and list(checkpoints.glob("step-*")))
    time.sleep(random.Random(number).random() * 0.1)
    signal_group(child.pid, number)  # the loader's workers are hit too
    done = child.wait()
    assert done.returncode == 128 + number, done.stderr
    assert "Traceback" not in done.stderr
    stopped = re.search(
        r"stopped by SIG\w+ after step (\d+) of 24; saved: go on with `ramstrans (.*)`", done.stderr
    )
    assert stopped
    newest = max(int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*"))
    assert newest == int(stopped[1])
    assert run(*shlex.split(stopped[2]), prepare=log_every_step).returncode == 0
    assert_same_run(folder, unbroken)


@pytest.mark.slow
def test_sigterm_to_every_single_process_saves_and_says_how_to_go_on(recipe, unbroken, tmp_path):
    folder, generator = tmp_path / "run", random.Random(1)
    child = start("train", "--config", recipe, "--output", folder, prepare=log_every_step)
    wait_for_rows(folder, 6, child)
    time.sleep(generator.random() * 0.1)
    pids = child.pids()
    assert len(pids) >= 3
    for pid in generator.sample(pids, len(pids)):  # in any order
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        time.sleep(generator.choice([0, 0.02]))
    done = child.wait()
    assert done.returncode == 143, done.stderr
    assert "Traceback" not in done.stderr
    assert all(map(has_ended, pids))
    stopped = re.search(
        r"stopped by SIGTERM after step \d+ of 24; saved: go on with `ramstrans (.*)`", done.stderr
    )
    assert stopped, done.stderr
    assert run(*shlex.split(stopped[1]), prepare=log_every_step).returncode == 0
    assert_same_run(folder, unbroken)


def test_a_killed_run_leaves_no_process_behind(recipe, tmp_path):
    child = start("train", "--config", recipe, "--output", tmp_path / "run", prepare=log_every_step)
    wait_for_rows(tmp_path / "run", 1, child)
    pids = child.pids()
    assert len(pids) >= 3
    child.process.kill()  # alone, not its group
    assert child.wait().returncode == -signal.SIGKILL
    wait_until(lambda: all(map(has_ended, pids)))


def read_pipes():
    """Allow pipes as images, which are refused otherwise: reading one hangs, as on a dead network share."""
    from ramstrans.data.reading import decode

    decode._check_file = lambda path: None


def read_pipes_unchecked():
    """As if the file had been whole when it was checked, before training."""
    from ramstrans.data import build

    read_pipes()
    build.find_unreadable = lambda *_, **__: []


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "num_workers"), [("check", 0), ("training", 0), ("training", 1)])
def test_a_read_that_hangs_ends_the_run_and_names_the_file(phase, num_workers, recipe, birds, tmp_path):
    root = shutil.copytree(birds, tmp_path / "birds")
    pipe = read_cub(root).of_split("train")[0].path
    pipe.unlink()
    os.mkfifo(pipe)
    options = {"config": recipe, "output": tmp_path / "run", "data.root": root, "data.read_timeout": 2}
    options["data.num_workers"] = num_workers
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = run("train", *given, prepare=read_pipes_unchecked if phase == "training" else read_pipes)
    assert done.returncode == 3, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ramstrans: ")
    assert str(pipe) in last
    assert "--data.read_timeout" in last
    assert "Traceback" not in done.stderr


def stall_at_the_list():
    """Stop where classes.txt would be read, and leave a file that shows it."""
    opened = Path.open

    def stall(path, *args, **options):
        if path.name == "classes.txt":
            Path("reached").touch()
            time.sleep(600)
        return opened(path, *args, **options)

    Path.open = stall


def test_sigterm_before_training_stops_at_once_and_leaves_nothing(recipe, tmp_path):
    options = {"prepare": stall_at_the_list, "cwd": tmp_path}
    child = start("train", "--config", recipe, "--output", tmp_path / "run", **options)
    child.wait_for((tmp_path / "reached").exists)
    os.kill(child.pid, signal.SIGTERM)
    done = child.wait()
    assert done.returncode == 143, done.stderr
    assert done.stderr.splitlines()[-1] == "ramstrans: stopped by SIGTERM"
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_workers", "options"),
    [(0, ()), (1, ()), (0, ("--training.fsdp", "true"))],
    ids=["ddp", "ddp with workers", "fsdp"],
)
def test_two_processes_are_killed_and_go_on_with_the_same_bits(
    num_workers, options, recipe, unbroken_by_two, tmp_path
):
    """Workers are spawned here, so that each imports torch again: what goes on has none."""
    folder = tmp_path / "run"
    command = ("--config", recipe, "--data.num_workers", num_workers, *options, "--output", folder)
    ranks = start_ranks(2, run_main, ["train", *map(str, command)], log_every_step)
    wait_for_rows(folder, 8, ranks[0])
    time.sleep(random.Random(3).random() * 0.2)
    pids = [pid for rank in ranks for pid in rank.pids()]
    assert len(pids) >= 2 + 2 * num_workers
    for rank in ranks:
        rank.kill()
        rank.wait()
    wait_until(lambda: all(map(has_ended, pids)))
    again = ("train", "--resume", folder, "--data.num_workers", 0)
    assert "from the checkpoint of step" in run_ranks(2, *again, prepare=log_every_step).stderr
    assert_same_run(folder, unbroken_by_two(*options))


def test_a_finished_run_is_not_resumed(unbroken, capsys):
    before = (unbroken / "report.json").read_bytes()
    assert main(["train", "--resume", str(unbroken)]) == 2
    assert "that run has finished" in (printed := capsys.readouterr().err)
    assert "--training.epochs with more than 12" in printed
    for length in (["epochs", "11"], ["max_steps", "23"], ["max_steps", "24"]):
        assert main(["train", "--resume", str(unbroken), f"--training.{length[0]}", length[1]]) == 2
        assert "the run has taken 24 steps (2 per epoch)" in capsys.readouterr().err
    assert (unbroken / "report.json").read_bytes() == before


def test_a_folder_without_a_run_is_not_resumed(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "there is no" in capsys.readouterr().err


def test_what_would_make_it_another_run_is_refused(unbroken, capsys):
    assert main(["train", "--resume", str(unbroken), "--training.lr", "0.1"]) == 2
    assert "--training.lr cannot be changed in a run that is resumed" in capsys.readouterr().err
    assert main(["train", "--resume", str(unbroken), "--config", "toybirds"]) == 2
    assert "--resume and --config do not go together" in capsys.readouterr().err
