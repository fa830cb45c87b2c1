"""Learning-rate range test: the loss while the learning rate grows from step to step.

After Smith, "Cyclical Learning Rates for Training Neural Networks", section 3.3
(https://arxiv.org/abs/1506.01186), with a rate that grows exponentially.
"""

import contextlib
import math
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d
from torch.optim.lr_scheduler import LambdaLR

from ramstrans.console import Progress, no_progress
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.loading.loader import ImageLoader
from ramstrans.errors import TrainingError
from ramstrans.evaluation.report.style import (
    FUSED_COLOR,
    RIGHT_COLOR,
    finish_axes,
    save_figure,
    scale_color,
)
from ramstrans.training.log import MetricsLog
from ramstrans.training.loop import TrainLoop
from ramstrans.training.memory import out_of_memory_errors
from ramstrans.training.plan import with_training
from ramstrans.training.setup import Prepared, build_accelerator
from ramstrans.training.step import TrainStep
from ramstrans.training.trainable import set_train_mode

LOWEST, HIGHEST = 1e-6, 1.0
"""First and last learning rate: from far too low to far too high for fine-tuning by SGD or AdamW."""

NUM_STEPS = 60
"""Steps from the lowest to the highest rate, 10 for each power of ten."""

DIVERGED = 4.0
"""Multiple of its lowest value at which the smoothed loss has diverged, and the test stops."""

MEMORY = 0.8
"""Share of the previous value in the running mean that decides whether the loss has diverged."""

WIDTH = 2.0
"""Standard deviation, in steps, of the Gaussian that smooths the curve; unlike a running mean, it does not
lag behind."""


class LrRange(NamedTuple):
    """A curve of the loss over the learning rate.

    Attributes:
        rates: The learning rate of each step.
        losses: Training loss of each step.
        smoothed: The same, smoothed.
        suggested: The rate at which the smoothed loss falls fastest per factor of the rate.
        lowest: The rate at which it is lowest: too high to train with.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggested: float
    lowest: float


def lr_range(prepared: Prepared, progress: Progress = no_progress) -> LrRange:
    """Take up to `NUM_STEPS` steps of a run with a growing learning rate; the model of `prepared` is spent.

    The batches are those of the run, over as many epochs as that takes. Validation and test images are not
    used.

    Args:
        prepared: The run.
        progress: Called after each step.

    Raises:
        TrainingError: The loss falls at no rate, or a step does not fit into memory.
    """
    config = with_training(prepared.config, lr=LOWEST, ema_decay=0.0, patience=None)
    accelerator = build_accelerator(config, Path())
    loader, _ = prepared.loaders()
    log = MetricsLog(Path(os.devnull), accelerator)
    step = TrainLoop(prepared.model, loader, None, config.training, accelerator, log).train_step
    growth = (HIGHEST / LOWEST) ** (1 / (NUM_STEPS - 1))
    step = step._replace(schedule=LambdaLR(step.optimizer, lambda number: growth**number))
    set_train_mode(prepared.model)
    rates, losses = take_steps(step, loader, progress)
    return suggest(rates, losses)


def take_steps(
    step: TrainStep, loader: ImageLoader, progress: Progress = no_progress
) -> tuple[list[float], list[float]]:
    """Take steps until the loss diverges; return the learning rate and the loss of each."""
    rates: list[float] = []
    losses: list[float] = []
    mean = lowest = math.inf
    with contextlib.closing(endless(loader)) as batches:
        for number, batch in zip(range(NUM_STEPS), batches, strict=False):
            with out_of_memory_errors():
                result = step.run(batch)
            if not math.isfinite(result.loss):
                break
            rates.append(result.lr)
            losses.append(result.loss)
            mean = MEMORY * mean + (1 - MEMORY) * result.loss if number else result.loss
            lowest = min(lowest, mean)
            progress(number + 1, NUM_STEPS, f"learning rate {result.lr:.1e}, loss {result.loss:.3f}")
            if mean > DIVERGED * lowest:
                break
    return rates, losses


def endless(loader: ImageLoader) -> Generator[Batch]:
    """Yield the batches of epoch 0, 1, 2, ..."""
    epoch = 0
    while True:
        loader.batch_sampler.epoch, loader.batch_sampler.first_batch = epoch, 0
        yield from loader
        epoch += 1


def suggest(rates: Sequence[float], losses: Sequence[float]) -> LrRange:
    """Find where the smoothed loss falls most steeply over the rate's logarithm, before its lowest point.

    Args:
        rates: Rising learning rates.
        losses: Finite losses, one for each.

    Raises:
        TrainingError: It does not fall.

    >>> found = suggest([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1], [9, 8, 6, 3, 1, 0, 0])
    >>> found.suggested, found.lowest
    (0.001, 1)
    """
    smoothed = np.zeros(1)
    if len(losses) > 1:
        smoothed = gaussian_filter1d(np.asarray(losses, dtype=float), WIDTH, mode="nearest")
    end = int(np.argmin(smoothed)) + 1
    slopes = np.gradient(smoothed[:end], np.log(rates[:end])) if end > 1 else np.zeros(1)
    if slopes.min() >= 0:
        raise TrainingError(
            f"the loss falls at no learning rate from {LOWEST:g} to {HIGHEST:g}; check the weights "
            "(--model.weights), the labels, and --training.optimizer"
        )
    steepest = rates[int(np.argmin(slopes))]
    return LrRange(tuple(rates), tuple(losses), tuple(map(float, smoothed)), steepest, rates[end - 1])


def plot_lr_range(found: LrRange, current: float, path: Path) -> None:
    """Plot a curve with the suggested learning rate, and the current one of the run, as a PNG file."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(found.rates, found.losses, ".", color=scale_color(0), alpha=0.45, label="each step")
    axes.semilogx(found.rates, found.smoothed, color=FUSED_COLOR, lw=1.6, label="smoothed")
    axes.axvline(
        found.suggested, color=RIGHT_COLOR, lw=1.4, label=f"falls fastest: {found.suggested:.2g} (suggested)"
    )
    axes.axvline(found.lowest, color="#888888", lw=1.2, ls=":", label=f"lowest: {found.lowest:.2g}")
    axes.axvline(current, color=scale_color(1), lw=1.2, ls="--", label=f"of the recipe: {current:.2g}")
    low, high = min(found.smoothed), found.smoothed[0]
    axes.set_ylim(low - 0.15 * (high - low), high + 0.4 * (high - low))  # what diverges leaves the picture
    finish_axes(axes, "Learning-rate range test", "learning rate", "training loss")
    save_figure(figure, path)
