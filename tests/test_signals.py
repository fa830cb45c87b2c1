import os
import signal

import pytest

from ramstrans.distributed import SignalHandler
from ramstrans.errors import StoppedError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_kills_nothing(number):
    interrupts = SignalHandler()
    with interrupts.installed():
        assert interrupts.received == 0
        os.kill(os.getpid(), number)
        assert interrupts.received == number


def test_a_second_ctrl_c_stops_at_once():
    interrupts = SignalHandler()
    with interrupts.installed():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with SignalHandler().installed():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_work_that_saves_nothing_stops_after_it_has_told(number):
    interrupts, told = SignalHandler(), []
    progress = interrupts.checking(lambda *news: told.append(news), "go on with this")
    progress(1, 3, "evaluating")
    interrupts.received = number
    with pytest.raises(
        StoppedError, match=f"stopped by {number.name} while evaluating; go on with this"
    ) as caught:
        progress(2, 3, "evaluating")
    assert caught.value.exit_code == 128 + number
    assert told == [(1, 3, "evaluating"), (2, 3, "evaluating")]
