"""Devices, precision, and what several processes do together."""

import copy
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from types import FrameType
from typing import TypeVar, cast

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ramstrans.console import Progress
from ramstrans.errors import RamsTransError, StoppedError, UsageError
from ramstrans.interrupts import check_interrupted

T = TypeVar("T")
Model = TypeVar("Model", bound=nn.Module)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Data types by the name of the precision."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What clusters send before they take a machine away, and Ctrl-C."""


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is the first GPU, else Apple's, else the CPU.

    Raises:
        UsageError: No such device here.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device '{name}' is not known; give auto, cpu, cuda, cuda:1 or mps") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise UsageError(
            f"device '{name}' is not there; `ramstrans doctor` lists what is, `auto` takes the best"
        )
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass in `fp32` (no autocast), `bf16` or `fp16`."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has units for bf16; a CPU without takes about ten times longer than in fp32."""
    if device.type != "cpu":
        return True
    has_library = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(has_library and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work; CPU calls return when they are done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def num_processes() -> int:
    """How many processes work together; 1 without `accelerate launch` or `torchrun`."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def process_index() -> int:
    """Index of this process, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def from_first_process(work: Callable[[], T]) -> T:
    """Do some work in the first process and return its result in all; each process must call this.

    Raises:
        Exception: The work failed; as by `agree`.

    >>> from_first_process(lambda: 3)
    3
    """
    results: list[T | None] = [None]

    def work_if_first() -> None:
        if process_index() == 0:
            results[0] = work()

    agree(work_if_first)
    if num_processes() > 1:
        torch.distributed.broadcast_object_list(results)
    return cast(T, results[0])


def agree(work: Callable[[], None]) -> None:
    """Do one process's part of common work; if it fails in any process, raise in all, so that none waits.

    Raises:
        Exception: The work failed here, or elsewhere; as a RuntimeError then, unless it is a RamsTransError.
    """
    error: Exception | None = None
    try:
        work()
    except Exception as raised:  # noqa: BLE001 - raised again below, here and elsewhere
        error = raised
    errors: list[Exception | None] = [_sendable(error)] * num_processes()
    if len(errors) > 1:
        torch.distributed.all_gather_object(errors, _sendable(error))
    error = error or next((other for other in errors if other is not None), None)
    if error is not None:
        raise error


def _sendable(error: Exception | None) -> Exception | None:
    """The error, or for one that is not ours, and perhaps cannot be pickled, one with its message."""
    if error is None or isinstance(error, RamsTransError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def to_meta(model: Model) -> Model:
    """A copy of a model without its weights, which takes no memory; to be given some by `materialize`.

    Args:
        model: Not yet sharded: FSDP2's cannot be copied.
    """
    return copy.deepcopy(model).to("meta")


def materialize(empty: Model, state: Mapping[str, Tensor]) -> Model:
    """A model of its own with these weights themselves, not copies of them; what is frozen stays frozen.

    Args:
        empty: From `to_meta`; stays empty.
        state: All weights and buffers, whole or sharded.
    """
    model = copy.deepcopy(empty)
    model.load_state_dict(state, assign=True)
    missing = [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_meta]
    assert not missing, "a buffer is not in the state dict"
    return model


def full_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors in place of shards, on their device; every process calls this together."""
    return {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in state.items()
    }


def local_shard(tensor: Tensor) -> Tensor:
    """What this process has of a tensor, with the same memory; all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class SignalHandler:
    """Records SIGTERM and SIGINT, to be acted on between steps.

    Attributes:
        received: Number of the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Record signals instead of dying of them; a second Ctrl-C stops at once all the same."""
        check_interrupted()
        before = {number: signal.signal(number, self._record) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def checking(self, progress: Progress, how_to_go_on: str) -> Progress:
        """The same progress, raising StoppedError once a signal has come; for work that saves nothing."""

        def checked(done: int, total: int, what: str) -> None:
            progress(done, total, what)
            if self.received:
                name = signal.Signals(self.received).name
                raise StoppedError(f"stopped by {name} while {what}; {how_to_go_on}", self.received)

        return checked

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == number:
            raise KeyboardInterrupt
        self.received = number
