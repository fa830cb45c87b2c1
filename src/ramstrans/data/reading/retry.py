"""Image and list files are opened here: transient errors are retried, each with a line in the log."""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from ramstrans.data.config import DataConfig

logger = logging.getLogger(__name__)

TRANSIENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "EREMOTEIO", "ETIMEDOUT", "EAGAIN", "ENOTCONN"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ECONNABORTED", "ECONNRESET", "ECONNREFUSED"),
    )
    if hasattr(errno, name)  # not every system has all of them
)
"""Errors of a network or file server that may be gone at the next attempt.

A bad sector of a local disk also raises EIO, permanently; its retries are wasted.
"""

FIRST_PAUSE, PAUSE_GROWTH, LONGEST_PAUSE = 0.1, 4, 30.0
"""Seconds before the first retry; each further pause is `PAUSE_GROWTH` times as long, up to the longest."""

_T = TypeVar("_T")


@dataclass
class Reads:
    """How often reads are retried, and which one began last.

    Attributes:
        retries: Retries of one read.
        path: File of the newest read; None before the first.
        started: When it began, by `time.monotonic`.
    """

    retries: int
    path: Path | None = None
    started: float = 0.0


_default = Reads(DataConfig.read_retries)
_current: ContextVar[Reads | None] = ContextVar("reads", default=None)


def current_reads() -> Reads:
    """The reads of the enclosing `retrying` block, or those outside all blocks."""
    return _current.get() or _default


@contextmanager
def retrying(retries: int) -> Iterator[Reads]:
    """Retry reads inside this block so often; it holds for this thread and those of `in_threads`.

    >>> with retrying(2) as reads:
    ...     open_retrying(Path(__file__)).close()
    >>> reads.path == Path(__file__)
    True
    """
    token = _current.set(reads := Reads(retries))
    try:
        yield reads
    finally:
        _current.reset(token)


def retry(read: Callable[[], _T], path: Path) -> _T:
    """Call `read`, which reads the file `path`; after a transient error call it again, with growing pauses.

    Raises:
        OSError: A permanent error, or the last of too many transient ones; its text says how many.

    >>> retry(lambda: b"wren", Path("wren.jpg"))
    b'wren'
    """
    reads, pause, failures = current_reads(), FIRST_PAUSE, 0
    while True:
        reads.path, reads.started = path, time.monotonic()
        try:
            return read()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            failures += 1
            if failures > reads.retries:
                times = f", {failures} times in a row" if failures > 1 else ""
                raise OSError(error.errno, f"{error.strerror}{times}", error.filename) from error
            logger.warning(
                "%s: %s; retry %d of %d in %g s", path, error.strerror, failures, reads.retries, pause
            )
        time.sleep(pause)
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE)


def open_retrying(path: Path) -> BufferedReader:
    """Open a file for reading; see `retry`."""
    return retry(lambda: path.open("rb"), path)
