import threading
import time
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.reading import threads
from ramstrans.data.reading.threads import in_threads


@given(st.lists(st.integers()), st.integers(0, 5))
def test_outcomes_are_in_order(items, num_workers):
    assert list(in_threads(lambda item: 2 * item, items, num_workers)) == [2 * item for item in items]


def test_a_slow_item_holds_up_none_but_its_outcome():
    def slow(item):
        time.sleep(0.1 * (item == 0))
        return item

    assert list(in_threads(slow, range(7), 3)) == list(range(7))


def test_only_so_many_are_asked_for_ahead(monkeypatch):
    monkeypatch.setattr(threads, "_NUM_QUEUED", 3)
    begun = []
    outcomes = in_threads(lambda item: begun.append(item) or item, range(9), 1)
    assert next(outcomes) == 0
    time.sleep(0.1)
    assert begun == [0, 1, 2]
    assert list(outcomes) == list(range(1, 9))


def test_an_error_comes_where_its_item_is_waited_for():
    outcomes = in_threads(lambda item: 6 // item, [3, 0, 2], 2)
    assert next(outcomes) == 2
    with pytest.raises(ZeroDivisionError):
        next(outcomes)


def test_threads_see_the_callers_variables():
    variable = ContextVar("variable", default="none")
    token = variable.set("the caller's")
    assert list(in_threads(lambda _: variable.get(), range(5), 2)) == ["the caller's"] * 5
    variable.reset(token)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_item_that_hangs_is_not_waited_for(num_workers):
    release = threading.Event()

    def work(item):
        if item == 1:
            release.wait(60)
        return item

    outcomes = in_threads(work, range(5), num_workers, timeout=0.2)
    assert next(outcomes) == 0
    with pytest.raises(TimeoutError, match=r"timed out after 0\.2 seconds"):
        next(outcomes)
    release.set()


def test_threads_end_with_the_items_or_when_broken_off():
    before = threading.active_count()
    assert list(in_threads(str, range(9), 4)) == list("012345678")
    next(in_threads(str, range(9), 4))
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)
