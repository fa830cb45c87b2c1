"""Prediction sets by split conformal prediction: "one of these 3, with 95 %".

Each label of an image has a score, low where it conforms; a set holds the labels whose score is at most the
k-th smallest score of the true labels of n held-out images, k = ceil((n + 1) * coverage). If the held-out
images and a new one are exchangeable, the true label is in the set with at least this probability
(https://arxiv.org/abs/2107.07511, theorem 1). With p sorted, r the rank of a label from 1:

    LAC    1 - p                                                    https://arxiv.org/abs/1609.00451
    APS    sum of the r largest p                                   https://arxiv.org/abs/2006.02544
    RAPS   that of APS + lambda * max(0, r - k)                     https://arxiv.org/abs/2009.14193

APS and RAPS are not randomised, so that an answer can be repeated: they cover a little more than asked. No
set is empty: the most probable label is always in it, which can only cover more.
"""

import math
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ramstrans.calibration.wanted import SetMethod

SET_METHODS: tuple[SetMethod, ...] = get_args(SetMethod)

RAPS_PENALTY, RAPS_FREE_RANKS = 0.01, 5
"""lambda and k of RAPS, as in section 2.1 of https://arxiv.org/abs/2107.07511."""


def rank_of_quantile(num_images: int, share: float) -> int:
    """The k of the k-th smallest score that a share of new images does not exceed; above n: none does.

    >>> rank_of_quantile(19, 0.95), rank_of_quantile(18, 0.95), rank_of_quantile(99, 0.9)
    (19, 19, 90)
    """
    return math.ceil((num_images + 1) * share - 1e-9)


def quantile(scores: NDArray[np.floating], share: float) -> float:
    """The score that at least a `share` of new images does not exceed, see `rank_of_quantile`.

    >>> quantile(np.arange(19.0), 0.95), quantile(np.arange(99.0), 0.9)
    (18.0, 89.0)
    """
    rank = rank_of_quantile(len(scores), share)
    assert rank <= len(scores), "checked: see min_images"
    return float(np.sort(scores)[rank - 1])


def label_scores(probabilities: NDArray[np.floating], method: SetMethod) -> NDArray[np.float64]:
    """(N, C) score of each label, low where it conforms; of equal probabilities the lower label comes first.

    >>> p = np.array([[0.5, 0.2, 0.3]])
    >>> label_scores(p, "lac").round(2).tolist(), label_scores(p, "aps").round(2).tolist()
    ([[0.5, 0.8, 0.7]], [[0.5, 1.0, 0.8]])
    """
    exact = probabilities.astype(np.float64)
    if method == "lac":
        return np.asarray(1 - exact)
    order = np.argsort(-exact, axis=1, kind="stable")
    ordered = np.minimum(np.take_along_axis(exact, order, axis=1).cumsum(axis=1), 1)
    if method == "raps":
        ranks = np.arange(1, probabilities.shape[1] + 1)
        ordered += RAPS_PENALTY * np.maximum(0, ranks - RAPS_FREE_RANKS)
    scores = np.empty(exact.shape)
    np.put_along_axis(scores, order, ordered, axis=1)
    return scores


def true_scores(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], method: SetMethod
) -> NDArray[np.float64]:
    """(N,) scores of the true labels."""
    return np.take_along_axis(label_scores(probabilities, method), labels[:, None], axis=1)[:, 0]


def fit_quantiles(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    method: SetMethod,
    coverage: float,
    *,
    per_class: bool,
) -> tuple[float, ...]:
    """One score for all labels; or one per class, so that each class is covered, not their mean alone.

    Args:
        probabilities: (N, C).
        labels: (N,) the true classes; with `per_class` each has `min_images(coverage)` images or more.
        method: How labels are scored.
        coverage: In (0, 1).
        per_class: Whether each class has its own.

    >>> p = np.array([[0.9, 0.1]] * 9 + [[0.4, 0.6]] * 9)
    >>> fit_quantiles(p, np.repeat([0, 1], 9), "lac", 0.9, per_class=True)
    (0.1, 0.4)
    """
    scores = true_scores(probabilities, labels, method)
    if not per_class:
        return (round_up(quantile(scores, coverage)),)
    classes = range(probabilities.shape[1])
    return tuple(round_up(quantile(scores[labels == label], coverage)) for label in classes)


def round_up(score: float) -> float:
    """A score in six digits, raised by at most 1e-6 and never lowered: its own label stays in the set.

    >>> round_up(0.12345678), round_up(0.1), round_up(0.1234560004)
    (0.123457, 0.1, 0.123457)
    """
    millionths = math.ceil(round(score * 1e6, 3))
    return (millionths if millionths / 1e6 >= score else millionths + 1) / 1e6


def sets(
    probabilities: NDArray[np.floating], method: SetMethod, quantiles: tuple[float, ...]
) -> NDArray[np.bool_]:
    """(N, C) whether each label is in the set of each image; the most probable one always is.

    >>> sets(np.array([[0.5, 0.2, 0.3], [0.96, 0.03, 0.01]]), "lac", (0.75,)).tolist()
    [[True, False, True], [True, False, False]]
    """
    inside = label_scores(probabilities, method) <= np.array(quantiles)
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return np.asarray(inside)
