"""An ordered thread-pool map with a timeout, which abandons threads that hang."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

MAX_AHEAD = 1024
"""Items whose results are computed before they are asked for: a million of them would take a gigabyte."""

_T = TypeVar("_T")
_R = TypeVar("_R")

_Task = tuple[Future[Any], Any]


def in_threads(
    function: Callable[[_T], _R],
    items: Iterable[_T],
    num_workers: int,
    timeout: float = 0.0,
    *,
    max_ahead: int = MAX_AHEAD,
) -> Iterator[_R]:
    """Map a function over items in threads; yield the results in order.

    Unlike those of `concurrent.futures`, threads that hang are abandoned, and do not keep the program from
    ending.

    Args:
        function: Safe to call from several threads.
        items: Its arguments; may be endless.
        num_workers: Threads; 0 calls the function in this one, without a timeout.
        timeout: Seconds to wait for a result; 0 waits forever.
        max_ahead: Items given to the threads before the first result is yielded, 1 or more.

    Raises:
        TimeoutError: A result took longer.

    >>> list(in_threads(str.upper, ["wren", "crow"], num_workers=2))
    ['WREN', 'CROW']
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    tasks: SimpleQueue[_Task | None] = SimpleQueue()
    for _ in range(num_workers):
        threading.Thread(target=_work, args=(function, tasks), daemon=True).start()
    pending: deque[Future[_R]] = deque()
    try:
        for item in items:
            pending.append(Future())
            tasks.put((pending[-1], item))
            if len(pending) == max_ahead:
                yield _result(pending.popleft(), timeout)
        while pending:
            yield _result(pending.popleft(), timeout)
    finally:
        with suppress(Empty):
            while True:
                tasks.get_nowait()
        for _ in range(num_workers):
            tasks.put(None)


def _work(function: Callable[[Any], Any], tasks: "SimpleQueue[_Task | None]") -> None:
    while (task := tasks.get()) is not None:
        future, item = task
        try:
            future.set_result(function(item))
        except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
            future.set_exception(error)


def _result(future: Future[_R], timeout: float) -> _R:
    if not wait([future], timeout or None).done:
        raise TimeoutError(f"timed out after {timeout:g} seconds")
    return future.result()
