"""The score of the unknown in a graph against that of `calibration.scores`."""

import numpy as np
import pytest
import torch

from ramstrans.calibration.fitted import UnknownRule
from ramstrans.calibration.scores import ARRAYS, SCORES, Reference, score_of
from ramstrans.calibration.unknown import arrays_of
from ramstrans.export.unknown import UnknownScore

CLASSES, WIDTH, SCALES = 5, 12, 2


@pytest.fixture(scope="module")
def given():
    """References of two scales, and calibrated answers, logits and features of 9 images; far from zero."""
    rng = np.random.default_rng(4)
    references, features, logits = [], [], []
    for _ in range(SCALES):
        means = rng.normal(20, 3, (CLASSES, WIDTH))
        labels = np.arange(60) % CLASSES
        trained = (means[labels] + rng.normal(0, 1, (60, WIDTH))).astype(np.float32)
        head = rng.normal(0, 0.3, (CLASSES, WIDTH)), rng.normal(0, 1, CLASSES)
        references.append(Reference(trained, labels, head))
        features.append((means[labels[:9]] + rng.normal(0, 3, (9, WIDTH))).astype(np.float32))
        logits.append((features[-1] @ head[0].T + head[1]).astype(np.float32))
    calibrated = rng.dirichlet(np.ones(CLASSES), 9).astype(np.float32)
    return references, calibrated, np.stack(logits), np.stack(features)


@pytest.mark.parametrize("scales", [(1, 2), (2,)])
@pytest.mark.parametrize("name", SCORES)
def test_it_is_that_of_numpy(given, name, scales):
    references, calibrated, logits, features = given
    used = () if name == "max_probability" else scales
    arrays = arrays_of(name, used, references)
    expected = score_of(name, used, calibrated, logits, features, arrays)
    rule = UnknownRule(name, used, 0.0, 0.05, "name", None, None)
    found = UnknownScore(rule, arrays)(*map(torch.from_numpy, (calibrated, logits, features)))
    assert np.ptp(expected) > 0.01
    assert sorted({key.split(".")[-1] for key in arrays}) == sorted(ARRAYS.get(name, ()))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_it_has_nothing_that_its_score_does_not_read(given):
    """A calibration keeps what the rules for fewer scales need, too."""
    arrays = arrays_of("knn", (1, 2), given[0]) | arrays_of("vim", (1, 2), given[0])
    rule = UnknownRule("energy", (1, 2), 0.0, 0.05, "name", None, None)
    assert not UnknownScore(rule, arrays).state_dict()


def test_fewer_training_images_than_neighbours(given):
    references, calibrated, logits, features = given
    few = [Reference(one.features[:3], one.labels[:3], None) for one in references]
    arrays = arrays_of("knn", (1,), few)
    expected = score_of("knn", (1,), calibrated, logits, features, arrays)
    module = UnknownScore(UnknownRule("knn", (1,), 0.0, 0.05, "name", None, None), arrays)
    found = module(*map(torch.from_numpy, (calibrated, logits, features)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
