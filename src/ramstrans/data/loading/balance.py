"""Rare classes more often: the order of an epoch over a long-tailed set."""

import numpy as np


def balanced_indices(labels: np.ndarray, generator: np.random.Generator, power: float) -> np.ndarray:
    """Places of the images of one epoch, as many as there are, classes balanced by `power`.

    A class of n images is drawn with probability proportional to `n ** (1 - power)`, Eq. 1 of
    https://arxiv.org/abs/1910.09217 with q = 1 - power: at 0 as it is, which is a shuffle of all images; at
    0.5 by square roots; at 1 all classes alike. Classes are drawn as often as expected, to the next whole
    number up or down at random, and images of a class without repetition until all have been taken.

    Args:
        labels: (N,) integers, the class of each image.
        generator: Where the randomness comes from.
        power: In [0, 1].

    Returns:
        (N,) int64.

    >>> order = balanced_indices(np.array([0, 0, 0, 0, 0, 0, 7, 7]), np.random.default_rng(0), 1.0)
    >>> sorted(int(index) for index in order if index >= 6)
    [6, 6, 7, 7]
    """
    assert 0 <= power <= 1, f"power is {power}, not in [0, 1]"
    classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    counts = _whole_counts(sizes ** (1.0 - power), len(labels), generator)
    shuffled = generator.permutation(len(labels))
    members = shuffled[np.argsort(classes[shuffled], kind="stable")]  # class by class, each in random order
    turns = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    starts, lengths = np.repeat(sizes.cumsum() - sizes, counts), np.repeat(sizes, counts)
    return generator.permutation(members[starts + turns % lengths])


def _whole_counts(weights: np.ndarray, total: int, generator: np.random.Generator) -> np.ndarray:
    """(C,) int64 that sum to `total`, each `total * weight / sum` on average and less than 1 away from it."""
    ends = np.round(weights.cumsum() * (total / max(weights.sum(), 1)), 6)  # whole where it is meant to be
    return np.diff(np.floor(ends + generator.random()).astype(np.int64), prepend=0)
