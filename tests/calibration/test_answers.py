"""A calibration applied to what a model gives."""

import numpy as np
import pytest

from ramstrans.calibration.answers import answers, of_scale
from ramstrans.calibration.scores import energy, unknown_scores
from ramstrans.errors import UsageError
from tests.calibration.builders import FUSED, KNN, LOGITS, SETS, make_arrays, make_calibration


def test_by_hand():
    """At temperature 1/2 0.64 : 0.32 : 0.04 becomes their squares, 256 : 64 : 1."""
    given = answers(make_calibration(), FUSED, LOGITS)
    assert given.probabilities[0] == pytest.approx(np.array([256, 64, 1]) / 321)
    assert given.unknown_scores == pytest.approx(energy(LOGITS[0]))  # -log(e + 2) = -1.55, -log(e^3 + 2)
    assert given.unknown.tolist() == [True, False]  # above -2
    assert given.sets.tolist() == [[True, False, False], [False, False, True]]  # p >= 0.2
    assert given.set_of(1) == [2]


def test_fewer_scales_have_rules_of_their_own():
    """At temperature 2, square roots: 8 : 5.66 : 2."""
    given = answers(make_calibration(), FUSED, LOGITS[:1], num_scales=1)
    roots = np.sqrt([0.64, 0.32, 0.04])
    assert given.probabilities[0] == pytest.approx(roots / roots.sum())
    assert given.set_of(0) == [0, 1]
    assert of_scale(make_calibration(), FUSED, 2)[0] == pytest.approx(
        np.power([0.64, 0.32, 0.04], 0.8) / np.power([0.64, 0.32, 0.04], 0.8).sum()
    )


def test_what_was_not_fitted_is_none():
    given = answers(make_calibration(None, None), FUSED)
    assert given[2:] == (None, None, None, None)
    assert given.without_priors is given.probabilities


def test_features_of_all_scales_are_averaged():
    rng = np.random.default_rng(1)
    features, arrays = rng.normal(0, 1, (2, 2, 4)), make_arrays()
    given = answers(make_calibration(KNN, SETS, arrays=arrays), FUSED, features=features)
    each = [
        unknown_scores("knn", None, features[scale - 1], {"neighbors": arrays[f"scale_{scale}.neighbors"]})
        for scale in (1, 2)
    ]
    assert given.unknown_scores == pytest.approx(np.mean(each, axis=0))


def test_what_a_score_needs_must_be_given():
    with pytest.raises(UsageError, match="by energy, which needs logits, and there are none"):
        answers(make_calibration(), FUSED)
    with pytest.raises(UsageError, match="by knn, which needs features"):
        answers(make_calibration(KNN), FUSED, LOGITS)
