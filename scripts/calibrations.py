"""Other ways to calibrate than one temperature, on what scripts/trust.py has kept: a table in docs/trust.md.

    python scripts/calibrations.py trust/two-0.npz trust/two-1.npz trust/two-2.npz

Each file is a run. Everything is fitted on its validation images; figures are of its test images, as mean
and standard deviation over the files.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax
from trust import ece_by_chance, markdown, spread, unpacked

from ramstrans.calibration.temperature import fit_temperature, log_probabilities, tempered
from ramstrans.calibration.unknown import Seen
from ramstrans.evaluation.metrics import expected_calibration_error
from ramstrans.evaluation.trust import errors

TEMPERATURES = np.exp(np.linspace(-2.5, 1.5, 201))
"""Tried where the aim is not smooth."""

Calibrated = Callable[[Seen], np.ndarray]
"""The probabilities (N, C) of some images."""


def ways(val: Seen) -> Iterator[tuple[str, Calibrated]]:
    """All ways, fitted: their names and what they give."""
    temperature = fit_temperature(val.log_fused, val.labels)
    yield "none", lambda seen: tempered(seen.log_fused, 1.0)
    yield "one temperature, by NLL (`calibrate`)", lambda seen: tempered(seen.log_fused, temperature)
    aims = {
        "Brier": lambda p: errors(p, val.labels)["brier"],
        "ECE": lambda p: expected_calibration_error(p, val.labels),
        "mean confidence": lambda p: abs((p.max(axis=1) - (p.argmax(axis=1) == val.labels)).mean()),
    }
    for name, aim in aims.items():
        best = min(TEMPERATURES, key=lambda one, aim=aim: aim(tempered(val.log_fused, one)))
        yield f"one temperature, by {name}", lambda seen, best=best: tempered(seen.log_fused, best)
    yield "mixed with none and with equal probabilities", mixture(val, temperature)
    mean = fit_temperature(mean_logarithm(val), val.labels)
    yield "mean of logarithms, one temperature", lambda seen: softmax(mean_logarithm(seen) / mean, axis=1)
    if len(val.probabilities) > 1:
        yield "weighted mean of logarithms", weighted_logarithms(val)
    for strength in (0.5, 5.0):
        yield f"temperature and a bias per class, l2 {strength:g}", with_bias(val, temperature, strength)


def nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative logarithm of the true class's probability."""
    return -float(np.log(probabilities[np.arange(len(labels)), labels] + 1e-12).mean())


def mean_logarithm(seen: Seen) -> np.ndarray:
    """(N, C) mean of the logarithms of the scales' probabilities."""
    return np.asarray(log_probabilities(seen.probabilities).mean(axis=0))


def mixture(val: Seen, temperature: float) -> Calibrated:
    """Ensemble temperature scaling (Zhang et al. 2020, https://arxiv.org/abs/2003.07329)."""

    def mixed(seen: Seen, given: np.ndarray) -> np.ndarray:
        shares = softmax(given[:3])
        own, raw = tempered(seen.log_fused, float(np.exp(given[3]))), tempered(seen.log_fused, 1.0)
        return np.asarray(shares[0] * own + shares[1] * raw + shares[2] / raw.shape[1])

    start = np.array([2, 0, -2, np.log(temperature)])
    options = {"maxiter": 4000}
    best = minimize(lambda x: nll(mixed(val, x), val.labels), start, method="Nelder-Mead", options=options).x
    return partial(mixed, given=best)


def weighted_logarithms(val: Seen) -> Calibrated:
    """A weight for the logarithms of each scale."""

    def combined(seen: Seen, weights: np.ndarray) -> np.ndarray:
        logs = log_probabilities(seen.probabilities)
        return np.asarray(softmax(np.tensordot(weights, logs, 1), axis=1))

    start = np.full(len(val.probabilities), 1 / len(val.probabilities))
    best = minimize(lambda x: nll(combined(val, x), val.labels), start, method="Nelder-Mead").x
    return partial(combined, weights=best)


def with_bias(val: Seen, temperature: float, strength: float) -> Calibrated:
    """A factor for all logarithms and a bias for each class; the biases are held small."""

    def biased(seen: Seen, given: np.ndarray) -> np.ndarray:
        return np.asarray(softmax(seen.log_fused / np.exp(given[0]) + given[1:], axis=1))

    def loss(given: np.ndarray) -> float:
        return nll(biased(val, given), val.labels) + strength * float((given[1:] ** 2).sum()) / len(
            val.labels
        )

    start = np.concatenate([[np.log(temperature)], np.zeros(val.log_fused.shape[1])])
    return partial(biased, given=minimize(loss, start, method="L-BFGS-B").x)


def main() -> None:
    """Fit every way on each run, and print the table."""
    rows: dict[str, list[dict[str, float]]] = {}
    for path in sys.argv[1:]:
        with np.load(path) as arrays:
            kinds = unpacked(arrays).kinds
        val, test = kinds["val"], kinds["test"]
        for name, calibrated in ways(val):
            answer = calibrated(test)
            found = errors(answer, test.labels) | {"by_chance": ece_by_chance(answer)}
            rows.setdefault(name, []).append(found)
    columns = {"ece": "ECE", "by_chance": "ECE if exact", "nll": "NLL", "brier": "Brier"}
    table = [
        [name, *(spread([one[key] for one in found]) for key in columns)] for name, found in rows.items()
    ]
    print("\n".join(markdown(["", *columns.values()], table)))


if __name__ == "__main__":
    main()
