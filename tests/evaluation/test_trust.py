"""Measures of trust by hand, against other libraries, and what a page says of them."""

import numpy as np
import pytest

from ramstrans.calibration.answers import Answers
from ramstrans.evaluation import metrics, trust
from ramstrans.evaluation.report.trust import calibration_table, lines, sections
from ramstrans.evaluation.trust import answers_of, reliability, set_measures, trust_report
from tests.calibration.builders import SETS, make_calibration
from tests.evaluation.builders import make_predictions


def drawn(num_images=211, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(num_classes, 0.5), num_images), rng.integers(0, num_classes, num_images)


def test_brier_is_that_of_another_library():
    others = pytest.importorskip("sklearn.metrics", reason="pip install scikit-learn")
    probabilities, labels = drawn()
    expected = others.brier_score_loss(labels, probabilities, labels=range(7), scale_by_half=False)
    assert metrics.brier_score(probabilities, labels) == pytest.approx(expected, rel=1e-9)


def test_bins_of_equally_many_images():
    confidence = np.array([0.6, 0.7, 0.8, 0.9])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 1, 0, 0])  # of the two most unsure one is right, of the others both
    error = metrics.adaptive_calibration_error(probabilities, labels, num_bins=2)
    assert error == pytest.approx(100 * (abs(1 - 1.3) + abs(2 - 1.7)) / 4)
    assert metrics.adaptive_calibration_error(probabilities, labels) == pytest.approx(
        100 * (0.4 + 0.7 + 0.2 + 0.1) / 4
    )  # a bin each


def test_reliability_adds_up_to_the_error():
    probabilities, labels = drawn()
    bins = reliability(probabilities, labels)
    error = sum(entry["num_images"] * abs(entry["confidence"] - entry["accuracy"]) for entry in bins)
    assert error / len(labels) == pytest.approx(metrics.expected_calibration_error(probabilities, labels))


def test_sets_by_hand():
    inside = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]], bool)
    measured = set_measures(inside, np.array([0, 0, 2, 2]))
    assert measured == {
        "reached": 75,
        "worst_class": 50,
        "mean_size": 1.75,
        "singletons": 50,
        "largest": 3,
    }


@pytest.fixture
def report():
    """A report with all three parts, of two scales and three classes; the unknown images score higher."""
    known, other = (with_logits(make_predictions(num_classes=3, seed=seed)) for seed in (0, 1))
    other = other._replace(logits=other.logits - 9)
    calibration = make_calibration(sets=SETS)
    given = answers_of(calibration, known)
    assert isinstance(given, Answers)
    parts = trust_report(calibration, known, given, {"bicycles": other})
    return parts | {"given": given, "known": known}


def with_logits(predictions):
    logits = np.log(predictions.probabilities)
    return predictions._replace(logits=logits, features=np.zeros((2, 13, 4)))


def test_parts_of_a_report(report):
    known, given = report["known"], report["given"]
    calibration, unknown, sets = report["calibration"], report["unknown"], report["sets"]
    assert calibration["fused"]["before"]["ece"] == metrics.expected_calibration_error(
        known.fused, known.labels
    )
    assert calibration["fused"]["after"]["nll"] == metrics.cross_entropy(given.probabilities, known.labels)
    assert [entry["temperature"] for entry in calibration["scales"]] == [1.5, 1.25]
    assert (calibration["fused"]["temperature"], calibration["num_images"]) == (0.5, 60)
    assert unknown["rejected"] == pytest.approx(100 * np.mean(given.unknown))
    (bicycles,) = unknown["images"]
    assert (bicycles["name"], bicycles["num_images"]) == ("bicycles", 13)
    assert (bicycles["auroc"], bicycles["fpr95"], bicycles["rejected"]) == (100, 0, 100)
    hit = np.take_along_axis(given.sets, known.labels[:, None], axis=1)
    assert sets["methods"]["lac"]["reached"] == pytest.approx(100 * hit.mean())
    assert set(sets["methods"]) == {"lac", "aps", "raps"}


def test_what_a_page_says(report):
    page = "\n".join(sections(report))
    for text in ("## Calibration", "## Unknown", "## Prediction sets", "bicycles", "LAC (in answers)"):
        assert text in page
    assert "chosen on classes left out" in page
    assert "other cameras, places or seasons" in page
    header, rows = calibration_table(report["calibration"])
    assert header == ["", "temperature", "ECE", "adaptive ECE", "NLL", "Brier"]
    assert [row[:2] for row in rows] == [["scale 1", "1.50"], ["scale 2", "1.25"], ["all together", "0.50"]]
    printed = lines(report)
    assert [line.split()[0] for line in printed] == ["Calibration:", "Unknown", "Prediction"]
    assert "bicycles: AUROC 100.0 %, FPR95 0.0 %, 100.0 % rejected" in printed[1]


def test_nothing_without_a_calibration():
    assert sections({}) == lines({}) == []


def test_one_scale_has_one_row(report):
    calibration = report["calibration"] | {"scales": report["calibration"]["scales"][:1]}
    assert len(calibration_table(calibration)[1]) == 1


def test_what_was_not_fitted_is_left_out():
    predictions = with_logits(make_predictions(num_classes=3))
    calibration = make_calibration(None, None)
    given = trust.answers_of(calibration, predictions)
    assert set(trust_report(calibration, predictions, given, {})) == {"calibration"}
