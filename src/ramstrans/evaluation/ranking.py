"""The most probable classes; without torch."""

import numpy as np


def top_classes(probabilities: np.ndarray, top_k: int) -> np.ndarray:
    """(min(top_k, C),) labels of the most probable of C classes, best first, equal ones in label order.

    >>> top_classes(np.array([0.1, 0.3, 0.2, 0.3]), 3).tolist()
    [1, 3, 2]
    """
    if top_k < len(probabilities):
        bound = np.partition(-probabilities, top_k - 1)[top_k - 1]  # sorting thousands of classes is slow
        candidates = np.flatnonzero(~(-probabilities > bound))
    else:
        candidates = np.arange(len(probabilities))
    order = np.argsort(-probabilities[candidates], kind="stable")
    return np.asarray(candidates[order[:top_k]])
