"""An ordered thread-pool map with a timeout; its threads end before the interpreter, unless they hang."""

import atexit
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from itertools import repeat
from queue import SimpleQueue
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

from ramstrans.cores import num_cores

NUM_THREADS = min(8, num_cores())
"""Default number of threads that decode files, which releases the GIL."""

MAX_AHEAD = 1024
"""Items whose results are computed before they are asked for: a million of them would take a gigabyte."""

SECONDS_TO_END, SECONDS_IF_ONE_HANGS = 5.0, 1.0
"""Seconds that threads may take to finish what they are doing before they are abandoned: one file, see
`check_wanted`."""

_T = TypeVar("_T")
_R = TypeVar("_R")

_Task = tuple[Future[Any], Any]


class _Worker(threading.Thread):
    """A thread that does the tasks of a queue until it is told to end.

    PyTorch releases the interpreter's lock while it computes and while it frees a tensor. A thread that asks
    for the lock back when the interpreter is ending is unwound by Python 3.11 to 3.13, and C++ aborts the
    process: "terminate called without an active exception". So every worker ends before.

    Args:
        function: What is done with each item.
        tasks: The queue that workers share.
    """

    started: ClassVar[WeakSet["_Worker"]] = WeakSet()

    def __init__(self, function: Callable[[Any], Any], tasks: "SimpleQueue[_Task | None]") -> None:
        super().__init__(daemon=True)
        self.function = function
        self.tasks = tasks
        self.is_told_to_end = False
        _Worker.started.add(self)

    def run(self) -> None:
        """Do the tasks; keep no result alive."""
        while (task := self.tasks.get()) is not None and not self.is_told_to_end:
            future, item = task
            try:
                future.set_result(self.function(item))
            except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
                future.set_exception(error)
            del task, future, item

    @staticmethod
    def end(workers: Iterable["_Worker"], seconds: float = SECONDS_TO_END) -> None:
        """Tell workers to end after what they are doing, and wait for them."""
        workers = [
            worker for worker in workers if worker.is_alive() and worker is not threading.current_thread()
        ]
        for worker in workers:
            worker.is_told_to_end = True
            worker.tasks.put(None)
        last = time.monotonic() + seconds
        for worker in workers:
            worker.join(max(last - time.monotonic(), 0))
            _Worker.started.discard(worker)


@atexit.register
def _end_all() -> None:
    """End the workers of results that nobody asked for any more but somebody still holds."""
    _Worker.end(tuple(_Worker.started))


def check_wanted() -> None:
    """Call this between the parts of a long task: raises if nobody waits for its result any more.

    Raises:
        CancelledError: In a thread of `in_threads` whose results were dropped.
    """
    thread = threading.current_thread()
    if isinstance(thread, _Worker) and thread.is_told_to_end:
        raise CancelledError


def in_threads(
    function: Callable[[_T], _R],
    items: Iterable[_T],
    num_workers: int,
    timeout: float = 0.0,
    *,
    max_ahead: int = MAX_AHEAD,
) -> Iterator[_R]:
    """Map a function over items in threads; yield the results in order.

    The threads end with the results, or when these are dropped, or with the program. Unlike those of
    `concurrent.futures`, threads that hang are abandoned.

    Args:
        function: Safe to call from several threads.
        items: Its arguments; may be endless.
        num_workers: Threads; 0 calls the function in this one, without a timeout.
        timeout: Seconds to wait for a result, see `parts_of`; 0 waits forever.
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
    workers = [_Worker(function, tasks) for _ in range(num_workers)]
    for worker in workers:
        worker.start()
    pending: deque[Future[_R]] = deque()
    seconds = SECONDS_TO_END
    try:
        for item in items:
            pending.append(Future())
            tasks.put((pending[-1], item))
            if len(pending) == max_ahead:
                yield _result(pending.popleft(), timeout)
        while pending:
            yield _result(pending.popleft(), timeout)
    except TimeoutError:
        seconds = SECONDS_IF_ONE_HANGS
        raise
    finally:
        if any(worker.is_alive() for worker in workers):  # not once this module is being taken apart
            _Worker.end(workers, seconds)


def _result(future: Future[_R], timeout: float) -> _R:
    if not timeout:
        return future.result()
    if not any(wait([future], part).done for part in parts_of(timeout)):
        raise TimeoutError(f"timed out after {timeout:g} seconds")
    return future.result()


def parts_of(seconds: float, longest: float = 1.0) -> Iterator[float]:
    """Parts of a wait, one after the other, all equal.

    While a process is stopped, by Ctrl-Z or with its machine, the clock goes on. What waits for several parts
    loses one then, not all.

    >>> list(parts_of(5, 2)), list(parts_of(0))
    ([1.6666666666666667, 1.6666666666666667, 1.6666666666666667], [0.0])
    """
    count = max(math.ceil(seconds / longest), 1)
    return repeat(seconds / count, count)
