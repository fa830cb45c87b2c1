"""Leave early where it costs nothing: the curve of accuracy against cost, the choice, and what it saves."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ramstrans.data.loading.dataset import Batch
from ramstrans.data.loading.loader import ImageLoader
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.evaluation.metrics import classification_metrics
from ramstrans.evaluation.predict import autocast, normalized
from ramstrans.evaluation.predictions import Predictions
from ramstrans.evaluation.report.style import FUSED_COLOR, RIGHT_COLOR, save_figure
from ramstrans.models.methods.early_exit import EarlyExit, check_num_scales, exit_early
from ramstrans.models.methods.rams import RamsTrans

MAX_ACCURACY_DROP = 0.2
"""Percentage points of top-1 that early exit may cost, see `choose_exit`."""

NEVER = 2.0
"""A confidence that no image reaches."""

MAX_POINTS = 1000
"""Confidences that are tried: all that occur, or so many quantiles of them."""


class ExitCurve(NamedTuple):
    """Accuracy against cost, ascending in confidence; the last confidence lets no image leave.

    Attributes:
        confidences: (T,) at which an image leaves.
        top1: (T,) percent.
        changed: (T,) percent of images whose answer is another than that of all looks.
        mean_scales_used: (T,) mean number of looks an image takes, 1 to S.
    """

    confidences: np.ndarray
    top1: np.ndarray
    changed: np.ndarray
    mean_scales_used: np.ndarray


def running_means(probabilities: np.ndarray) -> np.ndarray:
    """(S, N, C) mean of the first 1, 2, ... S looks' probabilities (S, N, C)."""
    counts = np.arange(1, len(probabilities) + 1)[:, None, None]
    means: np.ndarray = probabilities.cumsum(axis=0) / counts
    return means


def num_scales_used(means: np.ndarray, confidence: float) -> np.ndarray:
    """(N,) looks that each image takes, 1 to S.

    Args:
        means: (S, N, C), from `running_means`.
        confidence: At which an image leaves.

    >>> num_scales_used(np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.3, 0.7]]]), 0.75)
    array([1, 2])
    """
    is_sure = means.max(axis=2) >= confidence
    is_sure[-1] = True  # after the last look all leave
    looks: np.ndarray = is_sure.argmax(axis=0) + 1
    return looks


def exited_early(means: np.ndarray, confidence: float) -> np.ndarray:
    """(N, C) answers of images that leave at a confidence; `means` (S, N, C) from `running_means`."""
    answers: np.ndarray = means[num_scales_used(means, confidence) - 1, np.arange(means.shape[1])]
    return answers


def exit_curve(predictions: Predictions) -> ExitCurve:
    """What every confidence would cost and save on images that took all looks."""
    means, labels = running_means(predictions.probabilities), predictions.labels
    occurring = np.unique(means[:-1].max(axis=2))
    if len(occurring) > MAX_POINTS:
        occurring = np.unique(np.quantile(occurring, np.linspace(0, 1, MAX_POINTS), method="nearest"))
    confidences = np.append(occurring, np.inf)
    answers = means.argmax(axis=2)
    looks = np.stack([num_scales_used(means, confidence) for confidence in confidences])
    early = answers[looks - 1, np.arange(len(labels))]
    return ExitCurve(
        confidences,
        top1=100 * (early == labels).mean(axis=1),
        changed=100 * (early != answers[-1]).mean(axis=1),
        mean_scales_used=looks.mean(axis=1),
    )


def choose_exit(predictions: Predictions, max_accuracy_drop: float = MAX_ACCURACY_DROP) -> EarlyExit:
    """Choose the lowest confidence from which on up none costs more than `max_accuracy_drop` points.

    What it costs is counted in answers that are not those of all looks. No more points can be lost. Fewer
    are where some of these answers make good what others spoil, but on some hundred images that balance is
    luck, and a choice by it cost more than was allowed on other images (docs/performance.md).

    Args:
        predictions: Of images that the accuracy is not told of, as a rule the validation part.
        max_accuracy_drop: Percentage points of top-1.

    Raises:
        UsageError: The model looks once.
    """
    check_num_scales(len(predictions.probabilities))
    curve = exit_curve(predictions)
    too_much = np.flatnonzero(curve.changed > max_accuracy_drop + 1e-9)
    index = int(too_much[-1]) + 1 if len(too_much) else 0
    return EarlyExit(
        confidence=float(min(curve.confidences[index], NEVER)),
        chosen_on=", ".join(sorted({record.split for record in predictions.records})),
        num_images=len(predictions.labels),
        top1_lost=float(curve.top1[-1] - curve.top1[index]),
        mean_scales_used=float(curve.mean_scales_used[index]),
    )


