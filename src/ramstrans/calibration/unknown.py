"""Which score tells the unknown, and above which value: chosen on images that were not trained on.

Classes are left out in turn: their images count as unknown, their logits are masked, and neither their
training images nor their rows of the classifier enter what a score compares with. The network itself was
trained on them, which no masking undoes: its features know these classes, so that the figures are of a task
other than the one to come. They rank the scores; how well the chosen one does is measured by `evaluate` on
images of classes that were never seen.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import rankdata

from ramstrans.calibration.conformal import quantile
from ramstrans.calibration.scores import (
    NEEDS,
    SCORES,
    Reference,
    fit_arrays,
    score_of,
)
from ramstrans.calibration.temperature import log_probabilities, tempered
from ramstrans.calibration.wanted import ScoreName

NUM_GROUPS = 5
"""Parts of the classes that are left out in turn."""


class Seen(NamedTuple):
    """What a model with S scales gives for N images of C classes.

    Attributes:
        probabilities: (S, N, C) of each scale, before calibration: the softmax of its logits.
        logits: (S, N, C).
        features: (S, N, D), what the classifier reads.
        labels: (N,) the true classes; of no meaning for unknown images.
    """

    probabilities: NDArray[np.floating]
    logits: NDArray[np.floating]
    features: NDArray[np.floating]
    labels: NDArray[np.integer]

    @property
    def log_fused(self) -> NDArray[np.float64]:
        """(N, C) logarithms of the mean of the scales' probabilities."""
        return log_probabilities(self.probabilities.mean(axis=0))

    def first(self, num_scales: int) -> "Seen":
        """The same of the first scales alone."""
        kept = slice(num_scales)
        return Seen(self.probabilities[kept], self.logits[kept], self.features[kept], self.labels)


class Candidate(NamedTuple):
    """A score, and the scales over which it is averaged.

    Attributes:
        score: Its name.
        scales: Numbers of scales, from 1; none for `max_probability`.
        auroc: Percent.
        fpr95: Percent.
    """

    score: ScoreName
    scales: tuple[int, ...]
    auroc: float = float("nan")
    fpr95: float = float("nan")


