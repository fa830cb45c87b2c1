"""A row for a new class: by hand, and on classes that can be told."""

import numpy as np
import pytest

from ramstrans.errors import DataError
from ramstrans.inference.imprint import Old, imprint, prototype


def by_hand():
    """Two classes along the axes, one scale; queries as far from the centre as the shots, or twice as far."""
    shots = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    queries = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    weight, bias = np.array([[4.0, 0.0], [0.0, 4.0]]), np.array([1.0, 1.0])
    return Old(weight, bias, shots, np.array([0, 1]), queries, np.array([0, 1]))


def test_scale_and_bias_by_hand():
    """The mean is (1/2, 1/2). Logits are 5 on own images and 1 on others, prototypes are (1, -1)/√2 and
    its negative, which give own images 1/√2 and others -1/√2: s = 4/√2, t = 5 - s/√2 = 3."""
    row = imprint(np.array([[[1.5, 1.5]], [[2.5, 2.5]]]), by_hand())
    assert row.scale == pytest.approx(4 / 2**0.5)
    assert row.weight == pytest.approx([2.0, 2.0])  # s (1, 1)/√2
    assert row.bias == pytest.approx(3 - 2)  # t - w.m
    centre = np.array([0.5, 0.5])
    assert row.weight @ centre + row.bias == pytest.approx(3)


def test_a_row_for_a_class_that_is_there_gives_it_the_logits_that_it_has():
    """Gaussian classes and their optimal classifier, prototypes of 5 images: the row is about the own one."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 30)) * 2
    weight, bias = centres, -(centres**2).sum(axis=1) / 2

    def images(labels):
        return centres[labels][:, None] + rng.normal(size=(len(labels), 2, 30))

    shots, queries = np.repeat(np.arange(12), 5), np.repeat(np.arange(12), 10)
    old = Old(weight, bias, images(shots), shots, images(queries), queries)
    new = rng.normal(size=30) * 2
    row = imprint(new + rng.normal(size=(5, 2, 30)), old)
    tests = np.concatenate([np.repeat(centres, 20, axis=0), np.repeat(new[None], 20, axis=0)])
    tests = tests + rng.normal(size=tests.shape)
    logits = np.c_[tests @ weight.T + bias, tests @ row.weight + row.bias]
    right = logits.argmax(axis=1) == np.repeat(np.arange(13), 20)
    assert right[:-20].mean() > 0.97
    assert right[-20:].mean() > 0.9


def test_every_scale_and_photograph_counts_alike():
    """Long features do not count more: their directions from the mean are averaged."""
    found = prototype(np.array([[[9.0, 0.0], [0.0, 1.0]]]), np.zeros(2))
    assert found == pytest.approx([0.5**0.5, 0.5**0.5])


def test_a_model_that_tells_nothing_is_refused():
    old = by_hand()._replace(weight=np.zeros((2, 2)))
    with pytest.raises(DataError, match="train it further"):
        imprint(np.ones((2, 1, 2)), old)
