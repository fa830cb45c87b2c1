"""Many files side by side, in threads that nobody waits for in vain."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

_NUM_QUEUED = 1024  # items asked for at once: a million of waiting ones would take a gigabyte

_T = TypeVar("_T")
_R = TypeVar("_R")

_Asked = SimpleQueue[tuple[Context, int, Any] | None]
_Given = SimpleQueue[tuple[int, Any, BaseException | None]]


def in_threads(
    function: Callable[[_T], _R], items: Sequence[_T], num_workers: int, timeout: float = 0.0
) -> Iterator[_R]:
    """What a function makes of each item, in order; in threads, it sees the caller's context variables.

    Unlike those of `concurrent.futures`, threads that hang are left behind, at the end of the program too.

    Args:
        function: Safe to call from several threads.
        items: What it is given.
        num_workers: Threads; 0 calls it in this one, where nothing is left behind.
        timeout: Seconds in which one of the threads must be done with an item; 0: any time.

    Raises:
        TimeoutError: None was.

    >>> list(in_threads(str.upper, ["wren", "crow"], num_workers=2))
    ['WREN', 'CROW']
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    asked: _Asked = SimpleQueue()
    given: _Given = SimpleQueue()
    for _ in range(min(num_workers, len(items))):
        threading.Thread(target=_serve, args=(function, asked, given), daemon=True).start()
    try:
        yield from _in_order(items, asked, given, timeout)
    finally:
        while not asked.empty():
            asked.get()
        for _ in range(num_workers):
            asked.put(None)


def _serve(function: Callable[[Any], Any], asked: _Asked, given: _Given) -> None:
    while (task := asked.get()) is not None:
        context, place, item = task
        try:
            given.put((place, context.run(function, item), None))
        except BaseException as error:  # noqa: BLE001 - raised where the item is waited for
            given.put((place, None, error))


def _in_order(items: Sequence[Any], asked: _Asked, given: _Given, timeout: float) -> Iterator[Any]:
    """Ask for items, no more than `_NUM_QUEUED` ahead, and yield their outcomes."""
    outcomes: dict[int, tuple[Any, BaseException | None]] = {}
    num_asked = 0
    for place in range(len(items)):
        while num_asked < min(place + _NUM_QUEUED, len(items)):
            asked.put((copy_context(), num_asked, items[num_asked]))
            num_asked += 1
        while place not in outcomes:
            try:
                done, result, error = given.get(timeout=timeout or None)
            except Empty:
                raise TimeoutError(f"timed out after {timeout:g} seconds") from None
            outcomes[done] = result, error
        result, error = outcomes.pop(place)
        if error is not None:
            raise error
        yield result
