"""The one place where bytes of photographs are read: what fails for a moment is tried again, and counted."""

import errno
import io
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from ramstrans.data.config import DataConfig

MOMENTARY = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "EREMOTEIO", "ETIMEDOUT", "EAGAIN", "ENOTCONN"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ECONNABORTED", "ECONNRESET", "ECONNREFUSED"),
    )
    if hasattr(errno, name)  # not every system has all
)
"""Errors that may be gone the next time: those of a network, or of a file server that starts anew.

Local disks have EIO too, for good where a sector is damaged: the pauses are then lost. What says that a
file is not there, or not allowed, or that there are too many, is no matter of time. Python itself repeats
calls that a signal interrupts (EINTR).
"""

FIRST_PAUSE = 0.1
"""Seconds before the first repetition; each further pause is `PAUSE_GROWTH` times as long."""
PAUSE_GROWTH = 4
LONGEST_PAUSE = 30.0

_BUFFER_BYTES = 1 << 16

_T = TypeVar("_T")


class Patience:
    """How often a read is tried again, and how often that was done.

    Args:
        retries: Times that one read is tried again.

    Attributes:
        num_retries: Repetitions so far, of all reads.
    """

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self.num_retries = 0


_patience: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patience(retries: int) -> Iterator[Patience]:
    """Reads of this thread are tried again so many times, and counted by what is yielded.

    >>> with patience(2) as given:
    ...     _ = patiently(lambda: 3)
    >>> given.num_retries
    0
    """
    given = Patience(retries)
    token = _patience.set(given)
    try:
        yield given
    finally:
        _patience.reset(token)


def patiently(read: Callable[[], _T], again: Callable[[], _T] | None = None) -> _T:
    """What a read gives; one that fails for a moment is tried again, after pauses that grow.

    Where nobody counts, outside `patience`, each repetition is warned of.

    Args:
        read: Raises OSError where it fails.
        again: What is done from the second time on; None: the same.

    Raises:
        OSError: It failed for good, or each time; says how often.

    >>> patiently(lambda: b"wren")
    b'wren'
    """
    given = _patience.get()
    retries = DataConfig.read_retries if given is None else given.retries
    for done in count():
        try:
            return (again or read)() if done else read()
        except OSError as error:
            if error.errno not in MOMENTARY:
                raise
            if done == retries:
                times = f"{error.strerror}, {done + 1} times in a row" if done else error.strerror
                raise OSError(error.errno, times, error.filename) from error
            _count(given, error)
        time.sleep(min(FIRST_PAUSE * PAUSE_GROWTH**done, LONGEST_PAUSE))
    raise AssertionError("the loop ends by return or raise")


def _count(given: Patience | None, error: OSError) -> None:
    if given is None:
        warnings.warn(f"a read is tried again: {error}", stacklevel=4)
    else:
        given.num_retries += 1


def open_steadily(path: Path) -> BinaryIO:
    """A file opened for reading, which is opened again where it stood when a read fails for a moment.

    Raises:
        OSError: It cannot be opened.
    """
    return io.BufferedReader(_Steady(path), _BUFFER_BYTES)


def read_array(path: Path) -> NDArray[np.uint8]:
    """(N,) uint8, the bytes of a file, in memory that may be written to."""
    with open_steadily(path) as stream:
        content = np.empty(stream.seek(0, os.SEEK_END), np.uint8)
        stream.seek(0)
        num_bytes = stream.readinto(content)  # type: ignore[attr-defined] # BufferedReader has it
    return content[:num_bytes]


def reopen(path: Path, descriptor: int) -> None:
    """Let a descriptor stand for the file anew, as after ESTALE the old one never works again."""
    fresh = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        os.dup2(fresh, descriptor, inheritable=False)
    finally:
        os.close(fresh)


class _Steady(io.RawIOBase):
    """What `open_steadily` buffers. It has no `fileno`, past which its reads would go."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file = patiently(lambda: path.open("rb", buffering=0))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return patiently(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # any buffer, says typeshed
        place = self._file.tell()

        def again() -> int:
            reopen(self._path, self._file.fileno())
            self._file.seek(place)
            return self._file.readinto(buffer)

        return patiently(lambda: self._file.readinto(buffer), again)

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        super().close()
