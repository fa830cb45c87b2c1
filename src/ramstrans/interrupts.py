"""Ctrl-C and SIGTERM in commands, even where a library swallows the exception.

Python raises KeyboardInterrupt wherever the program stands. In a destructor, or in a callback whose caller
clears exceptions, it is lost, and the program goes on as if nothing had happened. So what came is remembered,
and raised again where a command reports progress.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_received: list[int] = []


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what is half written is to be cleared away, as after Ctrl-C."""


DEFAULTS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""The signals, and their handlers in a program that has set none of its own, which stay."""


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt and SIGTERM `Terminated` here, in the main thread.

    If that was swallowed, `check_interrupted` raises it once more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number, default in DEFAULTS.items() if signal.getsignal(number) == default]
    for number in ours:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, DEFAULTS[number])
        _received.clear()


def check_interrupted() -> None:
    """Raise again what was raised and swallowed; call this now and then in long work.

    Raises:
        KeyboardInterrupt: SIGINT had come.
        Terminated: SIGTERM had come.
    """
    if _received and threading.current_thread() is threading.main_thread():
        _raise(_received[-1])


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    _raise(number)


def _raise(number: int) -> None:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
