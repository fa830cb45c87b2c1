"""Temperature scaling: hand-worked, against another library, and its properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.calibration.temperature import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    fit_temperature,
    log_probabilities,
    temperature_notes,
    tempered,
)
from tests.calibration.builders import known_classifier


def sampled(num_images, num_classes, temperature, seed=0):
    """Logits, and labels drawn from their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (num_images, num_classes))
    chances = tempered(logits, temperature).cumsum(axis=1)
    return logits, (rng.random(num_images)[:, None] > chances).sum(axis=1).clip(max=num_classes - 1)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_at_is_found(temperature):
    logits, labels = sampled(20_000, 7, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_it_is_the_minimum_of_the_loss():
    logits, labels = sampled(211, 5, 1.7)
    best = fit_temperature(logits, labels)

    def loss(temperature):
        return -np.log(tempered(logits, temperature)[np.arange(len(labels)), labels]).mean()

    assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))


def test_scikit_learn_finds_the_same():
    calibration = pytest.importorskip("sklearn.calibration", reason="pip install scikit-learn")
    frozen = pytest.importorskip("sklearn.frozen", reason="pip install scikit-learn")
    logits, labels = sampled(307, 11, 1.9)
    other = calibration.CalibratedClassifierCV(
        frozen.FrozenEstimator(known_classifier(11)), method="temperature"
    )
    other.fit(tempered(logits, 1), labels)
    best = fit_temperature(logits, labels)
    assert best == pytest.approx(1 / other.calibrated_classifiers_[0].calibrators[0].beta_, rel=1e-4)
    assert other.predict_proba(tempered(logits, 1)) == pytest.approx(tempered(logits, best), abs=1e-5)


def test_all_right_leaves_the_probabilities_as_they_are_and_says_so():
    logits = np.eye(5) * 3
    assert fit_temperature(logits, np.arange(5)) == 1
    assert "all 5 images are classified correctly" in temperature_notes(logits, np.arange(5))[0]
    assert temperature_notes(logits, np.roll(np.arange(5), 1)) == []


def test_it_stays_within_its_bounds():
    logits = np.eye(3) * 3
    assert fit_temperature(logits, np.array([1, 2, 0])) == MAX_TEMPERATURE  # surer means more wrong
    sure = np.array([[0.02, 0.0]] * 999 + [[-0.02, 0.0]])  # nearly all right, hardly sure
    assert fit_temperature(sure, np.zeros(1000, int)) == MIN_TEMPERATURE


def test_logits_and_probabilities_come_to_the_same():
    logits, labels = sampled(101, 7, 1.3)
    log_p = log_probabilities(tempered(logits, 1))
    assert fit_temperature(log_p, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-9)
    assert tempered(log_p, 2.5) == pytest.approx(tempered(logits, 2.5), abs=1e-12)


def test_a_probability_of_zero_stays_finite():
    values = tempered(log_probabilities(np.array([[1.0, 0.0]], np.float32)), 0.05)
    assert np.isfinite(values).all()
    assert values.sum() == 1


@given(
    st.lists(st.floats(0.001, 1), min_size=2, max_size=7, unique=True),
    st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE),
)
def test_no_temperature_changes_the_order_of_classes(values, temperature):
    probabilities = np.array(values) / sum(values)
    calibrated = tempered(log_probabilities(probabilities), temperature)
    assert calibrated.sum() == pytest.approx(1)
    assert (np.diff(calibrated[np.argsort(probabilities)]) >= 0).all()
