"""Metrics of images that may have several labels: average precision, F1, exact match, thresholds.

`probabilities` are (N, C) in [0, 1] for N images and C labels, `truth` (N, C) bool. Metrics are in percent. A
mean over labels ("macro") leaves out those that no image has; "micro" counts all answers of all labels alike.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ramstrans.errors import DataError, WeightsError

NUM_RESAMPLES, MIN_RESAMPLES, MAX_NUMBERS = 1000, 100, 200_000_000
"""Resamples of a bootstrap: fewer if these would take more numbers, but not fewer than the least."""

FEW_POSITIVES = 10
"""A threshold that was chosen on fewer images with the label is uncertain, which is reported."""

INTERVAL = (2.5, 97.5)
"""Percentiles of the resamples between which a 95 % interval lies."""

Metrics = dict[str, float | tuple[float, float]]
"""By name: the metric, and as `<name>_interval` its 95 % interval."""


class Sorted(NamedTuple):
    """Images in the order of each label's probability, so that average precision is a cumulative sum.

    Attributes:
        order: (N, C) int64, indices of the images, the most probable first.
        truth: (N, C) bool in this order.
        last: (N, C) int64, the rank of the last image of equal probability.
    """

    order: np.ndarray
    truth: np.ndarray
    last: np.ndarray


def sort_by_label(probabilities: np.ndarray, truth: np.ndarray) -> Sorted:
    """Sort the images for each label.

    Raises:
        DataError: There are no images.
        WeightsError: A probability is not finite.
    """
    if len(truth) == 0:
        raise DataError("there are no images to evaluate; choose a split that has some")
    num_broken = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if num_broken:
        raise WeightsError(
            f"the predicted probabilities are NaN or infinite for {num_broken} of {len(truth)} images; "
            "its weights are damaged or its training diverged: train again, e.g. with a lower --training.lr"
        )
    order = np.argsort(-probabilities, axis=0, kind="stable")
    sorted_probabilities = np.take_along_axis(probabilities, order, axis=0)
    ranks = np.arange(len(truth))[:, None]
    is_last = np.ones(truth.shape, dtype=bool)
    is_last[:-1] = sorted_probabilities[:-1] != sorted_probabilities[1:]
    last = np.where(is_last, ranks, len(truth) - 1)
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    return Sorted(order, np.take_along_axis(truth, order, axis=0), last)


def average_precisions(images: Sorted, weights: np.ndarray | None = None) -> np.ndarray:
    """(C,) average precision of each label in percent; NaN for one that no image has.

        AP = sum over n of (R_n - R_(n-1)) P_n

    with precision P_n and recall R_n among the images down to the n-th probability, equal ones together, as
    scikit-learn's `average_precision_score` has it (not interpolated).

    Args:
        images: See `sort_by_label`.
        weights: (N,), how often each image counts; None: once.

    >>> images = sort_by_label(np.array([[0.9], [0.8], [0.1]]), np.array([[True], [False], [True]]))
    >>> average_precisions(images).round(1)  # (1 / 1 + 2 / 3) / 2
    array([83.3])
    """
    counted = np.ones(images.truth.shape) if weights is None else weights[images.order].astype(float)
    positive = counted * images.truth
    total = positive.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0: no image so far, or none has the label
        precision = positive.cumsum(axis=0) / counted.cumsum(axis=0)
        at_last = np.take_along_axis(precision, images.last, axis=0)
        return np.asarray(100 * np.where(positive > 0, positive * at_last, 0).sum(axis=0) / total)


def mean_average_precision(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """mAP: the mean of `average_precisions` over the labels that some image has; NaN if there are none."""
    values = average_precisions(sort_by_label(probabilities, truth))
    return float(np.nanmean(values)) if truth.any() else float("nan")


def binary_cross_entropy(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the images of the sum over the labels, in nats, as `training.losses.multi_label_loss`.

    A probability counts as no nearer to 0 or 1 than float32 can tell from 1.

    >>> round(binary_cross_entropy(np.array([[0.5, 0.5]]), np.array([[True, False]])), 4)  # 2 ln 2
    1.3863
    """
    limit = np.finfo(np.float32).eps
    right = np.where(truth, probabilities, 1 - probabilities.astype(np.float64)).clip(limit, 1)
    return float(-np.log(right).sum(axis=1).mean())


