"""Accuracy metrics in percent: top-k, per-class accuracy, confusions, calibration; and cross-entropy.

`probabilities` are (N, C), finite, for N images and C classes; `labels` are (N,), the true classes. Ties go
to the lower label, as in argmax, a class that is predicted but has no images stays out of the mean, and no
C x C matrix is ever built.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, norm

from ramstrans.errors import DataError, WeightsError

FEW_IMAGES = 50
"""A choice made on fewer images than this is uncertain, which is reported."""


class ScaleMetrics(NamedTuple):
    """Accuracy of one scale, or of the fused prediction.

    Attributes:
        top1: Percent of images whose most probable class is the true one.
        top5: Percent of images with the true class among the min(5, C) most probable.
        mean_class_accuracy: Mean of the per-class accuracies, in percent, over the classes that have images.
        top1_interval: 95 % Wilson interval of `top1`, percent.
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    top1_interval: tuple[float, float]


class ConfusedPair(NamedTuple):
    """`num_images` images of class `true` that were classified as `predicted` (labels)."""

    true: int
    predicted: int
    num_images: int


def classification_metrics(probabilities: np.ndarray, labels: np.ndarray) -> ScaleMetrics:
    """Top-1, top-5 and mean per-class accuracy of one scale's predictions.

    >>> probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]])
    >>> metrics = classification_metrics(probabilities, np.array([0, 1, 1]))
    >>> round(metrics.top1, 1), metrics.top5, metrics.mean_class_accuracy
    (66.7, 100.0, 75.0)
    """
    ranks = true_ranks(probabilities, labels)
    num_right = int((ranks == 0).sum())
    return ScaleMetrics(
        top1=100 * num_right / len(ranks),
        top5=100 * int((ranks < 5).sum()) / len(ranks),
        mean_class_accuracy=float(np.nanmean(per_class_accuracy(probabilities, labels))),
        top1_interval=wilson_interval(num_right, len(ranks)),
    )


def true_ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) rank of the true class by probability, 0 for the highest; of equal ones the lower label leads.

    Raises:
        DataError: There are no images.
        WeightsError: A probability is not finite.

    >>> true_ranks(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), np.array([2, 1]))
    array([1, 1])
    """
    if len(labels) == 0:
        raise DataError("there are no images to evaluate; choose a split that has some")
    num_broken = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if num_broken:
        raise WeightsError(
            f"the predicted probabilities are NaN or infinite for {num_broken} of {len(labels)} images; "
            "its weights are damaged or its training diverged: train again, e.g. with a lower --training.lr"
        )
    truth = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > truth) | ((probabilities == truth) & earlier)
    return np.asarray(ahead.sum(axis=1))


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `-log p` of the true class, in nats; a probability of 0 counts as float32's smallest number.

    >>> round(cross_entropy(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])), 4)  # (ln 2 + ln 4) / 2
    1.0397
    """
    truth = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    return float(-np.log(truth.clip(min=np.finfo(np.float32).tiny)).mean())


def wilson_interval(num_right: int, num_images: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion, in percent (https://doi.org/10.1080/01621459.1927.10502953).

    >>> [round(end, 1) for end in wilson_interval(90, 100)]
    [82.6, 94.5]
    """
    interval = binomtest(num_right, num_images).proportion_ci(0.95, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def paired_interval(num_gained: int, num_lost: int, num_images: int) -> tuple[float, float]:
    """95 % interval of the difference of two accuracies on the same images, in percentage points.

    Wald's interval with one image added to each kind of discordant pair, which keeps its level for few images
    (Bonett and Price 2012, equation 6, https://doi.org/10.3102/1076998611411915), cut to what is possible:

        p = (gained + 1) / (N + 2),  q = (lost + 1) / (N + 2)
        p - q +- 1.96 sqrt((p + q - (p - q)^2) / (N + 2)), within -100 to 100

    >>> [round(end, 2) for end in paired_interval(14, 4, 98)]  # p 0.15, q 0.05
    [1.46, 18.54]
    """
    total = num_images + 2
    gained, lost = (num_gained + 1) / total, (num_lost + 1) / total
    half = float(norm.ppf(0.975)) * math.sqrt((gained + lost - (gained - lost) ** 2) / total)
    return max(100 * (gained - lost - half), -100.0), min(100 * (gained - lost + half), 100.0)


def per_class_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C,) accuracy of each class in percent; NaN for a class without images.

    >>> per_class_accuracy(np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]]), np.array([0, 1]))
    array([100.,   0.,  nan])
    """
    num_classes = probabilities.shape[1]
    num_images = np.bincount(labels, minlength=num_classes)
    num_right = np.bincount(labels[probabilities.argmax(axis=1) == labels], minlength=num_classes)
    accuracy = np.full(num_classes, np.nan)
    np.divide(100.0 * num_right, num_images, out=accuracy, where=num_images > 0)
    return accuracy


def confused_pairs(probabilities: np.ndarray, labels: np.ndarray, n: int) -> list[ConfusedPair]:
    """Find the `n` most frequent mistakes, most frequent first, equal ones in label order.

    >>> confused_pairs(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 1, 0]), 1)
    [ConfusedPair(true=1, predicted=0, num_images=2)]
    """
    predicted = probabilities.argmax(axis=1)
    wrong = predicted != labels
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:n]
    return [ConfusedPair(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equal bins of confidence, in percentage points.

    0 is perfect: of all predictions with 80 % confidence, 80 % are right. Equation 3 of
    https://arxiv.org/abs/1706.04599, with M = `num_bins` bins `((m - 1) / M, m / M]`:

        ECE = sum over the bins of |B_m| / N * |accuracy(B_m) - confidence(B_m)|

    >>> round(expected_calibration_error(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1])), 1)
    30.0
    """
    confidence = probabilities.max(axis=1).astype(np.float64).clip(0, 1)  # rounding can push a mean past 1
    right = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * num_bins).astype(int)
    gaps = np.bincount(bins, right - confidence)  # |B_m| times accuracy minus confidence
    return 100 * float(np.abs(gaps).sum()) / len(labels)


def adaptive_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """As `expected_calibration_error`, over bins with equally many images, most unsure first.

    Where nearly all confidences are high, equal bins of confidence put nearly all images into one.

    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    >>> round(adaptive_calibration_error(probabilities, np.array([0, 0, 1, 0]), num_bins=2), 1)
    15.0
    """
    confidence = probabilities.max(axis=1).astype(np.float64).clip(0, 1)
    right = probabilities.argmax(axis=1) == labels
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(num_bins, len(labels)))
    gaps = [abs(float((right[part] - confidence[part]).sum())) for part in parts]
    return 100 * sum(gaps) / len(labels)


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of the probabilities from the truth, 0 to 2 (Brier 1950).

        1/N * sum over images and classes of (p_c - [c = y])^2

    >>> round(brier_score(np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([0, 1])), 6)  # (0.08 + 0.72) / 2
    0.4
    """
    squares = np.square(probabilities.astype(np.float64)).sum(axis=1)
    truth = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
    return float((squares - 2 * truth + 1).mean())
