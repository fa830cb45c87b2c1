"""Runs in real processes, which train nothing: claimed, stopped, killed, resumed, failed."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from ramstrans.compare import runs as module
from ramstrans.compare.runs import (
    Folders,
    Trainer,
    claim,
    environment,
    evaluate_command,
    last_error,
    train_command,
)
from ramstrans.interrupts import interruptible
from tests.compare.builders import PROGRAM, plan_of
from tests.processes import Child, has_ended, wait_until


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Where runs go, by a stand-in for `ramstrans`, whose starts are counted in `counts`."""
    monkeypatch.setattr(module, "PROGRAM", (sys.executable, "-S", str(PROGRAM)))
    monkeypatch.setattr(module, "POLL", 0.01)
    (tmp_path / "counts").mkdir()
    monkeypatch.setenv("FAKE_COUNT", str(tmp_path / "counts"))
    return Folders(tmp_path / "out")


def starts(tmp_path):
    return sorted(path.name.rpartition("-")[0] for path in (tmp_path / "counts").iterdir())


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_run_is_trained_once(jobs, folders, tmp_path):
    plan = plan_of()
    trainer = Trainer(folders, jobs)
    trainer.train(plan.runs)
    names = sorted(run.name for run in plan.runs)
    assert starts(tmp_path) == names
    assert all(folders.is_done(run) for run in plan.runs)
    assert trainer.errors == {}
    trainer.train(plan.runs)
    assert starts(tmp_path) == names
    log = folders.log(plan.runs[0]).read_text()
    assert log.startswith("$ ramstrans train --data.root=birds --model.num_scales=1 --seed=0 --output=")
    assert log.endswith("epoch 1/1\n")


def test_no_jobs_train_nothing(folders, tmp_path):
    Trainer(folders, 0).train(plan_of().runs)
    assert starts(tmp_path) == []