def auroc(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """Percent of pairs in which the unknown image has the higher score; equal scores count half.

    >>> auroc(np.array([1.0, 2.0]), np.array([2.0, 3.0]))  # 3.5 of 4
    87.5
    """
    ranks = rankdata(np.concatenate([known, unknown]))[len(known) :]
    wins = ranks.sum() - len(unknown) * (len(unknown) + 1) / 2
    return float(100 * wins / (len(known) * len(unknown)))


def fpr95(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """Percent of unknown images that pass as known where 95 % of the known ones do.

    >>> fpr95(np.arange(20.0), np.array([5.0, 18.0, 18.5, 40.0]))  # 95 % of the known are at most 18
    50.0
    """
    threshold = np.sort(known)[int(np.ceil(0.95 * len(known) - 1e-9)) - 1]
    return float(100 * (unknown <= threshold).mean())


def candidates(
    num_scales: int, *, has_reference: bool, has_head: bool, score: str = "auto"
) -> list[Candidate]:
    """Every score that can be had, of each scale and averaged over all.

    Args:
        num_scales: Scales in use.
        has_reference: Whether there are features of training images.
        has_head: Whether the classifier is linear, which ViM needs.
        score: One name, or `auto` for all.
    """
    subsets: list[tuple[int, ...]] = [(scale,) for scale in range(1, num_scales + 1)]
    subsets += [tuple(range(1, num_scales + 1))] if num_scales > 1 else []
    names = [name for name in SCORES if score in ("auto", name)]
    if not has_reference:
        names = [name for name in names if "features" not in NEEDS[name]]
    if not has_head:
        names = [name for name in names if name != "vim"]
    return [
        Candidate(name, scales)
        for name in names
        for scales in ([()] if name == "max_probability" else subsets)
    ]


def arrays_of(
    name: ScoreName, scales: Sequence[int], references: Sequence[Reference]
) -> dict[str, NDArray[np.float32]]:
    """What a score of some scales has to keep, by scale and name."""
    return {
        f"scale_{scale}.{key}": array
        for scale in scales
        for key, array in (fit_arrays(name, references[scale - 1]) if references else {}).items()
    }


def choose_on_unknown(
    choices: Sequence[Candidate],
    known: Seen,
    unknown: Seen,
    references: Sequence[Reference],
    temperature: float,
) -> list[Candidate]:
    """The candidates with their figures on given unknown images, best first."""
    measured = _measured(choices, known, unknown, references, temperature)
    return _ranked(choices, [measured])


def choose_by_leaving_out(
    choices: Sequence[Candidate], known: Seen, references: Sequence[Reference], temperature: float
) -> list[Candidate]:
    """The candidates with their mean figures over groups of classes that are left out, best first.

    Without groups that have both known and unknown images, the figures are NaN, and the order is the given.
    """
    parts = [
        _measured(
            choices,
            _masked(known, classes, is_unknown=False),
            _masked(known, classes, is_unknown=True),
            [reference.without(classes) for reference in references],
            temperature,
        )
        for classes in _groups(known)
    ]
    return _ranked(choices, parts)


def threshold(scores: NDArray[np.floating], reject: float) -> float:
    """The score above which at most a share of new known images is rejected; see `conformal.quantile`."""
    return quantile(scores, 1 - reject)


def _groups(known: Seen) -> Iterator[NDArray[np.integer]]:
    """Parts of the classes, drawn once for all, whose images and those of the others are there."""
    num_classes = known.logits.shape[2]
    order = np.random.default_rng(0).permutation(num_classes)
    for classes in np.array_split(order, min(NUM_GROUPS, num_classes)):
        is_unknown = np.isin(known.labels, classes)
        if is_unknown.any() and not is_unknown.all():
            yield np.sort(classes)


def _masked(known: Seen, classes: NDArray[np.integer], *, is_unknown: bool) -> Seen:
    """The images of some classes, or of the others, as seen without these classes."""
    kept = np.isin(known.labels, classes) == is_unknown
    logits = np.delete(known.logits[:, kept], classes, axis=2)
    return Seen(softmax(logits, axis=2), logits, known.features[:, kept], known.labels[kept])


def _measured(
    choices: Sequence[Candidate],
    known: Seen,
    unknown: Seen,
    references: Sequence[Reference],
    temperature: float,
) -> NDArray[np.float64]:
    """(n, 2) AUROC and FPR95 of each candidate."""
    calibrated = [tempered(seen.log_fused, temperature) for seen in (known, unknown)]
    fitted: dict[tuple[str, int], dict[str, NDArray[np.float32]]] = {}
    figures = []
    for choice in choices:
        arrays: dict[str, NDArray[np.float32]] = {}
        for scale in choice.scales:
            key = choice.score, scale
            if key not in fitted:
                fitted[key] = arrays_of(choice.score, [scale], references)
            arrays |= fitted[key]
        of_known, of_unknown = (
            score_of(choice.score, choice.scales, answer, seen.logits, seen.features, arrays)
            for answer, seen in zip(calibrated, (known, unknown), strict=True)
        )
        figures.append((auroc(of_known, of_unknown), fpr95(of_known, of_unknown)))
    return np.array(figures)


def _ranked(choices: Sequence[Candidate], parts: Sequence[NDArray[np.float64]]) -> list[Candidate]:
    """The candidates with their mean figures, highest AUROC first, equal ones as they were."""
    if not parts:
        return list(choices)
    means = np.mean(parts, axis=0)
    order = np.argsort(-means[:, 0], kind="stable")
    return [
        choices[index]._replace(auroc=float(means[index, 0]), fpr95=float(means[index, 1]))
        for index in order.tolist()
    ]
