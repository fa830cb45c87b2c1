"""Image and list files are read here: transient errors are retried, each with a line in the log."""

import errno
import logging
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger(__name__)

TRANSIENT = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOTCONN),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ECONNABORTED, errno.ECONNRESET, errno.ECONNREFUSED),
    getattr(errno, "EREMOTEIO", errno.EIO),  # Linux alone has it
}
"""Errors of a network or file server that may be gone at the next attempt.

A bad sector of a local disk also raises EIO, permanently; its retries are wasted.
"""

PAUSES = (0.1, 0.4, 1.6, 6.4)
"""Seconds before each retry."""

_T = TypeVar("_T")


def retry(read: Callable[[], _T], path: Path) -> _T:
    """Call `read`, which reads the file `path`; after a transient error call it again, with growing pauses.

    Raises:
        OSError: A permanent error, or one that all retries met.

    >>> retry(lambda: b"wren", Path("wren.jpg"))
    b'wren'
    """
    for number, pause in enumerate(PAUSES, start=1):
        try:
            return read()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            logger.warning("%s: %s; retry %d of %d", path, error.strerror, number, len(PAUSES))
        time.sleep(pause)
    return read()


def open_retrying(path: Path) -> BufferedReader:
    """Open a file for reading; see `retry`."""
    return retry(lambda: path.open("rb"), path)
