"""From what a model gives for held-out images to a `Calibration`."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramstrans.calibration.conformal import SET_METHODS, fit_quantiles
from ramstrans.calibration.fitted import Calibration, ChosenBy, FusedRule, SetRule, UnknownRule
from ramstrans.calibration.scores import Reference, score_of
from ramstrans.calibration.temperature import (
    fit_temperature,
    log_probabilities,
    temperature_notes,
    tempered,
)
from ramstrans.calibration.unknown import (
    Candidate,
    Seen,
    arrays_of,
    candidates,
    choose_by_leaving_out,
    choose_on_unknown,
    threshold,
)
from ramstrans.calibration.wanted import Wanted, min_images
from ramstrans.errors import DataError, UsageError, first_few
from ramstrans.plain import counted


class Fitted(NamedTuple):
    """A calibration, and what it was chosen from.

    Attributes:
        calibration: What was fitted.
        candidates: Scores of the unknown with their figures, for the scales that answer, best first.
    """

    calibration: Calibration
    candidates: tuple[Candidate, ...]


def fit_calibration(
    known: Seen,
    wanted: Wanted,
    class_names: Sequence[str],
    *,
    fitted_on: str,
    weights: str,
    num_scales: int | None = None,
    references: Sequence[Reference] = (),
    unknown: Seen | None = None,
) -> Fitted:
    """Fit temperatures, the rule of the unknown and prediction sets, for 1, 2, ... S scales together.

    Args:
        known: For N held-out images of the model's classes.
        wanted: What is asked for.
        class_names: In label order, for errors.
        fitted_on: Which images these are.
        weights: SHA-256 of the model's weights.
        num_scales: How many of the S scales answer unless more are asked for; None: all.
        references: For each scale, features of training images; empty: scores need none.
        unknown: For images of no class of the model, to choose the score on.

    Raises:
        DataError: There are too few images, or too few of a class.
        UsageError: The score that is asked for cannot be had.
    """
    check_enough(known.labels, wanted, class_names)
    answering = known.first(num_scales or len(known.logits))
    arrays: dict[str, NDArray[np.float32]] = {}
    rules: list[FusedRule] = []
    ranked: list[list[Candidate]] = []
    for count in range(1, len(known.logits) + 1):
        first = known.first(count)
        temperature = fit_temperature(first.log_fused, known.labels)
        calibrated = tempered(first.log_fused, temperature)
        ranked.append(_rank(first, wanted, temperature, references, unknown and unknown.first(count)))
        best = ranked[-1][0]
        arrays |= arrays_of(best.score, best.scales, references)
        rule = _unknown_rule(best, first, calibrated, wanted, arrays, is_given=unknown is not None)
        rules.append(FusedRule(temperature, rule, _set_rule(calibrated, known.labels, wanted)))
    scales = [fit_temperature(log_probabilities(each), known.labels) for each in known.probabilities]
    calibration = Calibration(
        fitted_on=fitted_on,
        num_images=len(known.labels),
        weights=weights,
        scales=tuple(scales),
        fused=tuple(rules),
        notes=tuple(temperature_notes(answering.log_fused, known.labels)),
        arrays=arrays,
    )
    return Fitted(calibration, tuple(ranked[len(answering.logits) - 1]))


def check_enough(labels: NDArray[np.integer], wanted: Wanted, class_names: Sequence[str]) -> None:
    """Raise unless there are as many held-out images as the shares that are asked for need.

    Raises:
        DataError: There are too few images, or too few of a class.
    """
    if len(labels) < wanted.min_images:
        raise DataError(
            f"{counted(len(labels), 'image')} cannot tell --coverage {wanted.coverage:g} and --reject "
            f"{wanted.reject:g}: {wanted.min_images} are needed; hold out more (--data.val_fraction), give a "
            "labelled set (--data.root), or ask for less"
        )
    counts = np.bincount(labels, minlength=len(class_names))
    needed = min_images(wanted.coverage)
    few = [f"'{name}' {count}" for name, count in zip(class_names, counts, strict=True) if count < needed]
    if wanted.per_class and few:
        raise DataError(
            f"--per_class true needs {needed} images of each class for --coverage {wanted.coverage:g}, and "
            f"{len(few)} of {len(counts)} classes have fewer: {first_few(few)}; leave it out, or give a "
            "lower --coverage or more images"
        )


def _rank(
    known: Seen,
    wanted: Wanted,
    temperature: float,
    references: Sequence[Reference],
    unknown: Seen | None,
) -> list[Candidate]:
    """The scores of the unknown that can be had, best first."""
    choices = candidates(
        len(known.logits),
        has_reference=bool(references),
        has_head=bool(references) and all(reference.head is not None for reference in references),
        score=wanted.score,
    )
    if not choices:
        needs = "a linear classifier" if references else "training images to compare with"
        raise UsageError(f"--score {wanted.score} needs {needs}; give another, or auto")
    if unknown is None:
        return choose_by_leaving_out(choices, known, references, temperature)
    return choose_on_unknown(choices, known, unknown, references, temperature)


def _unknown_rule(
    best: Candidate,
    known: Seen,
    calibrated: NDArray[np.floating],
    wanted: Wanted,
    arrays: dict[str, NDArray[np.float32]],
    *,
    is_given: bool,
) -> UnknownRule:
    scores = score_of(best.score, best.scales, calibrated, known.logits, known.features, arrays)
    chosen_by: ChosenBy = "given unknown images" if is_given else "classes left out"
    if wanted.score != "auto":
        chosen_by = "name"
    elif math.isnan(best.auroc):
        chosen_by = "default"
    figures = [None if math.isnan(value) else value for value in (best.auroc, best.fpr95)]
    return UnknownRule(
        best.score, best.scales, threshold(scores, wanted.reject), wanted.reject, chosen_by, *figures
    )


def _set_rule(calibrated: NDArray[np.floating], labels: NDArray[np.integer], wanted: Wanted) -> SetRule:
    quantiles = {
        method: fit_quantiles(calibrated, labels, method, wanted.coverage, per_class=wanted.per_class)
        for method in SET_METHODS
    }
    return SetRule(wanted.set_method, wanted.coverage, wanted.per_class, **quantiles)
