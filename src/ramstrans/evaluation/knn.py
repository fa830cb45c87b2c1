"""How well neighbours tell the classes: what the features know, whatever the classifier makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramstrans.evaluation.metrics import wilson_interval
from ramstrans.evaluation.predict import Predictions
from ramstrans.saved.embeddings import nearest, unit, vote


def knn_report(k: int, training: Predictions, tested: Predictions, num_classes: int) -> dict[str, Any]:
    """Top-1 of the vote of the k nearest training images, in percent, with its 95 % interval; see `vote`.

    An image that is a training image itself has no vote in its own class.

    Args:
        k: How many vote; all, if there are fewer.
        training: For the training images, with their features.
        tested: For the images that are told, the same.
        num_classes: C.

    Returns:
        `k`, `num_images` that were searched, `scales`, of each scale alone, and `fused`, by the mean of their
        cosines: `top1` and `interval`.
    """
    assert training.features is not None, "kept"
    assert tested.features is not None, "kept"
    scales = [slice(scale, scale + 1) for scale in range(len(tested.features))]
    own, found = own_rows(training, tested), []
    for part in [*scales, slice(None)]:
        bank, queries = (
            unit(_flat(features[part]), len(features[part]))
            for features in (training.features, tested.features)
        )
        indices, cosines = nearest_others(bank, queries, k, own)
        answers = vote(indices, cosines, training.labels.tolist(), num_classes)
        right, total = int((answers == tested.labels).sum()), len(answers)
        found.append({"top1": 100 * right / total, "interval": list(wilson_interval(right, total))})
    count = len(training.labels)
    return {"k": min(k, count), "num_images": count, "scales": found[:-1], "fused": found[-1]}


def own_rows(training: Predictions, tested: Predictions) -> NDArray[np.intp]:
    """(M, R) rows of the training images that are the files of M tested ones; -1 where there are fewer."""
    rows: dict[Path, list[int]] = {}
    for row, record in enumerate(training.records):
        rows.setdefault(record.path.absolute(), []).append(row)
    own = [rows.get(record.path.absolute(), []) for record in tested.records]
    most = max(map(len, own), default=0)
    return np.array([each + [-1] * (most - len(each)) for each in own], np.intp).reshape(len(own), most)


def nearest_others(
    bank: NDArray[np.floating], queries: NDArray[np.floating], k: int, own: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """As `nearest`, without a query's own rows (M, R); where too few others are left, own ones have -inf.

    >>> bank = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> nearest_others(bank, bank[1:2], 1, np.array([[1]]))[0].tolist()
    [[2]]
    """
    indices, cosines = nearest(bank, queries, k + own.shape[1])
    is_own = (indices[:, :, None] == own[:, None]).any(axis=2)
    order = np.argsort(is_own, axis=1, kind="stable")[:, :k]
    cosines = np.where(is_own, -np.inf, cosines).astype(np.float32)
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def _flat(features: NDArray[np.floating]) -> NDArray[np.floating]:
    """(S, N, D) -> (N, S * D)."""
    return features.transpose(1, 0, 2).reshape(features.shape[1], -1)
