"""Timing that a busy machine disturbs little: contestants in turn, ratios within a round, their median."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch


class Contestant(NamedTuple):
    """Something to be measured.

    Attributes:
        run: Does the work once.
        num_images: Images that one call deals with.
    """

    run: Callable[[], object]
    num_images: int


class Spread(NamedTuple):
    """The middle of many values: their median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, interpolated linearly.

    >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return Spread(median, low, high)


def interleave(
    contestants: Mapping[str, Contestant],
    num_rounds: int,
    *,
    warm_up: bool = True,
    wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Time every contestant once in each round, another one first each time.

    Args:
        contestants: By name.
        num_rounds: That count.
        warm_up: Whether to make a round before, which does not.
        wait: Returns when the device has done all that it was given.
        clock: In seconds.
        tick: Told after each call.

    Returns:
        For each contestant, the seconds of its calls, `num_rounds` of them.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1 if warm_up else 0, num_rounds):
        first = max(number, 0) % len(names)
        for name in names[first:] + names[:first]:
            wait()
            start = clock()
            contestants[name].run()
            wait()
            if number >= 0:
                seconds[name].append(clock() - start)
            tick()
    return seconds


def waiter(device: torch.device) -> Callable[[], None]:
    """What waits until a device is done; on a CPU every call is when it returns."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else lambda: None
