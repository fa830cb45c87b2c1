"""Scores of how unlike an image is to all that was trained on: high for an unknown class.

`z` are an image's C logits, `f` its feature, the D numbers that the classifier reads. Where D numbers of the
training images are compared with, they are those of the same scale:

    max_probability   -max p, of the calibrated answer      https://arxiv.org/abs/1610.02136
    max_logit         -max z                                https://arxiv.org/abs/1911.11132
    energy            -log sum exp z                        https://arxiv.org/abs/2010.03759
    knn               |f - f'|, f' the 5th nearest of the training images, all of length 1
                                                            https://arxiv.org/abs/2204.06507
    mahalanobis       min over classes of (f - mu_c)' S^-1 (f - mu_c)   -   (f - mu)' S0^-1 (f - mu)
                      relative Mahalanobis distance         https://arxiv.org/abs/2106.09022
    vim               alpha |R (f - o)| - log sum exp z     https://arxiv.org/abs/2203.10807

S is the covariance within classes, S0 that of all images, and R takes what lies outside the directions in
which training images vary most.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ramstrans.calibration.wanted import ScoreName

SCORES: tuple[ScoreName, ...] = get_args(ScoreName)

NEEDS: dict[ScoreName, tuple[str, ...]] = {
    "max_probability": (),
    "max_logit": ("logits",),
    "energy": ("logits",),
    "knn": ("features",),
    "mahalanobis": ("features",),
    "vim": ("logits", "features"),
}
"""What each score is computed from, beside the calibrated answer; features mean training images' too."""

ARRAYS: dict[ScoreName, tuple[str, ...]] = {
    "knn": ("neighbors",),
    "mahalanobis": ("within", "means", "overall", "mean"),
    "vim": ("origin", "residual", "alpha"),
}
"""Names of what `fit_arrays` keeps for a score; nothing for the others."""

NUM_NEIGHBORS = 5

MIN_VARIANCE = 1e-6
"""Share of the largest variance below which a direction counts as one in which features do not vary."""

_CHUNK = 1024

Arrays = Mapping[str, NDArray[np.float32]]


class Reference(NamedTuple):
    """What the scores of one scale compare with.

    Attributes:
        features: (N, D) of training images.
        labels: (N,) their classes.
        head: `(weight (C, D), bias (C,))` of the linear classifier; None if it is of another kind.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.integer]
    head: tuple[NDArray[np.floating], NDArray[np.floating]] | None

    def without(self, classes: NDArray[np.integer]) -> "Reference":
        """The same without some classes: neither their images nor their rows of the classifier."""
        kept = ~np.isin(self.labels, classes)
        head = self.head
        if head is not None:
            head = np.delete(head[0], classes, axis=0), np.delete(head[1], classes)
        return Reference(self.features[kept], self.labels[kept], head)


def fit_arrays(name: ScoreName, reference: Reference) -> dict[str, NDArray[np.float32]]:
    """What a score of one scale has to keep, by name; nothing for scores of logits."""
    fit = _FITS.get(name)
    fitted = {} if fit is None else fit(reference)
    return {key: np.ascontiguousarray(array, np.float32) for key, array in fitted.items()}


def unknown_scores(
    name: ScoreName,
    logits: NDArray[np.floating] | None,
    features: NDArray[np.floating] | None,
    arrays: Arrays,
) -> NDArray[np.float64]:
    """(N,) scores of one scale.

    Args:
        name: Of `SCORES`, but not `max_probability`, which needs the calibrated answer.
        logits: (N, C); None if the score does not need them.
        features: (N, D); None if the score does not need them.
        arrays: From `fit_arrays`.
    """
    return _SCORES[name](_in_float64(logits), _in_float64(features), arrays)


def score_of(
    name: ScoreName,
    scales: Sequence[int],
    calibrated: NDArray[np.floating],
    logits: NDArray[np.floating] | None,
    features: NDArray[np.floating] | None,
    arrays: Arrays,
) -> NDArray[np.float64]:
    """(N,) a score, averaged over scales.

    Args:
        name: Of `SCORES`.
        scales: Numbers of scales, from 1.
        calibrated: (N, C) the calibrated answer.
        logits: (S, N, C); None if the score does not need them.
        features: (S, N, D); None if the score does not need them.
        arrays: Those of `fit_arrays` of each scale, with `scale_1.` and so on before their names.
    """
    if name == "max_probability":
        return np.asarray(-calibrated.max(axis=1).astype(np.float64))
    each = []
    for scale in scales:
        own = arrays_of_scale(arrays, scale)
        of_logits = None if logits is None else logits[scale - 1]
        of_features = None if features is None else features[scale - 1]
        each.append(unknown_scores(name, of_logits, of_features, own))
    return np.asarray(np.mean(each, axis=0))


def arrays_of_scale(arrays: Arrays, scale: int) -> dict[str, NDArray[np.float32]]:
    """The arrays of one scale, numbered from 1, without `scale_1.` and so on before their names."""
    prefix = f"scale_{scale}."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def _in_float64(values: NDArray[np.floating] | None) -> NDArray[np.float64]:
    """Values in float64; none for None."""
    return np.zeros((0, 0)) if values is None else values.astype(np.float64)


def energy(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) minus the log of the sum of exponentials.

    >>> energy(np.log([[1.0, 3.0]])).round(6).tolist() == [-round(float(np.log(4)), 6)]
    True
    """
    top = logits.max(axis=1)
    return np.asarray(-(top + np.log(np.exp(logits - top[:, None]).sum(axis=1))))


