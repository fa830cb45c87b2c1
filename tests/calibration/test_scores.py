"""Scores of the unknown: by hand, and against pytorch-ood."""

import numpy as np
import pytest
import torch

from ramstrans.calibration.scores import NEEDS, SCORES, Reference, fit_arrays, num_principal, unknown_scores

DETECTORS = "pytorch_ood.detector"


@pytest.fixture(scope="module")
def given():
    """A reference of 5 classes in 12 dimensions, and logits and features of 43 other images."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 2, (5, 12))
    labels = np.repeat(np.arange(5), 31)
    features = (centres[labels] + rng.normal(0, 1, (155, 12)) @ rng.normal(0, 1, (12, 12))).astype(np.float32)
    head = rng.normal(0, 1, (5, 12)).astype(np.float32), rng.normal(0, 1, 5).astype(np.float32)
    others = rng.normal(0, 3, (43, 12)).astype(np.float32)
    return Reference(features, labels, head), others @ head[0].T + head[1], others


def scores_of(name, given):
    reference, logits, features = given
    arrays = fit_arrays(name, reference)
    assert all(array.dtype == np.float32 for array in arrays.values())
    return unknown_scores(name, logits, features, arrays)


def detector(name, *arguments):
    module = pytest.importorskip(DETECTORS, reason="pip install pytorch-ood")
    return getattr(module, name)(None, *arguments)


def tensors(given):
    reference, logits, features = given
    return (
        torch.from_numpy(reference.features),
        torch.from_numpy(reference.labels),
        torch.from_numpy(logits),
        torch.from_numpy(features),
    )


def test_energy_and_max_logit_are_those_of_pytorch_ood(given):
    module = pytest.importorskip(DETECTORS, reason="pip install pytorch-ood")
    logits = torch.from_numpy(given[1])
    assert scores_of("energy", given) == pytest.approx(module.EnergyBased.score(logits).numpy(), abs=1e-4)
    assert scores_of("max_logit", given) == pytest.approx(module.MaxLogit.score(logits).numpy(), abs=1e-5)


def test_neighbours_are_those_of_pytorch_ood(given):
    features, labels, _, others = tensors(given)
    expected = detector("KNN", 5).fit_features(features, labels).predict_features(others)
    assert scores_of("knn", given) == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_relative_mahalanobis_is_that_of_pytorch_ood(given, in_float64):
    features, labels, _, others = tensors(given)
    expected = detector("RMD").fit_features(features.double(), labels).predict_features(others.double())
    # It divides by sums of squares where this one divides by their means.
    assert scores_of("mahalanobis", given) == pytest.approx(
        len(labels) * expected.numpy(), rel=2e-3, abs=2e-2
    )


def test_vim_is_that_of_pytorch_ood(given):
    module = pytest.importorskip(DETECTORS, reason="pip install pytorch-ood")
    features, labels, _, others = tensors(given)
    weight, bias = (torch.from_numpy(array) for array in given[0].head)
    other = module.ViM(None, num_principal(12), weight, bias).fit_features(features, labels)
    assert scores_of("vim", given) == pytest.approx(
        other.predict_features(others).numpy(), rel=2e-3, abs=2e-3
    )


def test_neighbours_by_hand():
    bank = np.array([[1, 0], [2, 0], [0, 3], [0, 1], [5, 0], [-1, 0]], np.float32)
    reference = Reference(bank, np.zeros(6, int), None)
    values = unknown_scores("knn", None, np.array([[7.0, 0.0]]), fit_arrays("knn", reference))
    assert values == pytest.approx([np.sqrt(2)])  # three lie in its direction, two at a right angle


def test_fewer_training_images_than_neighbours_are_compared_with_all():
    reference = Reference(np.eye(3, dtype=np.float32), np.arange(3), None)
    values = unknown_scores("knn", None, np.array([[1.0, 0.0, 0.0]]), fit_arrays("knn", reference))
    assert values == pytest.approx([np.sqrt(2)])


def test_fewer_images_than_dimensions_stay_finite():
    rng = np.random.default_rng(0)
    head = rng.normal(0, 1, (3, 64)).astype(np.float32), np.zeros(3, np.float32)
    reference = Reference(rng.normal(0, 1, (13, 64)).astype(np.float32), np.arange(13) % 3, head)
    features = rng.normal(0, 1, (7, 64))
    for name in SCORES[1:]:
        values = unknown_scores(name, features @ head[0].T, features, fit_arrays(name, reference))
        assert values.shape == (7,)
        assert np.isfinite(values).all(), name
        assert name != "vim" or np.abs(values).max() < 1000  # though 13 images leave most directions out


def test_a_class_that_is_left_out_is_nowhere(given):
    reference, _, _ = given
    without = reference.without(np.array([1, 3]))
    assert sorted(set(without.labels.tolist())) == [0, 2, 4]
    assert without.features.shape == (93, 12)
    assert without.head[0] == pytest.approx(reference.head[0][[0, 2, 4]])
    assert without.head[1] == pytest.approx(reference.head[1][[0, 2, 4]])


def test_what_is_far_from_all_training_images_scores_higher(given):
    reference, _, _ = given
    near, far = reference.features[::7], reference.features[::7] * 9
    for name in ("mahalanobis", "vim"):
        arrays = fit_arrays(name, reference)
        low, high = (
            unknown_scores(name, np.zeros((len(features), 5)), features, arrays) for features in (near, far)
        )
        assert np.median(high) > np.median(low), name


def test_every_score_says_what_it_needs():
    assert set(NEEDS) == set(SCORES)
