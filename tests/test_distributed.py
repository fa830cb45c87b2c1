"""Devices, signals and sharding; real collectives are in `tests/training/test_processes.py`."""

import os
import signal

import pytest
import torch
from torch import nn

from ramstrans.distributed import (
    SignalHandler,
    choose_device,
    from_first_process,
    full_state_dict,
    local_shard,
    materialize,
    process_index,
    to_meta,
)
from ramstrans.errors import StoppedError, UnreadableImageError, UsageError
from ramstrans.training.trainable import freeze_blocks
from tests.processes import start_ranks, wait_ranks
from tests.tiny import same_state, tiny_model


def test_auto_is_a_device_that_computes():
    assert torch.ones(3, device=choose_device("auto")).sum() == 3


@pytest.mark.parametrize("name", ["toaster", "cuda:997", "meta", ""])
def test_a_device_that_is_not_there_is_a_usage_error(name):
    with pytest.raises(UsageError, match="auto"):
        choose_device(name)


def ask_the_first(error):
    """The outcome of a process whose first one fails."""

    def work():
        assert process_index() == 0, "others must not work"
        if error:
            raise error
        return "found"

    torch.distributed.init_process_group("gloo")
    try:
        print(from_first_process(work))  # noqa: T201
    except Exception as raised:  # noqa: BLE001 - whatever it is
        print(type(raised).__name__, raised)  # noqa: T201
    torch.distributed.destroy_process_group()
    return 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "others"),
    [
        (None, "found"),
        (UnreadableImageError("a.jpg", "empty file"), "UnreadableImageError a.jpg: empty file"),
        (OSError(5, "Input/output error"), "RuntimeError OSError: [Errno 5] Input/output error"),
    ],
)
def test_an_error_of_the_first_process_is_raised_in_all(error, others):
    first, second = wait_ranks(start_ranks(2, ask_the_first, error))
    assert first.stdout.strip() == (f"{type(error).__name__} {error}" if error else "found")
    assert second.stdout.strip() == others


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_recorded_and_kills_nothing(number):
    signals = SignalHandler()
    with signals.installed():
        assert signals.received == 0
        os.kill(os.getpid(), number)
        assert signals.received == number


def test_a_second_ctrl_c_stops_at_once():
    signals = SignalHandler()
    with signals.installed():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with SignalHandler().installed():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_work_that_saves_nothing_stops_after_its_progress(number):
    signals, calls = SignalHandler(), []
    progress = signals.checking(lambda *call: calls.append(call), "go on with this")
    progress(1, 3, "evaluating")
    signals.received = number
    with pytest.raises(
        StoppedError, match=f"stopped by {number.name} while evaluating; go on with this"
    ) as caught:
        progress(2, 3, "evaluating")
    assert caught.value.exit_code == 128 + number
    assert calls == [(1, 3, "evaluating"), (2, 3, "evaluating")]


def test_a_meta_copy_holds_nothing_and_materialises_with_the_weights_themselves():
    model = tiny_model()
    freeze_blocks(model, 1)
    empty = to_meta(model)
    assert all(parameter.is_meta for parameter in empty.parameters())
    twin = materialize(empty, model.state_dict())
    assert same_state(twin.state_dict(), model.state_dict())
    assert all(parameter.is_meta for parameter in empty.parameters())  # for the next one
    for own, other in zip(twin.parameters(), model.parameters(), strict=True):
        assert own.data_ptr() == other.data_ptr()
        assert own.requires_grad == other.requires_grad


def test_a_materialised_model_is_the_same_function():
    model = tiny_model().eval()
    twin = materialize(to_meta(model), model.state_dict()).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(twin(images).scales[1].logits, model(images).scales[1].logits)


def test_whole_tensors_stay_as_they_are():
    tensor = torch.ones(3)
    assert full_state_dict({"weight": tensor})["weight"] is local_shard(tensor) is tensor


def test_a_buffer_outside_the_state_dict_is_our_own_mistake():
    model = nn.Linear(2, 2)
    model.register_buffer("table", torch.ones(2), persistent=False)
    with pytest.raises(AssertionError, match="not in the state dict"):
        materialize(to_meta(model), model.state_dict())
