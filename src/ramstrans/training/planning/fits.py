"""How many images fit into the memory of each of several processes, and in how many parts."""

import math
from typing import NamedTuple

from ramstrans.training.planning.cost import StepCost

MARGIN = 0.1
"""Share of the memory that is left free: for the libraries' own, and for gaps between tensors."""


class Ground(NamedTuple):
    """What a step is taken on.

    Attributes:
        memory: Bytes that each process has.
        processes: How many there are.
        fsdp: Whether they share weights, gradients and the optimiser's state, or each has all.
        average: Whether an exponential moving average is kept.
    """

    memory: float
    processes: int = 1
    fsdp: bool = False
    ema: bool = False

    @property
    def usable(self) -> float:
        """Bytes that tensors may take."""
        return (1 - MARGIN) * self.memory

    def peak(self, cost: StepCost, images: int, parts: int = 1) -> float:
        """The most bytes of tensors that a process holds.

        DDP copies all gradients once more, into the buckets that it sends. FSDP gathers the weights outside
        of blocks for the whole step, and of blocks those that are computed, that come next and that are on
        their way, with the gradients of one; other gradients stay whole until the last pass of a step. All of
        it is in fp32 whatever the precision, and what autocast copies is among the activations.

        Args:
            cost: Of a step in one process.
            images: Of a process that pass at a time.
            parts: In which it takes the images of a step.
        """
        passing = cost.peak(images, parts)
        if not self.fsdp or self.processes == 1:
            buckets = cost.gradients if self.processes > 1 else 0
            return cost.weights * (1 + self.ema) + cost.state + buckets + passing
        full_state_dict = cost.root + 4 * cost.block
        kept = cost.weights * (1 + self.ema) + cost.state
        return kept / self.processes + full_state_dict + passing

    def parts(self, cost: StepCost, images_per_process: int) -> int | None:
        """The fewest parts in which a process's images of a step fit; None if not even one by one.

        Args:
            cost: Of a step in one process.
            images_per_process: Of the process, in a step.
        """
        for parts in range(1, images_per_process + 1):
            images = math.ceil(images_per_process / parts)
            if (
                math.ceil(images_per_process / images) == parts
                and self.peak(cost, images, parts) <= self.usable
            ):
                return parts
        return None

    def most_images(self, cost: StepCost) -> int:
        """How many images fit at a time, 0 for none, in steps of one part."""
        most, step = 0, 1
        while self.peak(cost, most + step) <= self.usable:
            most, step = most + step, 2 * step
        while step > 1:
            step //= 2
            if self.peak(cost, most + step) <= self.usable:
                most += step
        return most
