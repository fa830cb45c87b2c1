"""Prediction sets: hand-worked, against MAPIE, and the share that they promise."""

import numpy as np
import pytest

from ramstrans.calibration import conformal
from ramstrans.calibration.conformal import (
    RAPS_FREE_RANKS,
    RAPS_PENALTY,
    SET_METHODS,
    fit_quantiles,
    label_scores,
    quantile,
    sets,
    true_scores,
)
from ramstrans.calibration.wanted import min_images
from tests.calibration.builders import known_classifier

P = np.array([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]])


def drawn(num_images, num_classes=7, seed=0):
    """Probabilities that are right: the labels are drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(num_classes, 0.4), num_images)
    labels = (rng.random(num_images)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    return probabilities, labels.clip(max=num_classes - 1)


def test_scores_by_hand():
    assert label_scores(P, "lac") == pytest.approx(1 - P)
    assert label_scores(P, "aps") == pytest.approx(np.array([[0.5, 1.0, 0.8], [0.9, 0.8, 1.0]]))
    wide = np.full((1, 7), 1 / 7)  # equal ones in label order: 1/7, 2/7, ..., ranks 6 and 7 cost more
    expected = np.arange(1, 8) / 7 + RAPS_PENALTY * np.maximum(0, np.arange(1, 8) - RAPS_FREE_RANKS)
    assert label_scores(wide, "raps")[0] == pytest.approx(expected)
    assert true_scores(P, np.array([2, 0]), "aps").tolist() == pytest.approx([0.8, 0.9])


def test_sets_by_hand():
    assert sets(P, "lac", (0.75,)).tolist() == [[True, False, True], [False, True, False]]
    assert sets(P, "aps", (0.85,)).tolist() == [[True, False, True], [False, True, False]]
    assert sets(P, "lac", (0.1,)).sum(axis=1).tolist() == [1, 1]  # never empty
    assert sets(P, "lac", (0.6, 0.9, 0.6)).tolist() == [[True, True, False], [False, True, False]]  # by class


def test_the_quantile_counts_the_new_image():
    scores = np.arange(1.0, 40.0)  # 39: ceil(40 * 0.95) = 38
    assert quantile(scores, 0.95) == 38
    assert min_images(0.95) == 19
    with pytest.raises(AssertionError):
        quantile(scores[:18], 0.95)


@pytest.mark.parametrize("method", SET_METHODS)
def test_they_hold_the_share_that_they_promise(method):
    probabilities, labels = drawn(999)
    limits = fit_quantiles(probabilities, labels, method, 0.9, per_class=False)
    others, truth = drawn(20_000, seed=1)
    inside = sets(others, method, limits)
    assert 0.88 < inside[np.arange(len(truth)), truth].mean() < (0.92 if method == "lac" else 0.97)


def test_each_class_is_covered_if_each_is_asked_for():
    probabilities, labels = drawn(4000, num_classes=5)
    probabilities = probabilities * np.array([1, 1, 1, 1, 0.2])  # one class is thought too unlikely
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    half = slice(0, 2000), slice(2000, None)
    hits = {}
    for per_class in (False, True):
        limits = fit_quantiles(probabilities[half[0]], labels[half[0]], "lac", 0.9, per_class=per_class)
        inside, truth = sets(probabilities[half[1]], "lac", limits), labels[half[1]]
        hits[per_class] = inside[truth == 4, 4].mean()
    assert hits[False] < 0.8
    assert hits[True] > 0.86


class NoDice:
    """A generator whose numbers are all 0: MAPIE's scores without their randomness."""

    @staticmethod
    def uniform(size):
        return np.zeros(size)


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_mapie_makes_the_same_sets(method, monkeypatch):
    mapie = pytest.importorskip("mapie.classification", reason="pip install mapie")
    if method == "aps":
        aps = pytest.importorskip("mapie.conformity_scores.sets.aps", reason="pip install mapie")
        monkeypatch.setattr(aps, "check_random_state", lambda _seed: NoDice)
    probabilities, labels = drawn(503)
    others, _ = drawn(211, seed=1)
    other = mapie.SplitConformalClassifier(known_classifier(7), confidence_level=0.9, conformity_score=method)
    other.conformalize(probabilities, labels)
    _, expected = other.predict_set(others, conformity_score_params={"include_last_label": False})
    limits = fit_quantiles(probabilities, labels, method, 0.9, per_class=False)
    inside = sets(others, method, limits)
    assert limits[0] == pytest.approx(
        other._mapie_classifier.conformity_score_function_.quantiles_[0], abs=2e-6
    )
    assert (inside | expected[:, :, 0] == inside).all()
    assert (inside != expected[:, :, 0]).sum() <= 2  # a score within 1e-6 of the limit


def test_raps_scores_are_mapies():
    raps = pytest.importorskip("mapie.conformity_scores.sets.raps", reason="pip install mapie")
    probabilities, labels = drawn(307, num_classes=11)
    aps = raps.RAPSConformityScore()
    plain, cutoff = aps.get_true_label_cumsum_proba(labels, probabilities, np.arange(11))
    expected = aps._regularize_conformity_score(np.array([RAPS_FREE_RANKS]), RAPS_PENALTY, plain, cutoff)
    assert true_scores(probabilities, labels, "raps") == pytest.approx(np.ravel(expected), abs=1e-9)


def test_limits_are_rounded_up_never_down():
    rng = np.random.default_rng(0)
    for score in [*rng.random(97), 0.1234560004, 0.1 + 0.2]:
        assert score <= conformal.round_up(score) < score + 1.1e-6
    probabilities = np.tile([0.6000000004, 0.3999999996], (19, 1))
    limits = fit_quantiles(probabilities, np.ones(19, int), "lac", 0.95, per_class=False)
    assert sets(probabilities, "lac", limits)[:, 1].all()
