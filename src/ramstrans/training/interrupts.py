"""Signals that ask a run to stop: taken note of, and obeyed between two steps or batches."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ramstrans.data.loading.loader import SIGNALS
from ramstrans.errors import StoppedError


class SignalHandler:
    """Which signal has come, if any.

    Attributes:
        received: Its number, 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take note of signals instead of dying by them; a second Ctrl-C stops at once all the same."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def checking(
        self, progress: Callable[[int, int, str], None], how_to_go_on: str
    ) -> Callable[[int, int, str], None]:
        """The same progress; it raises StoppedError once a signal has come. For work that saves nothing."""

        def told(done: int, total: int, what: str) -> None:
            progress(done, total, what)
            if self.received:
                name = signal.Signals(self.received).name
                raise StoppedError(f"stopped by {name} while {what}; {how_to_go_on}", self.received)

        return told

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == number:
            raise KeyboardInterrupt
        self.received = number
