"""Which device to compute on, and how many processes do."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed

from ramstrans.errors import UsageError

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
    """What some work gives, done in the first process and told to all; each of them must call this.

    >>> from_first_process(lambda: 3)
    3
    """
    if num_processes() == 1:
        return work()
    found: list[T] = [work()] if process_index() == 0 else [None]  # type: ignore[list-item]
    torch.distributed.broadcast_object_list(found)
    return found[0]
