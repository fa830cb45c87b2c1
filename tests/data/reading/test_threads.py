"""Results come in order, errors and timeouts at the item that they belong to; no thread is left over."""

import threading
import time
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.reading.threads import in_threads


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
    before = threading.active_count()
    assert list(in_threads(str, range(9), 4)) == list("012345678")
    next(in_threads(str, range(9), 4))
    end = time.monotonic() + 30
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)
