"""What keeps a loader from hanging, and its processes from dying before their time."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

from ramstrans.distributed import num_processes
from ramstrans.errors import DataError

SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
"""That ask a run to stop: the main process's business, wherever they are sent."""

PARENT_SECONDS = 1.0
"""Between two looks of a loader's process at whether the main one is still there."""

_CAN_WAIT = hasattr(signal, "sigtimedwait")  # neither on macOS nor on Windows
_MAX_NAMED = 4

_T = TypeVar("_T")


def start_method() -> str | None:
    """How `multiprocessing` starts a loader's processes: anew beside other processes, else as is its default.

    A fork copies one thread of a process, and every lock, held or not. Where several processes train
    together, threads of gloo or NCCL exchange their tensors: a lock that one of them holds just then stays
    locked in the copy for ever. PyTorch's documentation of DistributedDataParallel warns of that.
    """
    return "spawn" if num_processes() > 1 else None


@contextmanager
def block_signals() -> Iterator[None]:
    """Processes that are started inside are born deaf to `SIGNALS`; here those are heard afterwards."""
    if not _CAN_WAIT:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def init_worker(_worker: int) -> None:
    """In a loader's process: be deaf to `SIGNALS` but for the main process's own, and end with it.

    It sends SIGTERM to processes that do not end by themselves. A thread waits for that, so that it is obeyed
    where a read hangs too. On macOS and Windows SIGTERM stays as torch has it: whoever sends it, it ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _CAN_WAIT:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    main = multiprocessing.parent_process()
    assert main is not None, "this is a loader's process"
    while os.getppid() == main.pid:
        heard = signal.sigtimedwait({signal.SIGTERM}, PARENT_SECONDS)
        if heard is not None and heard.si_pid == main.pid:
            break
    os._exit(0)


def iter_with_timeout(items: Iterator[_T], seconds: float) -> Iterator[_T]:
    """The same items, each waited for so long at most: a thread gets them, and is left behind if it hangs.

    Raises:
        TimeoutError: One did not come in time.

    >>> list(iter_with_timeout(iter("abc"), 1.0))
    ['a', 'b', 'c']
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    given: SimpleQueue[tuple[list[_T], BaseException | None]] = SimpleQueue()

    def serve() -> None:
        while asked.get():
            try:
                given.put(([next(items)], None))
            except StopIteration:
                given.put(([], None))
            except BaseException as error:  # noqa: BLE001 - raised where the item is waited for
                given.put(([], error))

    # A daemon: nobody waits at the end of the program for one that hangs.
    threading.Thread(target=serve, daemon=True).start()
    try:
        while True:
            asked.put(True)
            try:
                item, error = given.get(timeout=seconds)
            except Empty:
                raise TimeoutError(f"timed out after {seconds:g} seconds") from None
            if error is not None:
                raise error
            if not item:
                return
            yield item[0]
    finally:
        asked.put(False)


@contextmanager
def worker_errors(under_way: Callable[[], list[str]] = list) -> Iterator[None]:
    """Name what happened to a loader; torch may raise it anywhere in the main process.

    Args:
        under_way: Tells which files are being read, to be named.

    Raises:
        DataError: A process of the loader has died, or a batch took too long.
    """
    try:
        yield
    except (RuntimeError, TimeoutError) as error:
        message = " ".join(str(error).split()).rstrip(".")
        if "timed out" in message:
            raise DataError(
                f"no batch came in time ({message}){_named(under_way())}; look for a file system that hangs, "
                "or give a longer --data.read_timeout"
            ) from error
        if "DataLoader worker" in message:
            raise DataError(
                f"a process of the loader died ({message}){_named(under_way())}; if memory ran out, give "
                "fewer --data.num_workers or another --data.cache"
            ) from error
        raise


def _named(files: list[str]) -> str:
    """What was read, for an error.

    >>> _named([]), _named(["a.jpg", "b.jpg"])
    ('', ' while reading a.jpg, b.jpg')
    """
    if not files:
        return ""
    more = f" and {len(files) - _MAX_NAMED} more" if len(files) > _MAX_NAMED else ""
    return f" while reading {', '.join(files[:_MAX_NAMED])}{more}"
