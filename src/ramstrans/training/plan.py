"""Measure what fits into memory before a run, by real training steps with a growing number of images.

In each precision, with and without gradient checkpointing, the whole model takes steps of 1, 2, 4, ...
random images until memory runs out or the images of one process are reached. On a CPU, where a step may
take minutes, steps after one of more than `SLOW_STEP` are extrapolated linearly instead.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from accelerate.utils.memory import clear_device_cache
from torch import Tensor

from ramstrans.console import Progress, no_progress
from ramstrans.data.build import build_preprocessing
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import Split
from ramstrans.distributed import choose_device
from ramstrans.errors import ConfigError, TrainingError, UsageError
from ramstrans.models.methods.build import build_model
from ramstrans.options import Precision
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.memory import format_bytes, is_out_of_memory, num_bytes, peak_bytes, tensors_in
from ramstrans.training.optim import num_steps
from ramstrans.training.setup import build_accelerator
from ramstrans.training.step import TrainStep, build_train_step
from ramstrans.training.trainable import check_batch_norms, set_train_mode, set_trainable

PRECISIONS: dict[str, tuple[Precision, ...]] = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}
"""Precisions to try, by type of device; memory cannot be counted on others."""

SLOW_STEP = 3.0
"""Seconds above which a step is taken only once and, on a CPU, larger ones are extrapolated."""

MARGIN = 0.1
"""Share of the memory to leave free, for scratch space of kernels and gaps between tensors."""

FORWARD_SHARE = 1 / 3
"""Share of a training step that its forward pass takes: the backward pass is two of the same size."""


class Measurement(NamedTuple):
    """One training step.

    Attributes:
        images: Images in the step, all at once.
        peak: Most bytes of tensors held at a time.
        seconds: Time of the step.
    """

    images: int
    peak: float
    seconds: float


class Candidate(NamedTuple):
    """One combination of precision and gradient checkpointing.

    Attributes:
        precision: Autocast precision.
        gradient_checkpointing: Whether blocks are recomputed in the backward pass.
        largest: The largest step that fits, of those tried; None: not even one image does.
    """

    precision: Precision
    gradient_checkpointing: bool
    largest: Measurement | None = None


class Plan(NamedTuple):
    """The combinations measured for a run.

    Attributes:
        device: The device that measured.
        memory: Bytes that each process may use.
        images: Images per step of one process, at most.
        steps: Steps of the run.
        candidates: All combinations.
    """

    device: torch.device
    memory: float
    images: int
    steps: int
    candidates: tuple[Candidate, ...]

    def accumulation_steps(self, largest: Measurement) -> int:
        """Micro-batches of at most that size per step of the run."""
        return math.ceil(self.images / largest.images)

    def seconds(self, largest: Measurement) -> float:
        """Seconds per step of the run on this device, at the speed of a measured one."""
        return largest.seconds * self.images / largest.images

    def best(self) -> Candidate:
        """The fastest candidate that fits; with gradient checkpointing only if its precision needs it.

        Raises:
            TrainingError: None fits.
        """
        speeds = {one: self.seconds(one.largest) for one in self.candidates if one.largest}
        plain = {one.precision for one in speeds if not one.gradient_checkpointing}
        needed = [one for one in speeds if not (one.gradient_checkpointing and one.precision in plain)]
        if not needed:
            raise TrainingError(
                f"not even one image at a time fits into {format_bytes(self.memory)} per process; give a "
                "smaller --model.image_size or --model.backbone, or --training.finetune lora"
            )
        return min(needed, key=speeds.__getitem__)

    def options(self, candidate: Candidate) -> str:
        """Format a candidate that fits as command-line options."""
        assert candidate.largest is not None
        return (
            f"--training.precision {candidate.precision} "
            f"--training.gradient_accumulation_steps {self.accumulation_steps(candidate.largest)} "
            f"--training.gradient_checkpointing {str(candidate.gradient_checkpointing).lower()}"
        )


def plan(
    config: RunConfig,
    num_images: int,
    *,
    memory: float | None = None,
    processes: int = 1,
    progress: Progress = no_progress,
) -> Plan:
    """Measure which precision, gradient checkpointing and accumulation make the steps of a run fit.

    Args:
        config: The run, with its number of classes; these three options are ignored, and `compile` is but for
            that it does not go with gradient checkpointing.
        num_images: Training images.
        memory: Bytes that each process may use; None: what is free on this device.
        processes: Processes that divide the images of a step (DDP), one per device.
        progress: Called before each combination.

    Raises:
        UsageError: Memory cannot be counted on the device, the run uses FSDP, or there are more processes
            than images per step.
        ConfigError: The model cannot be built.
    """
    device, memory, images = resources(config, memory, processes)
    usable = (1 - MARGIN) * memory

    def fits(step: Measurement) -> bool:
        return step.peak <= usable

    steps = num_steps(config.training, math.ceil(num_images / config.training.batch_size))
    candidates: list[Candidate] = []
    again = (False, True) if can_checkpoint(config.training) else (False,)
    choices = [Candidate(name, flag) for name in PRECISIONS[device.type] for flag in again]
    for number, choice in enumerate(choices):
        progress(number, len(choices), f"measuring {choice.precision}")
        fitting = list(takewhile(fits, measure(config, choice, images, with_ddp=processes > 1)))
        candidates.append(choice._replace(largest=fitting[-1] if fitting else None))
        clear_device_cache(garbage_collection=True)
    return Plan(device, memory, images, steps, tuple(candidates))


def can_checkpoint(training: TrainingConfig) -> bool:
    """Whether gradient checkpointing goes with the other options of a run."""
    return not training.compile and training.attention != "math"


def resources(config: RunConfig, memory: float | None, processes: int) -> tuple[torch.device, float, int]:
    """The device, the bytes that each process may use on it, and the images per step of one process.

    Raises:
        UsageError: The steps of the run cannot be measured there.
    """
    training, device = config.training, choose_device(config.device)
    if device.type not in PRECISIONS:
        raise UsageError(f"memory cannot be counted on '{device.type}'; give --device cpu")
    if training.fsdp:
        raise UsageError("plan measures one process that holds the whole model; leave out --training.fsdp")
    if training.batch_size < processes:
        raise UsageError(
            f"training.batch_size is {training.batch_size} for all --processes {processes} together; give "
            f"--training.batch_size {processes} or more"
        )
    if memory is None:
        is_gpu = device.type == "cuda"
        memory = torch.cuda.mem_get_info(device)[0] if is_gpu else psutil.virtual_memory().available
    return device, float(memory), math.ceil(training.batch_size / processes)


def num_passes(config: RunConfig, num_images: Mapping[Split, int]) -> float:
    """Passes of an image forward and backward that a run takes; an evaluated image is `FORWARD_SHARE` of one.

    Args:
        config: The run.
        num_images: Images of each split.
    """
    training, num_train = config.training, num_images["train"]
    if training.is_probe:  # features of all views, once
        return FORWARD_SHARE * (num_train * training.probe_views + num_images["val"] + num_images["test"])
    per_epoch = math.ceil(num_train / training.batch_size)
    steps = num_steps(training, per_epoch)
    num_epochs = math.ceil(steps / per_epoch)
    num_evaluations = math.ceil(num_epochs / training.evaluate_every)  # always after the last
    num_evaluated = num_images["test"] + num_images["val"] * num_evaluations
    return steps * num_train / per_epoch + FORWARD_SHARE * num_evaluated


def measure(
    config: RunConfig, choice: Candidate, images: int, *, with_ddp: bool = False, num_taken: int = 3
) -> Iterator[Measurement]:
    """Take steps of 1, 2, 4, ... up to `images` images, as long as this device has memory for them.

    A batch norm on pooled features needs two images: then they begin with 2.

    The peak is that of the run: in several micro-batches, the waiting images and the accumulated gradients
    count too.

    Args:
        config: The run.
        choice: Precision and gradient checkpointing.
        images: Images per step of one process.
        with_ddp: Whether DDP holds a copy of all gradients.
        num_taken: Sizes that are measured, however slow, before larger ones are extrapolated; 2 or more.

    Raises:
        ConfigError: `images` is 1, and a batch norm needs two.
    """
    step, preprocessing = build_step(config, choice)
    model, device = step.model, step.accelerator.device
    smallest = 1
    try:
        check_batch_norms(model, config.training, smallest)
    except ConfigError:
        if images == smallest:
            raise
        smallest = 2
    gradients = num_bytes(weight for weight in model.parameters() if weight.requires_grad)
    copies = 2 if config.training.ema_decay else 1
    held = copies * num_bytes(model.parameters()) + (gradients if with_ddp else 0)
    own: list[Measurement] = []
    while not own or own[-1].images < images:
        size = min(2 * own[-1].images, images) if own else smallest
        batch = random_batch(config, preprocessing, size)
        if device.type == "cpu" and len(own) >= num_taken and own[-1].seconds > SLOW_STEP:
            own.append(extrapolate(own[-2], own[-1], size))
        else:
            run = partial(step.run, batch)
            try:
                if not own:
                    run()  # creates the optimiser's state
                own.append(measure_step(run, size, device))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                return
        state = num_bytes(tensors_in(value.values() for value in step.optimizer.state.values()))
        image = 4 * sum(
            view[0].numel() for view in (batch.images, batch.high_res) if isinstance(view, Tensor)
        )
        waiting = gradients + (images - size) * image if size < images else 0
        yield own[-1]._replace(peak=own[-1].peak + held + state + waiting)


def measure_step(run: Callable[[], object], images: int, device: torch.device) -> Measurement:
    """Take a step and count its memory; time a quick one again, because counting takes time too.

    A step returns numbers, so it is synchronised with its device.
    """
    start = time.perf_counter()
    peak = peak_bytes(run, device)
    seconds = time.perf_counter() - start
    if seconds < SLOW_STEP:
        start = time.perf_counter()
        run()
        seconds = min(seconds, time.perf_counter() - start)
    return Measurement(images, peak, seconds)


def extrapolate(low: Measurement, high: Measurement, images: int) -> Measurement:
    """Predict a larger step: memory linear through two smaller ones, time proportional to the images.

    >>> extrapolate(Measurement(2, 30.0, 1.5), Measurement(4, 50.0, 2.0), 8)
    Measurement(images=8, peak=90.0, seconds=4.0)
    """
    slope = (high.peak - low.peak) / (high.images - low.images)
    return Measurement(
        images, high.peak + slope * (images - high.images), high.seconds * images / high.images
    )


def build_step(config: RunConfig, choice: Candidate) -> tuple[TrainStep, Preprocessing]:
    """Build the training step of a run in one process, with random weights and one micro-batch."""
    config = with_training(
        config,
        precision=choice.precision,
        gradient_checkpointing=choice.gradient_checkpointing,
        attention="auto" if choice.gradient_checkpointing else config.training.attention,
        gradient_accumulation_steps=1,
        compile=False,
    )
    training, model_config = config.training, dataclasses.replace(config.model, weights=None)
    accelerator = build_accelerator(config, Path())
    set_seed(config.seed)
    model = build_model(model_config)
    set_trainable(model, training)
    step = build_train_step(model, training, accelerator, total_steps=1_000_000)
    set_train_mode(model)
    preprocessing = build_preprocessing(config.data, model_config.input_size, model_config.zoom_source)
    return step, preprocessing


def with_training(config: RunConfig, **options: Any) -> RunConfig:  # noqa: ANN401 - fields of TrainingConfig
    """The run with other training options; what it has warned of already is not repeated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dataclasses.replace(config, training=dataclasses.replace(config.training, **options))


def random_batch(config: RunConfig, preprocessing: Preprocessing, count: int) -> Batch:
    """Draw random images and labels of the sizes that the run's loader yields."""
    assert config.model.num_classes is not None, "known from the data or the user"
    generator = torch.Generator().manual_seed(config.seed)

    def noise(height: int, width: int) -> Tensor:
        return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator)

    def high_res() -> Tensor | tuple[Tensor, ...]:
        if preprocessing.zoom_pixels is None:
            return noise(*preprocessing.crop)
        side = math.isqrt(preprocessing.zoom_pixels)  # of the largest photographs
        return noise(side, side).unbind()

    def labels() -> Tensor:
        drawn = torch.randint(config.model.num_classes or 2, (count,), generator=generator)
        return F.one_hot(drawn, config.model.num_classes or 2).float() if config.model.multi_label else drawn

    return Batch(
        images=noise(*config.model.input_size),
        high_res=high_res() if config.model.needs_high_res else None,
        labels=labels(),
        indices=torch.arange(count),
        geometries=(),
        original_sizes=torch.tensor([config.model.input_size[::-1]] * count),
        weight=(count, count),
        boxes=torch.tensor([[0.0, 0.0, *config.model.input_size[::-1]]] * count),
    )
