"""The one place where files are read: what fails for a moment is tried again, what hangs is given up."""

import errno
import io
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from itertools import count
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from ramstrans.data.config import DataConfig
from ramstrans.errors import DataError

TRANSIENT = frozenset(
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
_LOOK_SECONDS = 0.5
"""Between two looks at whether a read hangs."""

_T = TypeVar("_T")


class RetryPolicy:
    """How often a read is tried again, how often that was done, and what is being read.

    Args:
        retries: Times that one read is tried again.

    Attributes:
        num_retries: Repetitions so far, of all reads.
    """

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self.num_retries = 0
        self._under_way: dict[object, tuple[float, Path]] = {}

    @contextmanager
    def noting(self, path: Path) -> Iterator[None]:
        """Note that a file or folder is being read, and since when."""
        mark = object()
        self._under_way[mark] = time.monotonic(), path
        try:
            yield
        finally:
            del self._under_way[mark]

    def longest(self) -> tuple[float, Path]:
        """Seconds that the longest read under way has taken so far, and of what; 0 where there is none."""
        now = time.monotonic()
        began, path = min(list(self._under_way.values()), default=(now, Path()))  # a copy: threads change it
        return now - began, path


_patience: ContextVar[RetryPolicy | None] = ContextVar("patience", default=None)


@contextmanager
def retrying(retries: int) -> Iterator[RetryPolicy]:
    """Reads of this thread are tried again so many times, and counted by what is yielded.

    >>> with retrying(2) as given:
    ...     _ = retry(Path.cwd, Path("."))
    >>> given.num_retries
    0
    """
    given = RetryPolicy(retries)
    token = _patience.set(given)
    try:
        yield given
    finally:
        _patience.reset(token)


def retry(read: Callable[[], _T], path: Path, again: Callable[[], _T] | None = None) -> _T:
    """What a read gives; one that fails for a moment is tried again, after pauses that grow.

    Where nobody counts, outside `patience`, each repetition is warned of.

    Args:
        read: Raises OSError where it fails.
        path: The file or folder that it reads.
        again: What is done from the second time on; None: the same.

    Raises:
        OSError: It failed for good, or each time; says how often.

    >>> retry(lambda: b"wren", Path("wren.jpg"))
    b'wren'
    """
    given = _patience.get()
    counted = given or RetryPolicy(DataConfig.read_retries)
    for done in count():
        try:
            with counted.noting(path):
                return (again or read)() if done else read()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            if done == counted.retries:
                times = f"{error.strerror}, {done + 1} times in a row" if done else error.strerror
                raise OSError(error.errno, times, error.filename) from error
            _count(given, error)
        time.sleep(min(FIRST_PAUSE * PAUSE_GROWTH**done, LONGEST_PAUSE))
    raise AssertionError("the loop ends by return or raise")


def _count(given: RetryPolicy | None, error: OSError) -> None:
    if given is None:
        warnings.warn(f"a read is tried again: {error}", stacklevel=4)
    else:
        given.num_retries += 1


def is_file(path: Path) -> bool:
    """Whether there is such a file."""
    return retry(path.is_file, path)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder."""
    return retry(path.is_dir, path)


def with_timeout(read: Callable[[], _T], given: RetryPolicy, seconds: float) -> _T:
    """What comes of many reads, none of which may take too long; a thread that hangs is left behind.

    Args:
        read: Reads by `retry` or `open_retrying`, with this patience.
        given: Notes what is being read.
        seconds: Of one read; 0: any time.

    Raises:
        DataError: One took longer; names what it read.

    >>> with retrying(2) as given:
    ...     with_timeout(lambda: retry(lambda: "wren", Path("names.txt")), given, 1.0)
    'wren'
    """
    if seconds == 0:
        return read()
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(read())
        except BaseException as error:  # noqa: BLE001 - raised where the outcome is waited for
            outcome.set_exception(error)

    # A daemon: nobody waits at the end of the program for one that hangs.
    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    while not wait([outcome], _LOOK_SECONDS).done:
        taken, path = given.longest()
        if taken > seconds:
            raise DataError(
                f"{path}: timed out after {seconds:g} seconds; look for a file system that hangs, or give a "
                "longer --data.read_timeout"
            )
    return outcome.result()


def open_retrying(path: Path) -> BinaryIO:
    """A file opened for reading, which is opened again where it stood when a read fails for a moment.

    Raises:
        OSError: It cannot be opened.
    """
    return io.BufferedReader(_RetryingFile(path), _BUFFER_BYTES)


def read_array(path: Path) -> NDArray[np.uint8]:
    """(N,) uint8, the bytes of a file, in memory that may be written to."""
    with open_retrying(path) as stream:
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


class _RetryingFile(io.RawIOBase):
    """What `open_retrying` buffers. It has no `fileno`, past which its reads would go."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file = retry(lambda: path.open("rb", buffering=0), path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return retry(lambda: self._file.seek(offset, whence), self._path)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # any buffer, says typeshed
        place = self._file.tell()

        def again() -> int:
            reopen(self._path, self._file.fileno())
            self._file.seek(place)
            return self._file.readinto(buffer)

        return retry(lambda: self._file.readinto(buffer), self._path, again)

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        super().close()
