"""Weights of the scales in the fused answer, fitted on validation images."""

import numpy as np

MAX_STEPS, TOLERANCE = 2000, 1e-7


def fit_weights(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(S,) weights, summing to 1, of the mean of the scales' probabilities with the least cross-entropy.

    These are the proportions of a mixture whose components are known, so that expectation maximisation finds
    the one optimum (Dempster, Laird and Rubin 1977, https://www.jstor.org/stable/2984875, section 4.3):

        w_s <- mean over images of w_s p_s(y) / sum over t of w_t p_t(y)

    Args:
        probabilities: (S, N, C), each scale's, for N images that are not those that accuracy is reported on.
        labels: (N,), the true classes.

    >>> sure = np.array([[[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]])
    >>> fit_weights(sure, np.array([0, 1])).round(2)
    array([1., 0.])
    """
    truth = np.asarray(probabilities[:, np.arange(len(labels)), labels], dtype=np.float64)
    truth = truth.clip(min=np.finfo(np.float32).tiny)
    weights = np.full(len(truth), 1 / len(truth))
    for _ in range(MAX_STEPS):
        shares = weights[:, None] * truth
        fitted = (shares / shares.sum(axis=0)).mean(axis=1)
        if np.abs(fitted - weights).max() < TOLERANCE:
            return np.asarray(fitted)
        weights = fitted
    return weights
