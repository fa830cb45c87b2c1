"""What a prediction holds; without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramstrans.calibration.answers import Answers
from ramstrans.calibration.taxonomy import RankAnswer, Taxonomy
from ramstrans.data.records import Box
from ramstrans.evaluation.ranking import top_classes


class ScalePrediction(NamedTuple):
    """Prediction of one scale.

    Attributes:
        labels: Names of its most probable classes, best first.
        probabilities: Their probabilities.
        box: The region that is looked at next, half-open `(x0, y0, x1, y1)` in pixels of the image after EXIF
            rotation. None where no look follows: for a model with one look, for the last of several scales,
            and for the one after which the image exited early.
        has_region: False where nothing stood out and the box is all that this scale saw; None where the box
            is None.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    box: Box | None
    has_region: bool | None


class PriorsEffect(NamedTuple):
    """What priors did to the answer for one image.

    Attributes:
        matched: The conditions that hold; None: none does, or all classes are excluded, and the image is
            answered without priors.
        label: The most probable class without priors.
        probability: Its probability without priors.
        changed: Whether another class is the most probable one now.
    """

    matched: str | None
    label: str
    probability: float
    changed: bool


class Prediction(NamedTuple):
    """Prediction for one image.

    Attributes:
        path: The file; None for an image in memory.
        labels: Names of the most probable classes by the mean of the scales' probabilities, best first;
            empty if there is an error.
        probabilities: Their probabilities.
        scales: Predictions of the scales, first scale first; with early exit there may be fewer than the
            model has.
        error: Why the image could not be read, or None.
        present: Where images may have several labels: those whose mean probability reaches their threshold,
            most probable first; empty if none does, or if there is an error. None: an image has one class.
        unknown: Whether the image is of no class of the model; None if the model is not calibrated.
        unknown_score: Higher for more unlikely images; None as `unknown`.
        prediction_set: Names of the classes of which one is the true one, with the coverage that the model
            was calibrated for, most probable first; None as `unknown`.
        answer: At the finest rank of the taxonomy that is certain enough; None if the model has no taxonomy.
        priors: What priors changed; None if there are none. They change `labels`, `probabilities` and
            `answer`; scales, the unknown and the set are without them.
    """

    path: Path | None
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    scales: tuple[ScalePrediction, ...] = ()
    error: str | None = None
    present: tuple[str, ...] | None = None
    unknown: bool | None = None
    unknown_score: float | None = None
    prediction_set: tuple[str, ...] | None = None
    answer: RankAnswer | None = None
    priors: PriorsEffect | None = None


def most_probable(
    probabilities: np.ndarray, class_names: Sequence[str], top_k: int
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and probabilities of the most probable classes; equal ones in label order."""
    best = top_classes(probabilities, top_k)
    return tuple(class_names[label] for label in best), tuple(map(float, probabilities[best]))


def calibrated_prediction(
    given: Answers,
    index: int,
    class_names: Sequence[str],
    top_k: int,
    taxonomy: Taxonomy | None,
    path: Path | None = None,
) -> Prediction:
    """The prediction for one image, without its scales and what priors changed, from calibrated answers."""
    inside = answer = None
    if given.sets is not None:
        inside = tuple(class_names[label] for label in given.set_of(index))
    if taxonomy is not None and given.rolled_up is not None:
        answer = taxonomy.answer(given.rolled_up, index, class_names)
    return Prediction(
        path,
        *most_probable(given.probabilities[index], class_names, top_k),
        unknown=None if given.unknown is None else bool(given.unknown[index]),
        unknown_score=None if given.unknown_scores is None else float(given.unknown_scores[index]),
        prediction_set=inside,
        answer=answer,
    )


def effect_of(given: Answers, index: int, matched: str | None, class_names: Sequence[str]) -> PriorsEffect:
    """What priors did to the answer for one image."""
    before, after = given.without_priors[index], given.probabilities[index]
    label = int(before.argmax())
    return PriorsEffect(matched, class_names[label], float(before[label]), label != int(after.argmax()))


def present_labels(
    probabilities: np.ndarray, class_names: Sequence[str], thresholds: Sequence[float]
) -> tuple[str, ...]:
    """Names of the labels whose probabilities (C,) reach their thresholds (C,), most probable first.

    >>> present_labels(np.array([0.4, 0.9, 0.3]), ("crow", "wren", "owl"), (0.4, 0.5, 0.5))
    ('wren', 'crow')
    """
    is_present = probabilities >= np.asarray(thresholds)
    order = np.argsort(-probabilities, kind="stable")
    return tuple(class_names[label] for label in order if is_present[label])
