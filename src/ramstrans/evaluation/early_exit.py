"""Early exit: the curve of accuracy against cost, the choice of a threshold, and the time it saves."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from ramstrans.calibration.fitted import Calibration
from ramstrans.calibration.temperature import log_probabilities, tempered
from ramstrans.console import Progress, no_progress
from ramstrans.data.loading.loader import ImageLoader
from ramstrans.distributed import autocast, synchronize
from ramstrans.evaluation.metrics import FEW_IMAGES, classification_metrics, wilson_interval
from ramstrans.evaluation.predict import Predictions
from ramstrans.models.methods.early_exit import check_num_scales, exit_early
from ramstrans.models.methods.method import Method
from ramstrans.saved.metadata import EarlyExit

MAX_ACCURACY_DROP = 0.2
"""Percentage points of top-1 accuracy that early exit may cost, see `choose_exit`."""

NEVER = 2.0
"""A confidence that no image reaches."""

MAX_POINTS = 1000
"""Maximum number of confidences to try: all that occur, or this many quantiles of them."""


class ExitCurve(NamedTuple):
    """Accuracy against cost, ascending in confidence; at the last confidence no image exits early.

    Attributes:
        confidences: (T,) thresholds.
        top1: (T,) percent.
        changed: (T,) percent of images whose prediction differs from that of all scales.
        mean_scales_used: (T,) mean number of scales per image, 1 to S.
    """

    confidences: np.ndarray
    top1: np.ndarray
    changed: np.ndarray
    mean_scales_used: np.ndarray


def running_means(probabilities: np.ndarray, calibration: Calibration | None = None) -> np.ndarray:
    """(S, N, C) means of the first 1, 2, ... S scales' probabilities (S, N, C), each of them calibrated."""
    counts = np.arange(1, len(probabilities) + 1)[:, None, None]
    means = np.asarray(probabilities.cumsum(axis=0) / counts)
    if calibration is None:
        return means
    rules = calibration.fused[: len(means)]
    return np.stack(
        [tempered(log_probabilities(mean), rule.temperature) for mean, rule in zip(means, rules, strict=True)]
    )


def num_scales_used(means: np.ndarray, confidence: float) -> np.ndarray:
    """(N,) number of scales that each image passes, 1 to S, if it exits at a confidence.

    `means` (S, N, C) come from `running_means`.

    >>> num_scales_used(np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.3, 0.7]]]), 0.75)
    array([1, 2])
    """
    is_confident = means.max(axis=2) >= confidence
    is_confident[-1] = True  # all exit after the last scale
    return np.asarray(is_confident.argmax(axis=0) + 1)


def exited_early(means: np.ndarray, confidence: float) -> np.ndarray:
    """(N, C) probabilities with early exit at a confidence; `means` (S, N, C) from `running_means`."""
    return np.asarray(means[num_scales_used(means, confidence) - 1, np.arange(means.shape[1])])


class Exits(NamedTuple):
    """What early exit answers for N images.

    Attributes:
        labels: (N,) the class of each.
        num_scales: (N,) how many scales each takes, 1 to S.
    """

    labels: np.ndarray
    num_scales: np.ndarray


def exits_at(predictions: Predictions, confidence: float, calibration: Calibration | None = None) -> Exits:
    """The answers with early exit at a confidence; with a calibration it is that of calibrated means."""
    means = running_means(predictions.probabilities, calibration)
    return Exits(exited_early(means, confidence).argmax(axis=1), num_scales_used(means, confidence))


def exit_curve(predictions: Predictions, calibration: Calibration | None = None) -> ExitCurve:
    """Compute what each confidence would cost and save, from predictions of all scales."""
    means, labels = running_means(predictions.probabilities, calibration), predictions.labels
    occurring = np.unique(means[:-1].max(axis=2))
    if len(occurring) > MAX_POINTS:
        occurring = np.unique(np.quantile(occurring, np.linspace(0, 1, MAX_POINTS), method="nearest"))
    confidences = np.append(occurring, np.inf)
    classes = means.argmax(axis=2)
    used = np.stack([num_scales_used(means, confidence) for confidence in confidences])
    early = classes[used - 1, np.arange(len(labels))]
    return ExitCurve(
        confidences,
        top1=100 * (early == labels).mean(axis=1),
        changed=100 * (early != classes[-1]).mean(axis=1),
        mean_scales_used=used.mean(axis=1),
    )


