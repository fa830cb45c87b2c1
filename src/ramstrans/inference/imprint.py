"""One more class for a trained model, from a few photographs and without training.

Its row of the classifier is made of the photographs' features, by weight imprinting (Qi, Brown and Lowe 2018,
https://arxiv.org/abs/1712.07136): the direction is that of their mean. There the classifier is a cosine; here
it is the linear layer as it was trained, shared by all scales, so that length and bias follow by a rule.
With the features f of S scales, m their mean over n training photographs of each old class, and
u(x) = x / |x|:

    p = u(mean over photographs and scales of u(f - m))         the prototype of a class
    w = s p,   b = t - s p.m                                    its row, so that z = s p.(f - m) + t

s and t are such that rows made in the same way for the old classes, of n photographs each, would give
the logits that these classes have: to images of their own class, and to images of others, on average.

    s = (z_own - z_other) / (c_own - c_other),   t = z_own - s c_own

z are means of the head's logits, and c of p.(f - m), over images that the prototypes were not made of: those
of the validation split, on which both are as they will be on new photographs; else further training images.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramstrans.errors import DataError

Floats = NDArray[np.floating]


class Row(NamedTuple):
    """A row of a linear classifier.

    Attributes:
        weight: (D,).
        bias: Of it.
        scale: Length of the weight, s.
    """

    weight: NDArray[np.float64]
    bias: float
    scale: float


class Old(NamedTuple):
    """What is known of the classes that a model has.

    Attributes:
        weight: (C, D) of its classifier.
        bias: (C,).
        shots: (N, S, D) features of a few images of each class, of which prototypes are made.
        shot_labels: (N,) their classes.
        queries: (M, S, D) features of other images.
        query_labels: (M,).
    """

    weight: Floats
    bias: Floats
    shots: Floats
    shot_labels: NDArray[np.integer]
    queries: Floats
    query_labels: NDArray[np.integer]


def prototype(features: Floats, mean: Floats) -> NDArray[np.float64]:
    """(D,) of length 1: the mean direction of features (n, S, D), seen from `mean` (D,).

    >>> prototype(np.array([[[3.0, 1.0]], [[1.0, 5.0]]]), np.array([1.0, 1.0])).round(4).tolist()
    [0.7071, 0.7071]
    """
    directions = _unit(features - mean).reshape(-1, features.shape[-1])
    return _unit(directions.mean(axis=0))


def imprint(features: Floats, old: Old) -> Row:
    """The row of a new class.

    Args:
        features: (n, S, D) of its photographs.
        old: Of the classes that there are.

    Raises:
        DataError: The classifier tells its own images no better than others.
    """
    mean = old.shots.reshape(-1, old.shots.shape[-1]).mean(axis=0).astype(np.float64)
    classes = np.unique(old.shot_labels)
    prototypes = np.stack([prototype(old.shots[old.shot_labels == label], mean) for label in classes])
    queries = old.queries.astype(np.float64)
    imprinted = (queries - mean) @ prototypes.T  # (M, S, K)
    logits = queries @ old.weight[classes].T + old.bias[classes]
    is_own = old.query_labels[:, None] == classes
    own_z, other_z, own_c, other_c = (
        float(values.transpose(0, 2, 1)[mask].mean())
        for values in (logits, imprinted)
        for mask in (is_own, ~is_own)
    )
    if own_z <= other_z or own_c <= other_c:
        raise DataError(
            "the model rates images of its own classes no higher than others, so that no class can be added; "
            "train it further"
        )
    scale = (own_z - other_z) / (own_c - other_c)
    weight = scale * prototype(features, mean)
    return Row(weight, own_z - scale * own_c - float(weight @ mean), scale)


def _unit(values: Floats) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12))
