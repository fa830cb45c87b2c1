"""How often the answers are right: top-k, per-class accuracy, confusions, calibration; all in percent.

The counting is NumPy's rather than torchmetrics': ties go to the lower label, as argmax has it, a class
that is predicted but has no images stays out of the mean, and no C x C matrix is ever held.
"""

import math
from typing import NamedTuple

import numpy as np

from ramstrans.errors import DataError, WeightsError

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


class ScaleMetrics(NamedTuple):
    """How often one scale, or the fused answer, is right.

    Attributes:
        top1: Percent of images whose first answer is the true class.
        top5: Percent of images with the true class among the first min(5, C) answers.
        mean_class_accuracy: Mean over the classes that have images of the percent that is right.
        top1_interval: 95 % Wilson interval of `top1`, percent.
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    top1_interval: tuple[float, float]


class ConfusedPair(NamedTuple):
    """`num_images` images of class `true` that were taken for class `predicted` (labels)."""

    true: int
    predicted: int
    num_images: int


def classification_metrics(probabilities: np.ndarray, labels: np.ndarray) -> ScaleMetrics:
    """Top-1, top-5 and mean per-class accuracy of one scale's answers.

    Args:
        probabilities: (N, C), finite.
        labels: (N,) the true classes.

    >>> answers = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]])
    >>> metrics = classification_metrics(answers, np.array([0, 1, 1]))
    >>> round(metrics.top1, 1), metrics.top5, metrics.mean_class_accuracy
    (66.7, 100.0, 75.0)
    """
    ranks = true_ranks(probabilities, labels)
    num_right, num_among_five = int((ranks == 0).sum()), int((ranks < 5).sum())
    return ScaleMetrics(
        top1=100 * num_right / len(ranks),
        top5=100 * num_among_five / len(ranks),
        mean_class_accuracy=float(np.nanmean(per_class_accuracy(probabilities, labels))),
        top1_interval=wilson_interval(num_right, len(ranks)),
    )


def true_ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) place of the true class among the answers, 0 the first; of equal answers the lower label leads.

    Args:
        probabilities: (N, C), finite.
        labels: (N,) the true classes.

    >>> true_ranks(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), np.array([2, 1]))
    array([1, 1])
    """
    if len(labels) == 0:
        raise DataError("there are no images to evaluate; choose a split that has some")
    num_broken = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if num_broken:
        raise WeightsError(
            f"the model's answers are NaN or infinite for {num_broken} of {len(labels)} images; "
            "its weights are damaged or its training diverged: train again, e.g. with a lower --training.lr"
        )
    truth = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > truth) | ((probabilities == truth) & earlier)
    ranks: np.ndarray = ahead.sum(axis=1)
    return ranks


def wilson_interval(num_right: int, num_images: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share, in percent (https://doi.org/10.1080/01621459.1927.10502953).

    >>> [round(end, 1) for end in wilson_interval(90, 100)]
    [82.6, 94.5]
    """
    share, z2 = num_right / num_images, Z_95**2 / num_images
    centre = share + z2 / 2
    spread = Z_95 * math.sqrt((share * (1 - share) + z2 / 4) / num_images)
    low, high = (centre - spread) / (1 + z2), (centre + spread) / (1 + z2)
    return 100 * max(min(low, share), 0.0), 100 * min(max(high, share), 1.0)  # against rounding


def per_class_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C,) percent of each class's images that are right; NaN for a class without images.

    Args:
        probabilities: (N, C), finite.
        labels: (N,) the true classes.

    >>> per_class_accuracy(np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]]), np.array([0, 1]))
    array([100.,   0.,  nan])
    """
    num_classes = probabilities.shape[1]
    num_images = np.bincount(labels, minlength=num_classes)
    right = labels[true_ranks(probabilities, labels) == 0]
    num_right = np.bincount(right, minlength=num_classes)
    accuracy = np.full(num_classes, np.nan)
    np.divide(100.0 * num_right, num_images, out=accuracy, where=num_images > 0)
    return accuracy


def confused_pairs(probabilities: np.ndarray, labels: np.ndarray, n: int) -> list[ConfusedPair]:
    """The `n` commonest mistakes, the commonest first, equal ones in label order.

    Args:
        probabilities: (N, C), finite.
        labels: (N,) the true classes.
        n: Largest number of pairs; fewer come back where fewer classes are confused.

    >>> confused_pairs(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 1, 0]), 1)
    [ConfusedPair(true=1, predicted=0, num_images=2)]
    """
    predicted = probabilities.argmax(axis=1)
    wrong = predicted != labels
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:n]
    return [ConfusedPair(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Mean distance, in percentage points, of confidence from accuracy over equal bins of confidence.

    0 is perfect: of all answers given with 80 % probability, 80 % are right (https://arxiv.org/abs/1706.04599).

    Args:
        probabilities: (N, C), finite.
        labels: (N,) the true classes.
        num_bins: Bins of [0, 1].

    >>> round(expected_calibration_error(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1])), 1)
    30.0
    """
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    # Rounding can push a mean of softmaxes past 1, which torchmetrics would take for logits.
    answers = torch.from_numpy(np.clip(probabilities, 0, 1))
    error = multiclass_calibration_error(
        answers, torch.from_numpy(labels), num_classes=answers.shape[1], n_bins=num_bins
    )
    return 100 * float(error)