def test_a_failed_run_is_told_and_the_rest_go_on(folders, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FAKE_FAIL", "1")
    plan = plan_of()
    trainer = Trainer(folders, 1)
    trainer.train(plan.runs)
    assert trainer.errors == dict.fromkeys(("plain__birds__seed1", "two__birds__seed1"), "the disk is full")
    assert [folders.is_done(run) for run in plan.runs] == [True, True, False, False]
    assert "plain__birds__seed1 failed after 0 s: the disk is full" in caplog.text
    monkeypatch.delenv("FAKE_FAIL")
    again = Trainer(folders, 1)
    again.train(plan.runs)
    assert again.errors == {}
    assert all(folders.is_done(run) for run in plan.runs)
    assert len(starts(tmp_path)) == 6


def looks(**changes):
    methods = {
        "one_look": {"of": "two", "num_scales": 1},
        "plain": {"model.num_scales": 1},
        "two": {"model.num_scales": 2},
    }
    return plan_of(methods=methods, seeds=(0,), **changes)


@pytest.mark.parametrize("jobs", [1, 3])
def test_what_is_evaluated_is_trained_first(jobs, folders):
    """Also regions; a stopped evaluation begins again, and a trained run is never removed."""
    plan = looks(regions=5, options={"device": "cpu"})
    left = folders.run(plan.runs[0])
    left.mkdir(parents=True)
    (left / "predictions.csv").touch()
    trainer = Trainer(folders, jobs)
    trainer.train([*plan.runs, *plan.region_runs])
    assert trainer.errors == {}
    assert all(folders.is_done(run) for run in (*plan.runs, *plan.region_runs))
    assert not (left / "predictions.csv").exists()
    two = folders.run(plan.runs[2])
    assert (
        folders.log(plan.runs[0])
        .read_text()
        .startswith(f"$ ramstrans evaluate {two} --num_scales=1 --device=cpu --output={left}\n")
    )
    assert folders.run(plan.region_runs[1]) == folders.output / "regions" / "two__birds__seed0__regions"
    (left / "report.json").unlink()
    evaluate_command(plan.runs[0], two, left)
    assert left.is_dir()  # it has a run.yaml, from the stand-in


def test_what_evaluates_a_failed_run_fails_too(folders, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "0")
    plan = looks()
    trainer = Trainer(folders, 2)
    trainer.train(plan.runs)
    assert (
        trainer.errors["one_look__birds__seed0"] == "two__birds__seed0, which it evaluates, has not finished"
    )
    assert len(trainer.errors) == 3


def test_what_has_begun_is_resumed(folders):
    run = plan_of(options={"data.num_workers": 2, "training.epochs": 3}).runs[0]
    folder = folders.run(run)
    assert train_command(run, folder)[:2] == ["train", "--data.num_workers=2"]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").touch()  # stopped before run.yaml was written
    assert train_command(run, folder)[-1] == "--overwrite=true"
    (folder / "run.yaml").touch()
    where = ["--data.num_workers=2", "--data.root=birds"]
    assert train_command(run, folder) == ["train", "--resume", str(folder), *where]


def hold(path, seconds):
    """Claim a run in another process, and keep it."""
    lock = claim(Path(path))
    Path(f"{path}.held").touch()
    time.sleep(seconds)
    return int(lock is None)


@pytest.mark.slow
def test_a_run_of_another_process_is_left_to_it_until_that_dies(folders, tmp_path, caplog):
    plan = plan_of()
    first = plan.runs[0]
    folders.claim(first).parent.mkdir(parents=True)
    other = Child(hold, str(folders.claim(first)), 600)
    wait_until(Path(f"{folders.claim(first)}.held").exists)
    Trainer(folders, 2).train(plan.runs)
    assert [folders.is_done(run) for run in plan.runs] == [False, True, True, True]
    assert f"{first.name} is being trained by another process" in caplog.text
    other.kill()
    other.wait()
    Trainer(folders, 2).train(plan.runs)
    assert folders.is_done(first)
    assert len(starts(tmp_path)) == 4


def train_all(output, jobs):
    """Train a plan in a process of its own, by the stand-in."""
    module.PROGRAM = (sys.executable, "-S", str(PROGRAM))
    module.POLL = 0.01
    with interruptible():
        try:
            Trainer(Folders(Path(output)), jobs, go_on="again").train(plan_of().runs)
        except KeyboardInterrupt as stop:
            print(type(stop).__name__, *stop.__notes__)  # noqa: T201
            return 130
    return 0


def child_of_a_plan(tmp_path, jobs=2):
    (tmp_path / "counts").mkdir(exist_ok=True)
    environment = {"FAKE_COUNT": str(tmp_path / "counts"), "FAKE_WAIT": str(tmp_path / "go")}
    return Child(train_all, str(tmp_path / "out"), jobs, environment=environment)


def pids(tmp_path):
    return [int(path.name.rpartition("-")[2]) for path in (tmp_path / "counts").iterdir()]


def begun(tmp_path, count):
    counts = tmp_path / "counts"
    return lambda: counts.is_dir() and len(list(counts.iterdir())) == count


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_lets_the_runs_save_and_end(number, tmp_path):
    child = child_of_a_plan(tmp_path)
    child.wait_for(begun(tmp_path, 2))
    wait_until(lambda: all("epoch" in log.read_text() for log in (tmp_path / "out" / "logs").glob("*.log")))
    os.kill(child.pid, number)
    done = child.wait()
    assert done.returncode == 130
    assert "2 runs ended and can go on: again" in done.stdout
    assert all(has_ended(pid) for pid in pids(tmp_path))
    logs = [log.read_text() for log in (tmp_path / "out" / "logs").glob("*.log")]
    assert len(logs) == 2
    assert all("stopped by SIGTERM" in text for text in logs)
    (tmp_path / "go").touch()
    assert child_of_a_plan(tmp_path).wait().returncode == 0
    assert all(Folders(tmp_path / "out").is_done(run) for run in plan_of().runs)
    assert any("--resume" in path.read_text() for path in (tmp_path / "counts").iterdir())


def test_after_a_kill_the_runs_that_live_on_are_not_trained_twice(tmp_path):
    first = child_of_a_plan(tmp_path)
    first.wait_for(begun(tmp_path, 2))
    os.kill(first.pid, signal.SIGKILL)  # its two runs live on
    first.wait()
    second = child_of_a_plan(tmp_path)
    second.wait_for(begun(tmp_path, 4))
    (tmp_path / "go").touch()
    assert second.wait().returncode == 0
    wait_until(lambda: all(Folders(tmp_path / "out").is_done(run) for run in plan_of().runs))
    assert starts(tmp_path) == sorted(run.name for run in plan_of().runs)


def test_two_at_once_share_the_runs(tmp_path):
    both = [child_of_a_plan(tmp_path, jobs=2) for _ in range(2)]
    both[0].wait_for(begun(tmp_path, 4))
    (tmp_path / "go").touch()
    assert [child.wait().returncode for child in both] == [0, 0]
    assert starts(tmp_path) == sorted(run.name for run in plan_of().runs)


def test_the_last_error(tmp_path):
    log = tmp_path / "log"
    log.write_text("loading\nramstrans: no such file; give another\n\nlate words of a thread\n")
    assert last_error(log, 1) == "no such file; give another"
    assert last_error(log, -9) == "killed by SIGKILL"
    log.write_text("Segmentation fault\n")
    assert last_error(log, 1) == "Segmentation fault"
    log.write_text("")
    assert last_error(log, 1) == "exit code 1"


def test_the_last_error_is_of_the_last_attempt(tmp_path):
    log = tmp_path / "log"
    log.write_text("$ ramstrans train a\nramstrans: the disk is full\n$ ramstrans train a\nNo module\n")
    assert last_error(log, 1) == "No module"
    assert last_error(log, -35) == "killed by signal 35"


def test_jobs_share_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(module, "num_cores", lambda: 8)
    run = plan_of().runs[0]
    assert environment({}, run, 0, 1, ["0", "1"]) == {}
    assert environment({}, run, 2, 3, ["4", "7"]) == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "4"}
    assert environment({"OMP_NUM_THREADS": "5"}, run, 0, 20, ["0"]) == {"OMP_NUM_THREADS": "5"}
    named = plan_of(options={"device": "cuda:1"}).runs[0]
    assert "CUDA_VISIBLE_DEVICES" not in environment({}, named, 0, 2, ["0", "1"])
