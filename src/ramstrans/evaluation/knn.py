"""How well neighbours tell the classes: what the features know, whatever the classifier makes of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramstrans.evaluation.metrics import wilson_interval
from ramstrans.evaluation.predict import Predictions
from ramstrans.saved.embeddings import nearest, unit, vote


def knn_report(k: int, training: Predictions, tested: Predictions, num_classes: int) -> dict[str, Any]:
    """Top-1 of the vote of the k nearest training images, in percent, with its 95 % interval; see `vote`.

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
    found = []
    for part in [*scales, slice(None)]:
        bank, queries = (
            unit(_flat(features[part]), len(features[part]))
            for features in (training.features, tested.features)
        )
        indices, cosines = nearest(bank, queries, k)
        answers = vote(indices, cosines, training.labels.tolist(), num_classes)
        right, total = int((answers == tested.labels).sum()), len(answers)
        found.append({"top1": 100 * right / total, "interval": list(wilson_interval(right, total))})
    count = len(training.labels)
    return {"k": min(k, count), "num_images": count, "scales": found[:-1], "fused": found[-1]}


def _flat(features: NDArray[np.floating]) -> NDArray[np.floating]:
    """(S, N, D) -> (N, S * D)."""
    return features.transpose(1, 0, 2).reshape(features.shape[1], -1)
