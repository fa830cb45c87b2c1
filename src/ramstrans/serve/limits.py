"""What a server accepts, and the errors of what it does not."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ramstrans.errors import UsageError
from ramstrans.plain import counted, utf8_text

if TYPE_CHECKING:  # options are checked without it
    from fastapi import HTTPException

BODIES = 8
"""All bodies together may have so many times the bytes of one."""


class Limits(NamedTuple):
    """What a server accepts.

    Attributes:
        max_batch: Images that pass through the model at once.
        max_wait: Seconds that a batch waits for more images.
        max_images: Images per request.
        max_queue: Images of all requests that are not answered yet.
        max_bytes: Bytes per request.
        timeout: Seconds for a request to arrive, and again for its answer.
    """

    max_batch: int = 32
    max_wait: float = 0.02
    max_images: int = 64
    max_queue: int = 256
    max_bytes: int = 32_000_000
    timeout: float = 30.0

    def check(self) -> None:
        """Raise unless the queue holds a whole request, and times have an end.

        Raises:
            UsageError: They do not.
        """
        for name in ("max_wait", "timeout"):
            if not math.isfinite(seconds := getattr(self, name)):
                raise UsageError(f"--{name} is {seconds}; give seconds, e.g. {getattr(Limits(), name)}")
        if self.max_images > self.max_queue:
            raise UsageError(
                f"--max_images is {self.max_images}, more than --max_queue {self.max_queue}: such a request "
                "would never be accepted; give more of the queue"
            )


def problem(status: int, text: str, headers: Mapping[str, str] | None = None) -> "HTTPException":
    """An answer that is an error: `{"detail": text}`."""
    from fastapi import HTTPException

    return HTTPException(status, utf8_text(" ".join(text.split())), dict(headers or {}))


class Gate:
    """Counts the images and bytes of all requests that are not answered yet, and refuses what is too many."""

    def __init__(self, limits: Limits) -> None:
        self.num_images = self.num_bytes = 0
        self._max_images, self._max_bytes = limits.max_queue, BODIES * limits.max_bytes

    @contextmanager
    def entered(self) -> Iterator[Callable[[int, int], None]]:
        """A function that adds images and bytes to a request; all are taken off at the end.

        Raises:
            HTTPException: 503, from the function.
        """
        images = size = 0

        def add(more_images: int, more_bytes: int) -> None:
            nonlocal images, size
            if self.num_images + more_images > self._max_images:
                waiting = counted(self.num_images, "image")
                raise self._full(f"{waiting} of {self._max_images} allowed are waiting for their answers")
            if self.num_bytes + more_bytes > self._max_bytes:
                raise self._full(f"requests of {self.num_bytes:,} bytes are being received")
            images, size = images + more_images, size + more_bytes
            self.num_images += more_images
            self.num_bytes += more_bytes

        try:
            yield add
        finally:
            self.num_images -= images
            self.num_bytes -= size

    @staticmethod
    def _full(why: str) -> "HTTPException":
        return problem(503, f"too busy: {why}; try again in a second", {"Retry-After": "1"})