def _unit(features: NDArray[np.floating]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), np.float64)


def _fit_knn(reference: Reference) -> dict[str, NDArray[Any]]:
    return {"neighbors": _unit(reference.features)}


def _knn(_z: NDArray[np.float64], features: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
    bank = arrays["neighbors"].astype(np.float64)
    nearest = min(NUM_NEIGHBORS, len(bank)) - 1
    scores = np.empty(len(features))
    for start in range(0, len(features), _CHUNK):
        cosines = _unit(features[start : start + _CHUNK]) @ bank.T
        kth = -np.partition(-cosines, nearest, axis=1)[:, nearest]
        scores[start : start + _CHUNK] = np.sqrt(np.maximum(2 - 2 * kth, 0))
    return scores


def _whitening(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """(D, r) such that `|x @ W|^2` is the squared Mahalanobis distance by the covariance of centred rows.

    Directions without variance are left out, as a pseudo-inverse does.
    """
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = variances > MIN_VARIANCE * max(float(variances[-1]), 1e-12)
    return np.asarray(directions[:, kept] / np.sqrt(variances[kept]))


def _fit_mahalanobis(reference: Reference) -> dict[str, NDArray[Any]]:
    features = reference.features.astype(np.float64)
    classes, index = np.unique(reference.labels, return_inverse=True)
    means = np.stack([features[index == number].mean(axis=0) for number in range(len(classes))])
    overall = features.mean(axis=0)
    within = _whitening(features - means[index])
    return {
        "within": within,
        "means": means @ within,
        "overall": _whitening(features - overall),
        "mean": overall,
    }


def _mahalanobis(
    _z: NDArray[np.float64], features: NDArray[np.float64], arrays: Arrays
) -> NDArray[np.float64]:
    white, means = features @ arrays["within"], arrays["means"].astype(np.float64)
    distances = (white**2).sum(axis=1)[:, None] - 2 * white @ means.T + (means**2).sum(axis=1)
    overall = (features - arrays["mean"]) @ arrays["overall"]
    return np.asarray(distances.min(axis=1) - (overall**2).sum(axis=1))


def num_principal(width: int) -> int:
    """Directions that count as varying, of D: as in section 4.1 of the paper on ViM.

    >>> num_principal(192), num_principal(768), num_principal(2048)
    (96, 512, 1000)
    """
    return 1000 if width >= 2048 else 512 if width >= 768 else width // 2


def _fit_vim(reference: Reference) -> dict[str, NDArray[Any]]:
    assert reference.head is not None, "a linear classifier"
    weight, bias = (array.astype(np.float64) for array in reference.head)
    features = reference.features.astype(np.float64)
    origin = -np.linalg.pinv(weight) @ bias
    centred = features - origin
    _, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    count, width = features.shape
    principal = min(num_principal(width), count // 2)  # or few images would have no residual but rounding
    residual = directions[:, : width - principal]
    top = (features @ weight.T + bias).max(axis=1).mean()
    alpha = top / np.linalg.norm(centred @ residual, axis=1).mean()
    return {"origin": origin, "residual": residual, "alpha": np.array([alpha])}


def _vim(logits: NDArray[np.float64], features: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
    outside = np.linalg.norm((features - arrays["origin"]) @ arrays["residual"], axis=1)
    return np.asarray(float(arrays["alpha"][0]) * outside + energy(logits))


_FITS: dict[str, Callable[[Reference], dict[str, NDArray[Any]]]] = {
    "knn": _fit_knn,
    "mahalanobis": _fit_mahalanobis,
    "vim": _fit_vim,
}

_SCORES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64], Arrays], NDArray[np.float64]]] = {
    "max_logit": lambda logits, _features, _arrays: -logits.max(axis=1),
    "energy": lambda logits, _features, _arrays: energy(logits),
    "knn": _knn,
    "mahalanobis": _mahalanobis,
    "vim": _vim,
}
