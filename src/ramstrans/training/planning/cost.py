"""What a training step costs in memory and time: measured on few images, told for any number of them.

A step goes through the same phases whatever the number of its images, and what each phase holds is linear
in that number, so steps of two sizes determine it. Which phase holds the most may change with the number: all
are told, and the highest counts.

    start     the batch is normalised
    look      of each look: embedding and blocks
    rollout   of each look: with the queries and keys of all blocks
    head      of each look: head and region
    loss      of each look: loss, and backward until the gradient comes to the last block
    blocks    of each look: backward through the last block, and through the first one and the embedding;
              between them activations go as gradients come, at an even rate: the most is at an end
    update    the optimiser
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ramstrans.data.loading.dataset import Batch
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.memory import phase_peaks
from ramstrans.training.config import TrainingConfig

if TYPE_CHECKING:
    from ramstrans.training.step import TrainStep

LEAST_TOKENS = 1200
"""Of a step whose memory is counted: with fewer, kernels and the rollout's tiles are still growing."""
NUM_REPEATS = 3
"""Of a step that is timed by itself."""
LONG = 1.0
"""Seconds of a step on a CPU beside which the counting of its memory takes no time."""


class StepCost(NamedTuple):
    """What a step takes in one process.

    Attributes:
        weights: Bytes of weights and buffers.
        state: Bytes of the optimiser's state.
        gradients: Bytes of the gradients of all trained weights.
        block: Bytes of the weights of one block, the largest.
        embedding: Bytes of the weights of the patch embedding.
        root: Bytes of all weights outside of blocks.
        image: Bytes of a normalised image and its source, which are held for a whole step.
        phases: (K, 3), of each phase the bytes of gradients that are there when it begins, other bytes
            whatever the number of images, and bytes an image.
        seconds_an_image: Of forward and backward.
        seconds_an_update: Of the optimiser.
    """

    weights: float
    state: float
    gradients: float
    block: float
    embedding: float
    root: float
    image: float
    phases: np.ndarray
    seconds_an_image: float
    seconds_an_update: float

    def peak(self, images: int, parts: int = 1) -> float:
        """The most bytes that a step holds at a time beside weights and optimiser state.

        Args:
            images: That pass at a time, 1 or more.
            parts: Parts in which the step takes its images; from the second one on all gradients are there.

        >>> phases = np.array([[0.0, 5.0, 10.0], [40.0, 1.0, 8.0]])
        >>> cost = StepCost(40, 80, 40, 10, 1, 10, 3, phases, 0.5, 0.25)
        >>> cost.peak(1), cost.peak(30), cost.peak(30, parts=3)
        (49.0, 305.0, 525.0)
        """
        there, fixed, an_image = self.phases.T
        held = there if parts == 1 else self.gradients
        return float((held + fixed + an_image * images).max()) + (parts - 1) * images * self.image

    def seconds(self, images: int) -> float:
        """Of a step of that many images, in however many parts."""
        return images * self.seconds_an_image + self.seconds_an_update


