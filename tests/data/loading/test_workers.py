"""Processes that outlive signals but not their parent, and waiting that ends."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.loading import workers
from ramstrans.data.loading.workers import (
    SIGNALS,
    block_signals,
    iter_with_timeout,
    start_method,
    worker_errors,
)
from ramstrans.errors import DataError
from tests.processes import ENVIRONMENT, ROOT

LONELY = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="this system cannot wait for signals")


@given(st.lists(st.integers()))
def test_within_yields_the_same_items(items):
    assert list(iter_with_timeout(iter(items), 60.0)) == items


def test_an_error_comes_where_the_item_is_waited_for():
    def items():
        yield 3
        raise KeyError("wren")

    waited = iter_with_timeout(items(), 60.0)
    assert next(waited) == 3
    with pytest.raises(KeyError, match="wren"):
        next(waited)


def test_items_are_made_one_by_one_as_they_are_asked_for():
    made = []

    def items():
        for number in range(5):
            made.append(number)
            yield number

    waited = iter_with_timeout(items(), 60.0)
    assert made == []
    assert (next(waited), made) == (0, [0])
    time.sleep(0.05)
    assert made == [0]
    waited.close()


def test_an_item_that_does_not_come_is_not_waited_for():
    release = threading.Event()

    def items():
        yield 3
        release.wait(60)

    waited, start = iter_with_timeout(items(), 0.1), time.monotonic()
    assert next(waited) == 3
    with pytest.raises(TimeoutError, match=r"timed out after 0\.1 seconds"):
        next(waited)
    assert time.monotonic() - start < 30
    release.set()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            TimeoutError("timed out after 3 seconds"),
            r"no batch came in time .* while reading a, b, c, d and 1 more;",
        ),
        (
            RuntimeError("DataLoader timed out after 3 seconds"),
            r"no batch came in time .*--data\.read_timeout",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            r"died \(.* Killed\) while reading",
        ),
    ],
)
def test_what_happens_to_a_loader_is_one_line(error, message):
    with pytest.raises(DataError, match=message) as caught, worker_errors(lambda: list("abcde")):
        raise error
    assert "\n" not in str(caught.value)


def test_where_nothing_is_read_nothing_is_named():
    with pytest.raises(DataError, match=r"killed\); if memory"), worker_errors():
        raise RuntimeError("DataLoader worker (pid 7) is killed")


def test_an_error_of_another_kind_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes"), worker_errors():
        raise RuntimeError("shapes do not fit")


@LONELY
def test_signals_are_heard_after_they_were_held_back():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with block_signals():
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= SIGNALS
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # not to any thread of the process
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("count", "method"), [(1, None), (2, "spawn")])
def test_processes_beside_others_are_started_anew(count, method, monkeypatch):
    monkeypatch.setattr(workers, "num_processes", lambda: count)
    assert start_method() == method


PARENT = """
import multiprocessing, os, signal, sys
from ramstrans.data.loading.workers import init_worker, block_signals

def work():
    init_worker(0)
    os.write(1, b"ready\\n")  # at one go: the other one writes too
    open(sys.argv[1]).read()  # a pipe into which nobody writes: a read that hangs

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with block_signals():
        worker = multiprocessing.get_context(sys.argv[2]).Process(target=work, daemon=True)
        worker.start()
    os.write(1, f"{worker.pid}\\n".encode())
    sys.stdin.readline()
    worker.terminate()
    worker.join()
    print("ended", worker.exitcode, flush=True)
"""


@pytest.fixture(params=["fork", "spawn"])
def parent(request, tmp_path):
    """A process with one of a loader's, which hangs in a read; and the latter's number."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "parent.py").write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", tmp_path / "pipe", request.param],
        env=ENVIRONMENT,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = {process.stdout.readline().strip() for _ in range(2)} - {"ready"}
    yield process, int(said.pop())
    process.kill()
    process.communicate()


def has_ended(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@LONELY
def test_a_process_that_hangs_in_a_read_heeds_its_parent_alone(parent):
    process, worker = parent
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(worker, number)
        time.sleep(0.1)
        assert not has_ended(worker)
    said, _ = process.communicate("end it\n", timeout=30)
    assert said == "ended 0\n"


@LONELY
def test_a_process_that_hangs_in_a_read_ends_with_its_parent(parent):
    process, worker = parent
    assert not has_ended(worker)
    process.kill()
    wait_for(lambda: has_ended(worker))
