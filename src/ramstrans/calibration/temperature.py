"""Temperature scaling (https://arxiv.org/abs/1706.04599): one number that makes confidences honest.

    q_c = softmax(log p / T)_c,    T = argmin of the mean of -log q_y over images of class y

With `log p` in place of logits, `q` is the same: they differ by a constant. In 1 / T the loss is convex, so
that its minimum is the only zero of its derivative, which a bracketing search finds in float64.
"""

import numpy as np
from numpy.typing import NDArray

from ramstrans.plain import counted

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0

_SMALLEST = np.finfo(np.float32).tiny
"""What a probability of 0 counts as."""


def log_probabilities(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """The logarithms of probabilities, in float64; of 0 that of float32's smallest number."""
    return np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))


def tempered(log_p: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities (..., C) at a temperature, from logits or logarithms of probabilities (..., C).

    The order of the classes stays.

    >>> tempered(np.log([0.8, 0.2]), 2.0).round(4).tolist()  # sqrt(0.8) : sqrt(0.2) = 2 : 1
    [0.6667, 0.3333]
    """
    scaled = log_p / temperature
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def fit_temperature(log_p: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """The temperature with the lowest loss, between 0.05 and 20; 1 if every image is right.

    If every image is right, the loss falls forever as the temperature does: nothing says where to stop.

    Args:
        log_p: (N, C) logits, or logarithms of probabilities.
        labels: (N,) the true classes.

    >>> log_p = np.log([[0.9, 0.1]] * 4)  # 90 % sure, and right in 3 of 4: q = 0.75, log 9 / log 3 = 2
    >>> round(fit_temperature(log_p, np.array([0, 0, 0, 1])), 6)
    2.0
    """
    from scipy.optimize import brentq  # not where only `tempered` is needed: exported folders have no SciPy

    if (log_p.argmax(axis=1) == labels).all():
        return 1.0
    truth = np.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        """Derivative of the loss by 1 / T."""
        mean = (tempered(log_p, 1 / inverse) * log_p).sum(axis=1)
        return float((mean - truth).mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope(low) >= 0:
        return MAX_TEMPERATURE
    if slope(high) <= 0:
        return MIN_TEMPERATURE
    return float(1 / brentq(slope, low, high, xtol=1e-12, rtol=1e-12))


def temperature_notes(log_p: NDArray[np.float64], labels: NDArray[np.integer]) -> list[str]:
    """What a reader must know about a temperature that could not be fitted."""
    if (log_p.argmax(axis=1) == labels).all():
        return [
            f"all {counted(len(labels), 'image')} are classified correctly, which says nothing about how "
            "sure to be: the probabilities stay as they are"
        ]
    return []