def in_one_part(config: TrainingConfig, **changes: Any) -> TrainingConfig:  # noqa: ANN401 - of any field
    """A recipe that takes a step in one part, perhaps with other changes; warns of nothing again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dataclasses.replace(config, gradient_accumulation_steps=1, **changes)


def counted_sizes(least_tokens: int) -> tuple[int, int]:
    """Images of the two steps whose memory is counted: few, but more than one, which is a special case.

    Args:
        least_tokens: Tokens of an image in the look that has the fewest.

    >>> counted_sizes(786), counted_sizes(198)
    ((2, 3), (7, 10))
    """
    few = max(2, math.ceil(LEAST_TOKENS / least_tokens))
    return few, few + max(1, few // 2)


def measure_step(
    stepper: "TrainStep",
    batch: Batch,
    preprocessing: Preprocessing,
    sizes: tuple[int, int],
    least_timed: int = 1,
) -> StepCost:
    """Take steps and count; the weights change.

    Args:
        stepper: Of one process, its recipe `in_one_part`.
        batch: Images to repeat as needed.
        preprocessing: Mean and standard deviation of the model's input.
        sizes: Images of the two steps whose memory is counted, increasing.
        least_timed: Images of the step that is timed, at least; on a GPU enough to fill it.
    """
    assert stepper.config.gradient_accumulation_steps == 1, "images at a time are what is counted"
    model, device = stepper.model, stepper.accelerator.device
    make_state(stepper.optimizer)
    few, many = (Count.of(stepper, repeated(batch, size), preprocessing) for size in sizes)
    an_image = (many.held - few.held) / (sizes[1] - sizes[0])
    timed, num_timed = many.timing, sizes[1]
    if device.type != "cpu" or timed.whole < LONG:
        num_timed = max(num_timed, least_timed)
        images = repeated(batch, num_timed)
        timed = min(take(stepper, images, preprocessing) for _ in range(NUM_REPEATS))
    vit = model.backbone.vit
    blocks = [num_bytes(block.parameters()) for block in vit.blocks]
    return StepCost(
        weights=num_bytes(model.parameters()) + num_bytes(model.buffers()),
        state=num_bytes(state_tensors(stepper.optimizer)),
        gradients=num_bytes(p for p in model.parameters() if p.requires_grad),
        block=max(blocks),
        embedding=num_bytes(vit.patch_embed.parameters()),
        root=num_bytes(model.parameters()) - sum(blocks),
        image=sum(4 * view[0].numel() for view in (batch.images, batch.high_res) if view is not None),
        phases=np.stack([many.gradients, few.held - sizes[0] * an_image, an_image], axis=1),
        seconds_an_image=(timed.whole - timed.update) / num_timed,
        seconds_an_update=timed.update,
    )


class Timing(NamedTuple):
    """Seconds of a step, and of its last phase."""

    whole: float
    update: float


class Count(NamedTuple):
    """What was counted in one step.

    Attributes:
        gradients: (K,) bytes of gradients that are there when each phase begins.
        held: (K,) the most bytes beside them that are held in it.
        timing: Of the step.
    """

    gradients: np.ndarray
    held: np.ndarray
    timing: Timing

    @classmethod
    def of(cls, stepper: "TrainStep", batch: Batch, preprocessing: Preprocessing) -> "Count":
        """Count one step."""
        kinds, gradients, timings = ["start"], [0], []

        def run(mark: Callable[[], None]) -> None:
            def note(kind: str) -> None:
                mark()
                kinds.append(kind)
                gradients.append(num_bytes(p.grad for p in stepper.model.parameters() if p.grad is not None))

            timings.append(take(stepper, batch, preprocessing, note))

        peaks = phase_peaks(run, stepper.accelerator.device)
        places = kept_phases(kinds)
        there = np.array(gradients, float)[places]
        return cls(there, np.array(peaks, float)[places] - there, timings[0])


def kept_phases(kinds: Iterable[str]) -> list[int]:
    """Places of the phases that are told: of blocks in a row the first and the last, even if they are one.

    >>> kept_phases(["start", "look", "block", "block", "block", "look", "block", "update"])
    [0, 1, 2, 4, 5, 6, 6, 7]
    """
    kept: list[int] = []
    for kind, group in groupby(enumerate(kinds), key=lambda entry: entry[1]):
        places = [place for place, _ in group]
        kept += [places[0], places[-1]] if kind == "block" else places
    return kept


def take(
    stepper: "TrainStep",
    batch: Batch,
    preprocessing: Preprocessing,
    note: Callable[[str], None] = lambda _: None,
) -> Timing:
    """Take a step; tell where each of its phases begins, but the first."""
    device = stepper.accelerator.device
    update = 0.0

    def begin(kind: str) -> None:
        nonlocal update
        if kind == "update":
            update = moment(device)
        note(kind)

    start = moment(device)
    with watched(stepper, begin):
        stepper.take(batch, preprocessing)
    end = moment(device)
    return Timing(end - start, end - update if update else 0.0)


def moment(device: torch.device) -> float:
    """Seconds of a clock, when the device has done all that it was given.

    On a CPU those of this process's threads, so that others, who come and go, do not slow it down.
    """
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def watched(stepper: "TrainStep", begin: Callable[[str], None]) -> Iterator[None]:
    """Call `begin` where a phase begins: with `look`, `rollout`, `head`, `loss`, `block` or `update`."""
    backbone = stepper.model.backbone

    def watch_gradient(_block: nn.Module, _inputs: Any, output: Tensor) -> None:  # noqa: ANN401 - a hook's
        if output.requires_grad:
            output.register_hook(lambda _: begin("block"))  # type: ignore[no-untyped-call]

    handles = [block.register_forward_hook(watch_gradient) for block in backbone.vit.blocks]
    handles.append(backbone.register_forward_pre_hook(lambda *_: begin("look")))
    handles.append(backbone.register_forward_hook(lambda *_: begin("rollout")))
    handles.append(backbone.vit.head.register_forward_pre_hook(lambda *_: begin("head")))
    handles.append(stepper.look.register_forward_hook(lambda *_: begin("loss")))
    optimizer = plain(stepper.optimizer)
    handles.append(optimizer.register_step_pre_hook(lambda *_: begin("update")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def plain(optimizer: Optimizer) -> Optimizer:
    """The optimiser that Accelerate has wrapped."""
    inner: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def make_state(optimizer: Optimizer) -> None:
    """Have the optimiser's state there, as after any first step."""
    inner = plain(optimizer)
    for parameter in (parameter for group in inner.param_groups for parameter in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    inner.step()
    optimizer.zero_grad()


def state_tensors(optimizer: Optimizer) -> Iterator[Tensor]:
    """All that the optimiser remembers."""
    for values in plain(optimizer).state.values():
        yield from (value for value in values.values() if isinstance(value, Tensor))


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of all of them.

    >>> num_bytes([torch.zeros(3), torch.zeros(2, dtype=torch.bfloat16)])
    16
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def repeated(batch: Batch, count: int) -> Batch:
    """A batch of that many images, of those of another over and over."""
    places = torch.arange(count) % len(batch.labels)
    return Batch(
        batch.images[places],
        None if batch.high_res is None else batch.high_res[places],
        batch.labels[places],
        batch.indices[places],
        tuple(batch.geometries[place] for place in places.tolist()) if batch.geometries else (),
        batch.original_sizes[places],
        (count, count),
    )


def deeper(first: StepCost, second: StepCost, depths: tuple[int, int], depth: int) -> StepCost:
    """The cost of a model of any depth from that of two others, blocks alike.

    Memory is linear in the number of blocks, phase by phase. Time is taken from the second one alone, as a
    difference of two times is little more than noise: it goes with the weights that a token meets, that of an
    update with all trained ones.

    Args:
        first: Of the model of `depths[0]` blocks.
        second: Of the model of `depths[1]` blocks.
        depths: Increasing.
        depth: Blocks of the model that is asked for.
    """
    share = (depth - depths[0]) / (depths[1] - depths[0])
    pairs: Iterable[tuple[Any, Any]] = zip(first, second, strict=True)
    memory = StepCost(*(low + share * (high - low) for low, high in pairs))
    embedding = second.embedding / second.block
    longer = (depth + embedding) / (depths[1] + embedding)
    return memory._replace(
        seconds_an_image=second.seconds_an_image * longer,
        seconds_an_update=second.seconds_an_update * memory.gradients / second.gradients,
    )
