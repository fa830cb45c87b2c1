"""Weights of the mean against scipy's optimiser, and by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize

from ramstrans.evaluation.fusion import fit_weights
from ramstrans.evaluation.metrics import cross_entropy
from tests.evaluation.builders import make_predictions


@pytest.mark.parametrize("num_scales", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_scipys(num_scales, seed):
    predictions = make_predictions(num_scales, num_images=211, num_classes=5, seed=seed)
    probabilities, labels = predictions.probabilities.astype(float), predictions.labels
    probabilities[0, :60] = 0.1 + 0.5 * np.eye(5)[labels[:60]]  # the first scale is better than chance

    def loss(weights):
        return cross_entropy(np.tensordot(weights, probabilities, 1), labels)

    even = np.full(num_scales, 1 / num_scales)
    theirs = minimize(
        loss, even, bounds=[(0, 1)] * num_scales, constraints={"type": "eq", "fun": lambda w: w.sum() - 1}
    )
    found = fit_weights(probabilities, labels)
    assert found.sum() == pytest.approx(1)
    assert found == pytest.approx(theirs.x, abs=2e-3)
    assert loss(found) <= loss(even)


def test_two_scales_by_hand():
    """One is right with 0.8 and wrong with 0.2, the other the reverse, on 3 images and 1.

    The mean is 0.2 + 0.6 w and 0.8 - 0.6 w; the loss is least where 3 (0.8 - 0.6 w) = 0.2 + 0.6 w: 2.2 / 2.4.
    """
    first, second = np.array([0.8, 0.8, 0.8, 0.2]), np.array([0.2, 0.2, 0.2, 0.8])
    probabilities = np.stack([np.stack([p, 1 - p], axis=1) for p in (first, second)])
    assert fit_weights(probabilities, np.zeros(4, int)) == pytest.approx([2.2 / 2.4, 0.2 / 2.4], abs=1e-4)


def test_predictions_are_fused_with_their_weights():
    predictions = make_predictions()
    assert predictions.weights is None
    assert predictions.fused == pytest.approx(predictions.probabilities.mean(axis=0))
    weighted = predictions._replace(weights=np.array([0.25, 0.75]))
    first, second = predictions.probabilities
    assert weighted.fused == pytest.approx(0.25 * first + 0.75 * second)
    assert weighted.fused.dtype == np.float32


def test_a_scale_that_knows_nothing_counts_for_nothing_also_at_zero():
    probabilities = np.array([[[0.0, 1.0]], [[0.6, 0.4]]])
    assert fit_weights(probabilities, np.array([0])) == pytest.approx([0, 1], abs=1e-6)