class ExitTimes(NamedTuple):
    """Seconds that the model took for the same images, loading not counted."""

    full: float
    early: float


@torch.inference_mode()
def time_exit(
    model: RamsTrans,
    loader: ImageLoader,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    confidence: float,
    precision: str,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> ExitTimes:
    """Let images take all looks, and leave early, in turn for each batch; which is first alternates."""
    model.eval()

    def full(images: Tensor, high_res: Tensor | None) -> None:
        model(images, high_res, last_region=False)

    def early(images: Tensor, high_res: Tensor | None) -> None:
        exit_early(model, images, high_res, confidence=confidence)

    ways = {"full": full, "early": early}
    seconds = dict.fromkeys(ways, 0.0)
    for done, batch in enumerate(loader, start=1):
        for name in reversed(ways) if done % 2 else ways:
            seconds[name] += _seconds(ways[name], batch, preprocessing, device, precision)
        progress(done, len(loader), "timing early exit")
    return ExitTimes(**seconds)


def _seconds(
    way: Callable[[Tensor, Tensor | None], None],
    batch: Batch,
    preprocessing: Preprocessing,
    device: torch.device,
    precision: str,
) -> float:
    """Seconds that one way takes for one batch that is on the device already."""
    images, high_res = normalized(batch, preprocessing, device)
    _wait(device)
    start = time.perf_counter()
    with autocast(device, precision):
        way(images, high_res)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def exit_report(predictions: Predictions, confidence: float, times: ExitTimes) -> dict[str, Any]:
    """The part of a report that says what early exit costs and saves on a split.

    Returns:
        `confidence`, the metrics of the early answers, `top1_lost` against all looks (percentage points),
        `changed` (percent of answers that are not those of all looks), `mean_scales_used`, `exited_early`
        (percent of images that exited before the last scale), `speedup` (times as fast as all
        scales), `seconds` of both, and the `curve`.
    """
    means = running_means(predictions.probabilities)
    looks = num_scales_used(means, confidence)
    answers = exited_early(means, confidence)
    metrics = classification_metrics(answers, predictions.labels)
    full = classification_metrics(predictions.fused, predictions.labels)
    curve = exit_curve(predictions)
    points = np.unique(np.linspace(0, len(curve.confidences) - 1, 101).round().astype(int))
    return {
        "confidence": confidence,
        **metrics._asdict(),
        "top1_lost": full.top1 - metrics.top1,
        "changed": 100 * (answers.argmax(axis=1) != predictions.fused.argmax(axis=1)).mean(),
        "mean_scales_used": looks.mean(),
        "exited_early": 100 * (looks < len(means)).mean(),
        "speedup": times.full / times.early,
        "seconds": times._asdict(),
        "curve": {name: values[points] for name, values in curve._asdict().items()},
    }


def plot_exit(predictions: Predictions, confidence: float, path: Path) -> None:
    """Draw accuracy against mean looks, the chosen confidence marked."""
    curve = exit_curve(predictions)
    means = running_means(predictions.probabilities)
    looks = num_scales_used(means, confidence).mean()
    top1 = classification_metrics(exited_early(means, confidence), predictions.labels).top1
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.mean_scales_used, curve.top1, color=FUSED_COLOR, linewidth=1.4, label="every confidence")
    axes.plot([looks], [top1], "o", color=RIGHT_COLOR, label=f"confidence {confidence:.2f}")
    axes.axhline(curve.top1[-1], color="#888888", linewidth=1, linestyle="--", label="all looks")
    axes.set(title="Early exit: accuracy against cost", xlabel="mean looks an image", ylabel="top-1, %")
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    save_figure(figure, path)
