"""Ctrl-C that a library swallows is raised again at the next sign of progress, and where training begins."""

import os
import signal

import pytest

from ramstrans.console import no_progress, progress_bar, progress_lines
from ramstrans.distributed import SignalHandler
from ramstrans.interrupts import Terminated, check_interrupted, interruptible

SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


def swallowed(number):
    try:
        os.kill(os.getpid(), number)
        for _ in range(1000):  # the handler runs between two instructions
            pass
    except KeyboardInterrupt:
        return True
    return False


def begin_training():
    with SignalHandler().installed():
        pass


def with_bar():
    with progress_bar() as progress:
        progress(1, 2, "reading")


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "work",
    [
        check_interrupted,
        begin_training,
        with_bar,
        lambda: no_progress(1, 2, "reading"),
        lambda: progress_lines()(1, 2, "reading"),
    ],
)
def test_what_was_swallowed_is_raised_again(number, work):
    before = signal.getsignal(number)
    with interruptible():
        work()
        assert swallowed(number)
        with pytest.raises(SIGNALS[number]) as caught:
            work()
        assert type(caught.value) is SIGNALS[number]
    assert signal.getsignal(number) == before
    work()  # of the next command


def test_a_handler_of_the_program_itself_stays():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        with interruptible():
            assert not swallowed(signal.SIGTERM)
            check_interrupted()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