def best_thresholds(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(C,) for each label the threshold with the highest F1; give other images than those to be evaluated.

    Thresholds lie halfway between two neighbouring probabilities, or between the lowest and 0; of equally
    good ones that nearest to 0.5 is taken. A label that no image has gets 0.5.

    >>> best_thresholds(np.array([[0.9], [0.4], [0.3]]), np.array([[True], [True], [False]])).round(2)
    array([0.35])
    """
    thresholds = np.full(truth.shape[1], 0.5)
    for label in np.flatnonzero(truth.any(axis=0)):
        order = np.argsort(-probabilities[:, label], kind="stable")
        scores = np.append(probabilities[order, label].astype(np.float64), 0)
        right = truth[order, label].cumsum()
        f1 = 2 * right / (np.arange(1, len(order) + 1) + right[-1])
        cuts = (scores[:-1] + scores[1:]) / 2
        f1 = np.where(scores[:-1] > scores[1:], f1, -1)
        best = np.flatnonzero(f1 >= f1.max() - 1e-12)
        thresholds[label] = cuts[best[np.abs(cuts[best] - 0.5).argmin()]]
    return thresholds


def threshold_warnings(truth: np.ndarray) -> list[str]:
    """Say which thresholds rest on few of the images that they were chosen on; nothing if none does.

    >>> threshold_warnings(np.arange(20)[:, None] < np.array([20, 3]))
    ['the threshold of 1 of 2 labels was chosen on fewer than 10 validation images that have it']
    """
    num_few = int((truth.sum(axis=0) < FEW_POSITIVES).sum())
    few = f"the threshold of {num_few} of {truth.shape[1]} labels was chosen on fewer than {FEW_POSITIVES}"
    return [f"{few} validation images that have it"] if num_few else []


def decision_metrics(predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """(R,) each: precision, recall and F1, micro and macro, and exact match, for R weightings of the images.

    Exact match: images whose labels are all right, and none too many. Where nothing was predicted, precision
    is 0; a label that no image has stays out of the macro means.

    Args:
        predicted: (N, C) bool.
        truth: (N, C) bool.
        weights: (R, N), how often each image counts.
    """
    hits, num_predicted, num_true = (
        weights @ values.astype(float) for values in (predicted & truth, predicted, truth)
    )
    is_there = num_true > 0

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.asarray(np.divide(100 * part, whole, out=np.zeros_like(part), where=whole > 0))

    def macro(values: np.ndarray) -> np.ndarray:
        return np.asarray((values * is_there).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1))

    def micro(values: np.ndarray) -> np.ndarray:
        return np.asarray(values.sum(axis=1))

    exact = (predicted == truth).all(axis=1).astype(float)
    return {
        "f1_micro": share(2 * micro(hits), micro(num_predicted) + micro(num_true)),
        "f1_macro": macro(share(2 * hits, num_predicted + num_true)),
        "precision_micro": share(micro(hits), micro(num_predicted)),
        "precision_macro": macro(share(hits, num_predicted)),
        "recall_micro": share(micro(hits), micro(num_true)),
        "recall_macro": macro(share(hits, num_true)),
        "exact_match": share(weights @ exact, weights.sum(axis=1)),
    }


def resamples(num_images: int, num_labels: int, seed: int = 0) -> np.ndarray:
    """(R, N) how often each image is drawn in each of R draws of N images with replacement."""
    count = MAX_NUMBERS // (num_images * num_labels)
    count = min(max(count, MIN_RESAMPLES), NUM_RESAMPLES)
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=count)


def map_metrics(probabilities: np.ndarray, truth: np.ndarray, draws: np.ndarray) -> Metrics:
    """`map` and its interval, by a bootstrap over the images with `draws` from `resamples`."""
    images = sort_by_label(probabilities, truth)
    every = np.stack([average_precisions(images, weights) for weights in draws])
    is_there = ~np.isnan(every)
    means = np.where(is_there, every, 0).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)
    return {"map": mean_average_precision(probabilities, truth), "map_interval": _interval(means)}


def label_metrics(
    probabilities: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, draws: np.ndarray
) -> Metrics:
    """All metrics with their intervals: `map`, and those of `decision_metrics` at the thresholds (C,)."""
    predicted = probabilities >= thresholds
    values = decision_metrics(predicted, truth, np.ones((1, len(truth))))
    found = map_metrics(probabilities, truth, draws)
    for name, drawn in decision_metrics(predicted, truth, draws).items():
        found |= {name: float(values[name][0]), f"{name}_interval": _interval(drawn)}
    return found


def by_label(
    probabilities: np.ndarray, truth: np.ndarray, thresholds: np.ndarray
) -> list[Mapping[str, float]]:
    """For each label `num_images`, `average_precision`, `precision`, `recall`, `f1` and `threshold`.

    Average precision and recall are NaN for a label that no image has, precision for one never predicted.
    """
    predicted = probabilities >= thresholds
    hits, num_predicted, num_true = (
        (predicted & truth).sum(axis=0),
        predicted.sum(axis=0),
        truth.sum(axis=0),
    )
    with np.errstate(invalid="ignore"):
        columns = {
            "num_images": num_true,
            "average_precision": average_precisions(sort_by_label(probabilities, truth)),
            "precision": 100 * hits / num_predicted,
            "recall": 100 * hits / num_true,
            "f1": 200 * hits / (num_predicted + num_true),
            "threshold": thresholds,
        }
    return [
        {name: values[label].item() for name, values in columns.items()} for label in range(len(thresholds))
    ]


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, INTERVAL)
    return float(low), float(high)
