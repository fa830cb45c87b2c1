"""Results come in order, errors and timeouts at the item that they belong to; no thread is left over."""

import gc
import os
import signal
import threading
import time
import weakref
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.reading.threads import check_wanted, in_threads
from tests.processes import Child, python


@given(st.lists(st.integers()), st.integers(0, 5), st.integers(1, 4))
def test_results_are_in_order(items, num_workers, max_ahead):
    results = in_threads(lambda item: 2 * item, items, num_workers, max_ahead=max_ahead)
    assert list(results) == [2 * item for item in items]


def test_a_slow_item_delays_only_its_result():
    others = threading.Event()

    def slow(item):
        if item == 0:
            assert others.wait(30)
        elif item == 6:
            others.set()
        return item

    assert list(in_threads(slow, range(7), 2)) == list(range(7))


def test_only_so_many_items_are_started_ahead():
    started, third = [], threading.Event()

    def work(item):
        started.append(item)
        if item == 2:
            third.set()
        return item

    results = in_threads(work, count(), 1, max_ahead=3)
    assert next(results) == 0
    assert third.wait(30)
    assert started == [0, 1, 2]
    assert next(results) == 1


def test_an_error_is_raised_at_its_item():
    results = in_threads(lambda item: 6 // item, [3, 0, 2], 2)
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_hanging_item_is_abandoned(num_workers):
    release = threading.Event()
    results = in_threads(lambda item: item or release.wait(60), range(5), num_workers, timeout=0.1)
    with pytest.raises(TimeoutError, match=r"timed out after 0\.1 seconds"):
        next(results)
    release.set()


def test_threads_end_with_the_items_or_when_the_results_are_dropped():
    before = set(threading.enumerate())  # those of other tests may end meanwhile
    assert list(in_threads(str, range(9), 4)) == list("012345678")
    assert set(threading.enumerate()) <= before
    results = in_threads(str, count(), 4)
    next(results)
    assert not set(threading.enumerate()) <= before
    results.close()
    assert set(threading.enumerate()) <= before


def test_a_thread_keeps_no_result_alive():
    results = in_threads(lambda _: threading.Event(), range(2), 1)
    kept = weakref.ref(next(results))
    list(results)
    gc.collect()
    assert kept() is None


def test_a_long_task_ends_at_its_next_part_when_nobody_waits():
    workers, going = [], threading.Event()

    def endless(_):
        workers.append(threading.current_thread())
        while True:
            check_wanted()
            going.set()

    results = in_threads(endless, range(1), 1, timeout=0.1)
    with pytest.raises(TimeoutError):
        next(results)
    assert going.wait(30)
    (worker,) = workers
    worker.join(30)
    assert not worker.is_alive()
    check_wanted()  # outside such threads: nothing


FREES_AT_THE_END = """
import sys, torch
from itertools import repeat
from ramstrans.data.reading import threads
from ramstrans.data.reading.threads import in_threads

results = in_threads(lambda _: torch.ones(300_000_000, dtype=torch.uint8), repeat(None), 2, max_ahead=3)
next(results)
if sys.argv[1] == "dropped":
    del results
sys.exit(3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("results", ["held", "dropped"])
def test_the_interpreter_ends_after_its_threads(results):
    """Otherwise C++ aborts: a thread that has freed a tensor asks an ending interpreter for its lock."""
    done = python("-c", FREES_AT_THE_END, results)
    assert (done.returncode, done.stderr) == (3, "")


def wait_for_a_slow_item(marker):
    """Wait 2.5 seconds at most for an item that takes two."""

    def slow(item):
        marker.touch()
        time.sleep(2)
        return item

    assert list(in_threads(slow, [7], 1, timeout=2.5)) == [7]
    return 0


@pytest.mark.slow
def test_time_in_which_the_process_is_stopped_does_not_count(tmp_path):
    """As by Ctrl-Z: the clock goes on, the threads do not."""
    child = Child(wait_for_a_slow_item, tmp_path / "begun")
    child.wait_for((tmp_path / "begun").exists)
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait().returncode == 0
