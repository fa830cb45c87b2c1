"""Apply a calibration to what a model gives: the one place, for every command, server and exported model.

It is imported without torch, SciPy and safetensors, which exported folders do not need.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramstrans.calibration.conformal import sets
from ramstrans.calibration.fitted import Calibration, UnknownRule
from ramstrans.calibration.priors import weighted
from ramstrans.calibration.scores import NEEDS, score_of
from ramstrans.calibration.taxonomy import RolledUp, roll_up
from ramstrans.calibration.temperature import log_probabilities, tempered
from ramstrans.errors import UsageError


class Answers(NamedTuple):
    """Answers for N images of C classes; None where nothing was fitted.

    Attributes:
        probabilities: (N, C) calibrated, of all scales together, with priors if there are some.
        without_priors: (N, C) the same without priors.
        unknown_scores: (N,), high for images of no known class; without priors.
        unknown: (N,) bool, whether the score is above the threshold.
        sets: (N, C) bool, the classes in each image's prediction set; without priors, under which its promise
            would not hold.
        rolled_up: At the finest ranks that are certain enough, with priors.
    """

    probabilities: NDArray[np.float64]
    without_priors: NDArray[np.float64]
    unknown_scores: NDArray[np.float64] | None
    unknown: NDArray[np.bool_] | None
    sets: NDArray[np.bool_] | None
    rolled_up: RolledUp | None

    def set_of(self, index: int) -> list[int]:
        """The labels in the set of one image, most probable first, equal ones in label order."""
        assert self.sets is not None, "prediction sets were fitted"
        labels = np.flatnonzero(self.sets[index])
        order = np.argsort(-self.without_priors[index, labels], kind="stable")
        return [int(label) for label in labels[order]]


def answers(
    calibration: Calibration,
    fused: NDArray[np.floating],
    logits: NDArray[np.floating] | None = None,
    features: NDArray[np.floating] | None = None,
    *,
    num_scales: int | None = None,
    weights: NDArray[np.float64] | None = None,
) -> Answers:
    """Calibrate the answers for N images, and say which are unknown and which classes are possible.

    First comes the temperature, then what was fitted with it, the unknown and the sets; then priors, then the
    ranks. Without priors, the most probable class is the same as before.

    Args:
        calibration: What was fitted.
        fused: (N, C) probabilities, the mean of those of the scales.
        logits: (S, N, C); needed if `calibration.needs` says so.
        features: (S, N, D), what the classifier reads; needed if `calibration.needs` says so.
        num_scales: S, how many scales `fused` is the mean of; None: all that it was fitted for.
        weights: (N, C) priors, rows of ones for images without; None: there are none.

    Raises:
        UsageError: What the score of the unknown needs is missing.
    """
    count = num_scales or len(calibration.fused)
    probabilities = tempered(log_probabilities(fused), calibration.temperatures[count - 1])
    rule, scores = calibration.fused[count - 1].unknown, None
    if rule is not None:
        check_given(rule, logits, features)
        scores = score_of(rule.score, rule.scales, probabilities, logits, features, calibration.arrays)
    return from_calibrated(calibration, probabilities, scores, num_scales=count, weights=weights)


def check_given(
    rule: UnknownRule, logits: NDArray[np.floating] | None, features: NDArray[np.floating] | None
) -> None:
    """Raise UsageError unless what the score of the unknown is computed from is there."""
    given = {"logits": logits, "features": features}
    if missing := [need for need in NEEDS[rule.score] if given[need] is None]:
        raise UsageError(
            f"this model tells the unknown by {rule.score}, which needs {' and '.join(missing)}, "
            "and there are none; calibrate it with --score max_probability"
        )


def from_calibrated(
    calibration: Calibration,
    probabilities: NDArray[np.float64],
    unknown_scores: NDArray[np.float64] | None,
    *,
    num_scales: int | None = None,
    weights: NDArray[np.float64] | None = None,
) -> Answers:
    """As `answers`, of what an exported graph gives: probabilities (N, C) that are calibrated, and scores.

    The scores (N,) of the unknown are None where the calibration has no rule for it.
    """
    rule = calibration.fused[(num_scales or len(calibration.fused)) - 1]
    unknown = inside = None
    if rule.unknown is not None and unknown_scores is not None:
        unknown = unknown_scores > rule.unknown.threshold
    if rule.sets is not None:
        inside = sets(probabilities, rule.sets.method, rule.sets.quantiles(rule.sets.method))
    final = probabilities if weights is None else weighted(probabilities, weights)
    rolled_up = None if calibration.taxonomy is None else roll_up(calibration.taxonomy, final)
    return Answers(final, probabilities, unknown_scores, unknown, inside, rolled_up)


def of_scale(
    calibration: Calibration, probabilities: NDArray[np.floating], scale: int
) -> NDArray[np.float64]:
    """(N, C) calibrated probabilities of one scale alone, numbered from 1."""
    return tempered(log_probabilities(probabilities), calibration.scales[scale - 1])
