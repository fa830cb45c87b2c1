"""How far answers can be trusted, measured: calibration before and after, the unknown, prediction sets."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ramstrans.calibration.answers import Answers, answers, of_scale
from ramstrans.calibration.conformal import SET_METHODS, sets
from ramstrans.calibration.fitted import Calibration
from ramstrans.calibration.unknown import auroc, fpr95
from ramstrans.calibration.wanted import SetMethod
from ramstrans.evaluation import metrics
from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.ranks import ranks_report

NUM_BINS = 15
"""Of the reliability plot, as of the expected calibration error."""


def answers_of(
    calibration: Calibration, predictions: Predictions, weights: np.ndarray | None = None
) -> Answers:
    """The calibrated answers of all scales that were used; `weights` (N, C) are priors.

    Raises:
        WeightsError: A probability is not finite.
    """
    metrics.true_ranks(predictions.fused, predictions.labels)
    return answers(
        calibration,
        predictions.fused,
        predictions.logits,
        predictions.features,
        num_scales=len(predictions.probabilities),
        weights=weights,
    )


def trust_report(
    calibration: Calibration,
    predictions: Predictions,
    given: Answers,
    unknown: Mapping[str, Predictions],
) -> dict[str, Any]:
    """What a calibration adds to a report: `calibration`, `unknown`, `sets` and `ranks`, where there are."""
    parts = {
        "calibration": calibration_report(calibration, predictions, given),
        "unknown": unknown_report(calibration, predictions, given, unknown),
        "sets": sets_report(calibration, predictions, given),
    }
    if calibration.taxonomy is not None:
        parts["ranks"] = ranks_report(calibration.taxonomy, given, predictions.labels)
    return {name: part for name, part in parts.items() if part is not None}


def calibration_report(calibration: Calibration, predictions: Predictions, given: Answers) -> dict[str, Any]:
    """Report what temperature scaling does to the probabilities of each scale, and of all together.

    Returns:
        `fitted_on`, `num_images` of that, `scales` and `fused`: each with its `temperature`, and `ece`,
        `adaptive_ece` (percentage points), `nll` (nats) and `brier` `before` and `after`; `reliability` of
        all together, see `reliability`.
    """
    labels, num_scales = predictions.labels, len(predictions.probabilities)
    after = given.without_priors
    each = [
        {
            "temperature": calibration.scales[scale - 1],
            "before": errors(probabilities, labels),
            "after": errors(of_scale(calibration, probabilities, scale), labels),
        }
        for scale, probabilities in enumerate(predictions.probabilities, start=1)
    ]
    return {
        "fitted_on": calibration.fitted_on,
        "num_images": calibration.num_images,
        "scales": each,
        "fused": {
            "temperature": calibration.fused[num_scales - 1].temperature,
            "before": errors(predictions.fused, labels),
            "after": errors(after, labels),
        },
        "reliability": {
            "before": reliability(predictions.fused, labels),
            "after": reliability(after, labels),
        },
    }


def errors(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The four measures of how far probabilities (N, C) are off; see `metrics`."""
    return {
        "ece": metrics.expected_calibration_error(probabilities, labels),
        "adaptive_ece": metrics.adaptive_calibration_error(probabilities, labels),
        "nll": metrics.cross_entropy(probabilities, labels),
        "brier": metrics.brier_score(probabilities, labels),
    }


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Mean confidence and accuracy, percent, and number of images of each bin of confidence that has some.

    >>> reliability(np.array([[0.8, 0.2], [0.79, 0.21]]), np.array([0, 1]))
    [{'confidence': 79.5, 'accuracy': 50.0, 'num_images': 2}]
    """
    confidence = probabilities.max(axis=1).astype(np.float64).clip(0, 1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * NUM_BINS).astype(int)
    return [
        {
            "confidence": round(100 * float(confidence[bins == index].mean()), 6),
            "accuracy": round(100 * float(right[bins == index].mean()), 6),
            "num_images": int((bins == index).sum()),
        }
        for index in np.unique(bins).tolist()
    ]


def unknown_report(
    calibration: Calibration, known: Predictions, given: Answers, unknown: Mapping[str, Predictions]
) -> dict[str, Any] | None:
    """Report how well images of no class are told; None if the calibration has no rule for it.

    Args:
        calibration: What was fitted.
        known: For images of the model's classes.
        given: The answers for these.
        unknown: For others, by what they are.

    Returns:
        `score`, `scales`, `threshold`, `chosen_by`; `asked` and `rejected`, percent of the known images that
        were to be, and are, rejected; `images`: for each kind of unknown ones its `name`, `num_images`,
        `rejected`, `auroc` and `fpr95`, percent.
    """
    rule = calibration.fused[len(known.probabilities) - 1].unknown
    scores = given.unknown_scores
    if rule is None or scores is None:
        return None
    report = {
        "score": rule.score,
        "scales": list(rule.scales),
        "threshold": rule.threshold,
        "chosen_by": rule.chosen_by,
        "asked": 100 * rule.reject,
        "rejected": 100 * float((scores > rule.threshold).mean()),
    }
    kinds = []
    for name, predictions in unknown.items():
        others = answers_of(calibration, predictions).unknown_scores
        assert others is not None, "as of the known ones"
        kinds.append(
            {
                "name": name,
                "num_images": len(others),
                "rejected": 100 * float((others > rule.threshold).mean()),
                "auroc": auroc(scores, others),
                "fpr95": fpr95(scores, others),
            }
        )
    return report | {"images": kinds}


def sets_report(calibration: Calibration, predictions: Predictions, given: Answers) -> dict[str, Any] | None:
    """Report how often prediction sets have the true class, and how large they are; None without a rule.

    Returns:
        `method` that answers use, `coverage` asked, percent, `per_class`, and for each of `methods` what
        `set_measures` gives.
    """
    rule = calibration.fused[len(predictions.probabilities) - 1].sets
    if rule is None:
        return None
    by_method: dict[SetMethod, Any] = {
        method: set_measures(sets(given.without_priors, method, rule.quantiles(method)), predictions.labels)
        for method in SET_METHODS
    }
    return {
        "method": rule.method,
        "coverage": 100 * rule.coverage,
        "per_class": rule.per_class,
        "methods": by_method,
    }


def set_measures(inside: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Measure sets (N, C) of images of classes (N,).

    Returns:
        `reached`: percent of sets with the true class; `worst_class`: the lowest of any class with images;
        `mean_size`; `singletons`: percent of sets of one class; `largest`: classes in the largest.

    >>> measures = set_measures(np.array([[True, False], [True, True]]), np.array([1, 1]))
    >>> measures["reached"], measures["mean_size"], measures["singletons"]
    (50.0, 1.5, 50.0)
    """
    hit = np.take_along_axis(inside, labels[:, None], axis=1)[:, 0]
    sizes = inside.sum(axis=1)
    return {
        "reached": 100 * float(hit.mean()),
        "worst_class": 100 * min(float(hit[labels == label].mean()) for label in np.unique(labels)),
        "mean_size": float(sizes.mean()),
        "singletons": 100 * float((sizes == 1).mean()),
        "largest": int(sizes.max()),
    }
