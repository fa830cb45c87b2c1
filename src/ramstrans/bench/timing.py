"""Timing on a busy machine: candidates take turns, so that ratios within a round are robust."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ramstrans.console import Progress, no_progress
from ramstrans.distributed import synchronize


class Candidate(NamedTuple):
    """Something to time.

    Attributes:
        run: A call that does the work once.
        num_images: Images per call.
    """

    run: Callable[[], object]
    num_images: int


class Quartiles(NamedTuple):
    """Median and quartiles of many values."""

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Compute median and quartiles, interpolated linearly.

    >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
    Quartiles(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return Quartiles(median, low, high)


def interleave(
    candidates: Mapping[str, Candidate],
    num_rounds: int,
    device: torch.device,
    *,
    warm_up: bool = True,
    progress: Progress = no_progress,
) -> dict[str, list[float]]:
    """Time every candidate once per round; each round starts with a different one.

    Args:
        candidates: Candidates by name.
        num_rounds: Number of timed rounds.
        device: The device that they compute on; synchronised before and after each call.
        warm_up: Whether to run an untimed round first.
        progress: Called after each round.

    Returns:
        `num_rounds` times in seconds for each candidate.
    """
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1 if warm_up else 0, num_rounds):
        first = max(number, 0) % len(names)
        for name in names[first:] + names[:first]:
            synchronize(device)
            start = time.perf_counter()
            candidates[name].run()
            synchronize(device)
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
        progress(number + 1, num_rounds, "timing")
    return seconds
