"""Which batch, accumulation, checkpointing and precision fit: measured before a run, not found out by it."""

import math
import sys
from typing import Any, NamedTuple

import torch

from ramstrans.console import Progress, no_progress
from ramstrans.devices import choose_device
from ramstrans.errors import TrainingError, UsageError
from ramstrans.memory import device_bytes, format_bytes
from ramstrans.training.config import RunConfig
from ramstrans.training.planning.fits import MARGIN, Ground
from ramstrans.training.planning.trials import PRECISIONS, Precision, Trial, depths_of, try_all


class Task(NamedTuple):
    """What is to be done.

    Attributes:
        batch_size: Images of a step, of all processes together.
        images_per_process: Those of one process, at most.
        num_images: Training images, of an epoch.
        steps: Of the run.
    """

    batch_size: int
    images_per_process: int
    num_images: int
    steps: int


class Way(NamedTuple):
    """One way to take the steps of a run.

    Attributes:
        precision: Of autocast.
        gradient_checkpointing: Whether blocks are computed again for their gradients.
        most_images: That fit into a process's memory at a time; 0: not even one.
        gradient_accumulation_steps: The fewest micro-batches that fit; None: they do not.
        images: That pass at a time then; one by one where they do not fit.
        peak: Bytes that tensors take then, at the most.
        seconds: Of a step, on the device that measured.
        hours: Of the steps of the run.
    """

    precision: Precision
    gradient_checkpointing: bool
    most_images: int
    gradient_accumulation_steps: int | None
    images: int
    peak: float
    seconds: float
    hours: float

    def options(self) -> str:
        """What to write on the command line."""
        return (
            f"--training.precision {self.precision} "
            f"--training.gradient_accumulation_steps {self.gradient_accumulation_steps} "
            f"--training.gradient_checkpointing {str(self.gradient_checkpointing).lower()}"
        )


class Plan(NamedTuple):
    """What fits.

    Attributes:
        task: What is to be done.
        ground: Memory and processes.
        ways: In which it can be done.
        trials: What each of them rests on.
        device: That measured.
        depths: Numbers of blocks that were tried; one: the whole model was.
        depth: Blocks of the model.
    """

    task: Task
    ground: Ground
    ways: tuple[Way, ...]
    trials: tuple[Trial, ...]
    device: torch.device
    depths: tuple[int, ...]
    depth: int

    def best(self) -> Way:
        """The way that fits and is the fastest on the device that measured.

        Gradient checkpointing computes more: where a precision fits without, it is not faster with it,
        whatever a noisy clock says.

        Raises:
            TrainingError: None fits; the message says how much is missing.
        """
        fitting = [way for way in self.ways if way.gradient_accumulation_steps is not None]
        if fitting:
            plain = {way.precision for way in fitting if not way.gradient_checkpointing}
            fitting = [way for way in fitting if not (way.gradient_checkpointing and way.precision in plain)]
            return min(fitting, key=lambda way: way.seconds)
        least = min(self.ways, key=lambda way: way.peak)
        checkpointing = "with" if least.gradient_checkpointing else "without"
        raise TrainingError(
            f"nothing fits into {format_bytes(self.ground.memory)} a process: the least is one image at a "
            f"time in {least.precision} {checkpointing} gradient checkpointing, which needs "
            f"{format_bytes(least.peak / (1 - MARGIN))}; give a smaller --model.image_size or backbone, "
            "--training.finetune lora, or --training.fsdp true with several --processes"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        ways = [
            way._asdict()
            | {
                "attention": trial.attention,
                "options": way.options() if way.gradient_accumulation_steps else None,
            }
            for way, trial in zip(self.ways, self.trials, strict=True)
        ]
        measured = {"device": str(self.device), "blocks_tried": self.depths, "blocks": self.depth}
        return {
            "task": self.task._asdict(),
            "ground": self.ground._asdict() | {"margin": MARGIN},
            "measured": measured,
            "ways": ways,
        }


def plan(
    config: RunConfig,
    num_images: int,
    *,
    memory: float | None = None,
    processes: int = 1,
    progress: Progress = no_progress,
) -> Plan:
    """Try each way to take a run's steps on few images, and tell which would fit.

    Args:
        config: Of the run, its number of classes known. Its accumulation, gradient checkpointing and
            precision are what is looked for; `compile` is not tried.
        num_images: Training images, of an epoch.
        memory: Bytes of each process; None: what is free of this device's.
        processes: That share the work, one a device.
        progress: Told (trials done, of how many, what).

    Raises:
        UsageError: The device has no counter of memory, or there are more processes than images of a step.
        ConfigError: The model cannot be built.
        TrainingError: This device's memory is too little even for a trial.
    """
    training, device = config.training, choose_device(config.device)
    if training.batch_size < processes:
        raise UsageError(
            f"training.batch_size is {training.batch_size}, of all --processes {processes} together; give "
            f"--training.batch_size {processes} or more"
        )
    if device.type not in PRECISIONS:
        raise UsageError(f"memory cannot be counted on '{device.type}'; give --device cpu")
    if training.fsdp and processes == 1:
        raise UsageError("training.fsdp needs several --processes; give 2 or more, or leave it out")
    steps_per_epoch = math.ceil(num_images / training.batch_size)
    task = Task(
        training.batch_size,
        math.ceil(training.batch_size / processes),
        num_images,
        min(training.epochs * steps_per_epoch, training.max_steps or sys.maxsize),
    )
    ground = Ground(
        memory=device_bytes(device) if memory is None else memory,
        processes=processes,
        fsdp=training.fsdp,
        ema=training.ema_decay > 0,
    )
    depths, depth = depths_of(config)
    trials = try_all(config, depths, depth, progress)
    ways = tuple(way_of(trial, ground, task) for trial in trials)
    return Plan(task, ground, ways, tuple(trials), device, depths, depth)


def way_of(trial: Trial, ground: Ground, task: Task) -> Way:
    """How a task is done at what a trial has shown."""
    gradient_accumulation_steps = ground.parts(trial.cost, task.images_per_process)
    parts = gradient_accumulation_steps or task.images_per_process
    images = math.ceil(task.images_per_process / parts)
    seconds = trial.cost.seconds(task.images_per_process)
    return Way(
        trial.precision,
        trial.gradient_checkpointing,
        ground.most_images(trial.cost),
        gradient_accumulation_steps,
        images,
        ground.peak(trial.cost, images, parts),
        seconds,
        task.steps * seconds / 3600,
    )
