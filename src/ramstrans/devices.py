"""Which device to compute on, and how many processes do."""

from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.distributed

from ramstrans.errors import RamsTransError, UsageError

T = TypeVar("T")


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


def num_processes() -> int:
    """How many processes work together; 1 without `accelerate launch` or `torchrun`."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def process_index() -> int:
    """Which of them this is, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def from_first_process(work: Callable[[], T]) -> T:
    """Return the result of work that only the first process does; every process must call this.

    Raises:
        Exception: The work failed. Every process raises, so that none waits for the first one.

    >>> from_first_process(lambda: 3)
    3
    """
    if num_processes() == 1:
        return work()
    found: T | None = None
    error: Exception | None = None
    if process_index() == 0:
        try:
            found = work()
        except Exception as raised:  # noqa: BLE001 - raised again below, in every process
            error = raised
    known = isinstance(error, RamsTransError)  # of others nobody knows whether they can be sent
    sent = [(found, error if known or error is None else RuntimeError(f"{type(error).__name__}: {error}"))]
    torch.distributed.broadcast_object_list(sent)
    result, failure = sent[0]
    if failure is not None:
        raise error or failure
    return cast(T, result)
