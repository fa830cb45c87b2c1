"""Rank backbones and image sizes by what fits into time and memory, by a few real training steps of each.

Of what fits, more multiply-adds are expected to be better: larger backbones and larger images are, in
published comparisons on ImageNet and on fine-grained sets. That is a rule of thumb, not a measurement of
accuracy.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import timm
import torch
from accelerate.utils.memory import clear_device_cache
from torch.utils.flop_counter import FlopCounterMode

from ramstrans.console import Progress, format_duration, no_progress
from ramstrans.data.records import Split
from ramstrans.errors import TrainingError, UsageError
from ramstrans.models.backbones import build_backbone
from ramstrans.models.config import ModelConfig
from ramstrans.training.config import RunConfig
from ramstrans.training.folds import is_cross_validation
from ramstrans.training.memory import format_bytes
from ramstrans.training.plan import (
    MARGIN,
    Candidate,
    Measurement,
    can_checkpoint,
    measure,
    num_passes,
    resources,
)

BACKBONES = (
    "vit_large_patch16_224.augreg_in21k",
    "vit_base_patch16_224.augreg_in21k",
    "deit_base_patch16_224",
    "vit_small_patch16_224.augreg_in21k",
    "deit_small_patch16_224",
    "deit_tiny_patch16_224",
)
"""Candidates: plain ViTs of every usual size. Of two that compute the same, the first one is ranked first: it
has seen the 14 million images of ImageNet-21k (https://arxiv.org/abs/2106.10270), DeiT the 1.3 million of
ImageNet-1k (https://arxiv.org/abs/2012.12877)."""

IMAGE_SIZES = (224, 448)
"""Candidates: the side that the backbones were trained with, and twice that."""

HOPELESS = 1.5
"""Candidates are not measured if the speed of a smaller one predicts more than so many times the time."""


class Choice(NamedTuple):
    """A backbone with an image size.

    Attributes:
        backbone: Its name in timm.
        image_size: Side of the input in pixels.
        macs: Multiply-adds of a forward pass of an image through all scales, without the rollouts.
        num_parameters: Of the plain ViT.
    """

    backbone: str
    image_size: int
    macs: int
    num_parameters: int


class Judged(NamedTuple):
    """A choice and whether it fits.

    Attributes:
        choice: The backbone and the image size.
        reason: Why it does not fit, in words; empty if it does.
        seconds: Of the whole run; None if that is not known.
        seconds_per_image: Of a training step; None if it was not measured.
        peak: Bytes of the largest step that fits, or what is needed at least; None if that is not known.
        micro_batch: Images in that step; 0: none fits, or not measured.
        gradient_checkpointing: Whether that step recomputes blocks.
    """

    choice: Choice
    reason: str = ""
    seconds: float | None = None
    seconds_per_image: float | None = None
    peak: float | None = None
    micro_batch: int = 0
    gradient_checkpointing: bool = False


class Ranking(NamedTuple):
    """What fits and what does not.

    Attributes:
        device: The device that measured.
        time: Seconds that the run may take.
        memory: Bytes that each process may use.
        images: Images per step of one process.
        judged: What fits, best first, then the rest, by falling multiply-adds.
    """

    device: torch.device
    time: float
    memory: float
    images: int
    judged: tuple[Judged, ...]

    def best(self) -> Judged:
        """The first one that fits.

        Raises:
            TrainingError: None fits.
        """
        if self.judged[0].reason:
            raise TrainingError(
                f"none of the {len(self.judged)} candidates fits into {format_duration(self.time)} and "
                f"{format_bytes(self.memory)}; give more --time or --memory, fewer --training.epochs, or "
                "smaller --backbones or --image_sizes"
            )
        return self.judged[0]

    def options(self, judged: Judged) -> str:
        """Format a choice that fits as options of `train`."""
        choice = judged.choice
        assert judged.micro_batch, "it fits"
        weights = "timm" if timm.is_model_pretrained(choice.backbone) else "null"
        return (
            f"--model.backbone {choice.backbone} --model.weights {weights} "
            f"--model.image_size {choice.image_size} "
            f"--training.gradient_accumulation_steps {math.ceil(self.images / judged.micro_batch)} "
            f"--training.gradient_checkpointing {str(judged.gradient_checkpointing).lower()}"
        )


def choose(
    config: RunConfig,
    num_images: Mapping[Split, int],
    time: float,
    *,
    memory: float | None = None,
    processes: int = 1,
    backbones: Sequence[str] = BACKBONES,
    image_sizes: Sequence[int] = IMAGE_SIZES,
    progress: Progress = no_progress,
) -> Ranking:
    """Measure candidates from small to large, and rank them.

    Each is measured in the precision of the run, with gradient checkpointing only if it does not fit without.
    Two that compute the same are measured once, and one whose time is far too long by the speed of a smaller
    one not at all.

    Args:
        config: The run, with its number of classes and epochs; its backbone and image size are ignored.
        num_images: Images of each split.
        time: Seconds that the run may take: its steps and evaluations, without waiting for data.
        memory: Bytes that each process may use; None: what is free on this device.
        processes: Processes that divide the images of a step (DDP), one per device.
        backbones: Names in timm; of two that compute the same, the first is ranked first.
        image_sizes: Sides in pixels.
        progress: Called before each candidate.

    Raises:
        UsageError: The run cannot be measured, or starts from weights of one backbone.
        ConfigError: A candidate cannot be built.
    """
    device, memory, images = resources(config, memory, processes)
    check_choosable(config)
    passes = num_passes(config, num_images) / processes
    if is_cross_validation(config):
        passes *= config.data.folds or 1
    choices = candidates(config.model, backbones, image_sizes)
    budget = Budget(config, time, (1 - MARGIN) * memory, passes, images, processes > 1)
    judged: list[Judged] = []
    for number, choice in enumerate(sorted(choices, key=lambda one: one.macs)):
        progress(number, len(choices), f"measuring {choice.backbone} at {choice.image_size}")
        judged.append(budget.judge(choice, judged))
        clear_device_cache(garbage_collection=True)
    order = {choice: number for number, choice in enumerate(choices)}
    judged.sort(key=lambda one: (bool(one.reason), -one.choice.macs, order[one.choice]))
    return Ranking(device, time, memory, images, tuple(judged))


def check_choosable(config: RunConfig) -> None:
    """Raise UsageError unless a run takes steps, from weights that depend on the backbone."""
    if config.training.is_probe:
        raise UsageError("a linear probe takes no steps to be measured; leave out --training.finetune head")
    if config.model.weights not in (None, "timm"):
        raise UsageError(
            f"--model.weights {config.model.weights} is of one backbone; leave it out to choose among several"
        )


def candidates(model: ModelConfig, backbones: Sequence[str], image_sizes: Iterable[int]) -> list[Choice]:
    """Every backbone at every size, without repetitions; nothing is allocated.

    Raises:
        ConfigError: One cannot be built.
    """
    pairs = dict.fromkeys((backbone, size) for backbone in backbones for size in image_sizes)
    return [
        Choice(backbone, size, *count(dataclasses.replace(model, backbone=backbone, image_size=size)))
        for backbone, size in pairs
    ]


def count(model: ModelConfig) -> tuple[int, int]:
    """Multiply-adds of a forward pass through all scales of a model, and parameters of its backbone."""
    macs, num_parameters = 0, 0
    for size in model.scale_sizes:
        counter = FlopCounterMode(display=False)
        with torch.device("meta"), torch.no_grad():
            backbone = build_backbone(dataclasses.replace(model, image_size=size, region_size=None)).eval()
            with counter:
                backbone(torch.zeros(1, 3, *size))
        macs += int(counter.get_total_flops()) // 2
        num_parameters = sum(weight.numel() for weight in backbone.parameters())
    return macs, num_parameters


class Budget(NamedTuple):
    """What a run may take, by which choices are judged from small to large.

    Attributes:
        config: The run.
        time: Seconds that it may take.
        usable: Bytes that each process may use, less `MARGIN`.
        passes: Images that pass forward and backward in a process.
        images: Images per step of one process.
        with_ddp: Whether DDP holds a copy of all gradients.
    """

    config: RunConfig
    time: float
    usable: float
    passes: float
    images: int
    with_ddp: bool

    def judge(self, choice: Choice, smaller: Sequence[Judged]) -> Judged:
        """Judge a choice after all smaller ones, by what was measured of those if that is enough."""
        for other in smaller:
            if other.choice[1:] == choice[1:]:
                return other._replace(choice=choice)
        trains_all = self.config.training.finetune == "all" and not self.config.training.freeze_blocks
        weights = 4 * choice.num_parameters * (2 if trains_all else 1)
        if weights > self.usable:
            what = "weights and gradients" if trains_all else "weights"
            return Judged(choice, f"too large: {what} alone", peak=weights)
        speeds = [other.seconds_per_image / other.choice.macs for other in smaller if other.seconds_per_image]
        seconds = self.passes * speeds[-1] * choice.macs if speeds else 0.0
        if seconds > HOPELESS * self.time:
            return Judged(choice, "too slow (estimated)", seconds)
        return self.measured(choice)

    def measured(self, choice: Choice) -> Judged:
        """Take steps of 1, 2, ... images; with gradient checkpointing if one does not fit without."""
        training = self.config.training
        model = dataclasses.replace(self.config.model, backbone=choice.backbone, image_size=choice.image_size)
        config = dataclasses.replace(self.config, model=model)
        least = math.inf
        without = [False, True] if can_checkpoint(training) else [False]
        for flag in [True] if training.gradient_checkpointing else without:
            candidate = Candidate(training.precision, flag)
            fitting: list[Measurement] = []
            for step in measure(config, candidate, self.images, with_ddp=self.with_ddp, num_taken=2):
                least = min(least, step.peak)
                if step.peak > self.usable:
                    break
                fitting.append(step)
            if fitting:
                per_image = min(step.seconds / step.images for step in fitting)
                seconds = self.passes * per_image
                reason = "" if seconds <= self.time else "too slow"
                return Judged(choice, reason, seconds, per_image, fitting[-1].peak, fitting[-1].images, flag)
        return Judged(choice, "too large", peak=least if math.isfinite(least) else None)