def choose_exit(
    predictions: Predictions,
    max_accuracy_drop: float = MAX_ACCURACY_DROP,
    calibration: Calibration | None = None,
) -> EarlyExit:
    """Choose the lowest confidence such that neither it nor any higher one costs more than allowed.

    The cost, in percentage points of top-1 accuracy, is counted as predictions that differ from those of all
    scales, an upper bound of the accuracy lost. The loss is smaller where some of them turn from wrong to
    right, but on a few hundred images that balance is luck, and a choice by it cost more than allowed on
    other images (docs/performance.md). Give predictions for other images than the accuracy is reported on.

    Raises:
        UsageError: The model has one scale.
    """
    check_num_scales(len(predictions.probabilities))
    curve = exit_curve(predictions, calibration)
    too_costly = np.flatnonzero(curve.changed > max_accuracy_drop + 1e-9)
    index = int(too_costly[-1]) + 1 if len(too_costly) else 0
    return EarlyExit(
        confidence=float(min(curve.confidences[index], NEVER)),
        chosen_on=", ".join(sorted({record.split for record in predictions.records})),
        num_images=len(predictions.labels),
        top1_lost=float(curve.top1[-1] - curve.top1[index]),
        mean_scales_used=float(curve.mean_scales_used[index]),
        is_calibrated=calibration is not None,
    )


def exit_warnings(choice: EarlyExit) -> list[str]:
    """Say how sure a confidence is that was chosen on few images; nothing if enough, or if no image exits.

    On so few images a choice that `choose_exit` allows changes no prediction; Wilson's interval says how many
    of other images' predictions it may change.

    >>> exit_warnings(EarlyExit(0.8, "val", 12, 0.0, 1.5))[0][:78]
    'early exit at confidence 0.800 changes none of the 12 images that it was chose'
    """
    if choice.num_images >= FEW_IMAGES or choice.confidence >= 1:
        return []
    _, most = wilson_interval(0, choice.num_images)
    return [
        f"early exit at confidence {choice.confidence:.3f} changes none of the {choice.num_images} images "
        f"that it was chosen on, but may change up to {most:.0f} % of other predictions (95 % interval): "
        f"leave a margin, e.g. --early_exit {(1 + choice.confidence) / 2:.3f}, or choose on "
        f"{FEW_IMAGES} images or more"
    ]


@torch.inference_mode()
def time_exit(
    model: Method,
    loader: ImageLoader,
    *,
    confidence: float,
    precision: str,
    calibration: Calibration | None = None,
    progress: Progress = no_progress,
) -> dict[str, float]:
    """Total seconds of a model, without loading, with all scales (`full`) and with early exit (`early`).

    Both run on each batch, alternating which one goes first.
    """
    model.eval()
    device = model.device
    ways = {
        "full": partial(model, last_region=False),
        "early": partial(
            exit_early,
            model,
            confidence=confidence,
            temperatures=None if calibration is None else calibration.temperatures,
        ),
    }
    total = dict.fromkeys(ways, 0.0)
    for done, batch in enumerate(loader, start=1):
        inputs = model.normalize(batch.images, batch.high_res)
        for name in reversed(ways) if done % 2 else ways:
            synchronize(device)
            start = time.perf_counter()
            with autocast(device, precision):
                ways[name](*inputs, boxes=batch.boxes)
            synchronize(device)
            total[name] += time.perf_counter() - start
        progress(done, len(loader), "timing early exit")
    return total


def exit_report(
    predictions: Predictions,
    confidence: float,
    seconds: Mapping[str, float],
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Report what early exit costs and saves on a split.

    Returns:
        `confidence`, the metrics with early exit, `top1_lost` against all scales (percentage points),
        `changed` (percent of predictions that differ from those of all scales), `mean_scales_used`,
        `exited_early` (percent of images that exit before the last scale), `exited_at` (percent that exit
        after each scale), `speedup` (times as fast as all scales), `seconds` of both, and the `curve`.
    """
    means = running_means(predictions.probabilities, calibration)
    used = num_scales_used(means, confidence)
    early = exited_early(means, confidence)
    metrics = classification_metrics(early, predictions.labels)
    full = classification_metrics(predictions.fused, predictions.labels)
    curve = exit_curve(predictions, calibration)
    points = np.unique(np.linspace(0, len(curve.confidences) - 1, 101).round().astype(int))
    return {
        "confidence": confidence,
        **metrics._asdict(),
        "top1_lost": full.top1 - metrics.top1,
        "changed": 100 * (early.argmax(axis=1) != predictions.fused.argmax(axis=1)).mean(),
        "mean_scales_used": used.mean(),
        "exited_early": 100 * (used < len(means)).mean(),
        "exited_at": 100 * np.bincount(used - 1, minlength=len(means)) / len(used),
        "speedup": seconds["full"] / seconds["early"],
        "seconds": dict(seconds),
        "curve": {name: values[points] for name, values in curve._asdict().items()},
    }
