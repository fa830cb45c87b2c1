"""Which images a page shows, from the predictions alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ramstrans.data.audit.label_issues import ranked_issues
from ramstrans.evaluation.localization import clipped, true_ious
from ramstrans.evaluation.metrics import true_ranks
from ramstrans.evaluation.predict import Predictions

NUM_CONFIDENT, NUM_WORST, NUM_CHANGED, NUM_ISSUES, NUM_REGIONS, PER_CLASS = 16, 6, 8, 12, 4, 3
"""Images in each group of mistakes, of those that zooming changed, of labels, of regions, of a class."""


class Group(NamedTuple):
    """Images under one heading: those shown, and how many there are in all."""

    title: str
    indices: list[int]
    total: int


class Issue(NamedTuple):
    """A label that the predictions contradict: its image, the class suggested, and both probabilities."""

    image: int
    suggested: int
    given_percent: float
    suggested_percent: float


class Chosen(NamedTuple):
    """All images of a page.

    Attributes:
        mistakes: Groups of `choose_mistakes`.
        regions: Groups of `choose_regions`; none if no scale uses a region.
        region_values: What they are ordered by.
        issues: The clearest of the labels that the predictions contradict.
        num_issues: How many there are.
        of_classes: Images of each class, the most important ones first.
    """

    mistakes: list[Group]
    regions: list[Group]
    region_values: np.ndarray
    issues: list[Issue]
    num_issues: int
    of_classes: dict[int, list[int]]

    @property
    def looked_at(self) -> list[int]:
        """Images that are shown with what each scale saw."""
        return [index for group in self.mistakes for index in group.indices]

    @property
    def photographed(self) -> list[int]:
        """Images of which the photograph is shown; perhaps among those of `looked_at`."""
        in_regions = [index for group in self.regions for index in group.indices]
        return [*(issue.image for issue in self.issues), *in_regions]


def choose(
    predictions: Predictions, probabilities: np.ndarray, classes: Sequence[int], *, has_regions: bool
) -> Chosen:
    """Choose the images of a page.

    Args:
        predictions: For N images.
        probabilities: (N, C) of all scales together.
        classes: Labels that the page lists, in its order.
        has_regions: Whether a scale uses the region of another one.
    """
    labels = predictions.labels
    regions, values = choose_regions(predictions) if has_regions else ([], np.empty(0))
    found = ranked_issues(probabilities, labels)
    issues = [
        Issue(index, other, *(100 * probabilities[index, [labels[index], other]]).tolist())
        for index, other in found[:NUM_ISSUES]
    ]
    of_classes = choose_of_classes(labels, probabilities[np.arange(len(labels)), labels])
    return Chosen(
        choose_mistakes(predictions, probabilities),
        regions,
        values,
        issues,
        len(found),
        {label: of_classes[label] for label in classes},
    )


def choose_mistakes(predictions: Predictions, probabilities: np.ndarray) -> list[Group]:
    """Mistakes and corrected mistakes, no image twice; groups without images are left out.

    Args:
        predictions: For N images.
        probabilities: (N, C) of all scales together.
    """
    labels = predictions.labels
    ranks = true_ranks(probabilities, labels)
    wrong, confidence = ranks > 0, probabilities.max(axis=1)
    truth = probabilities[np.arange(len(labels)), labels]
    first = predictions.probabilities[0].argmax(axis=1) == labels
    spoiled, corrected = wrong & first, ~wrong & ~first
    candidates = [
        ("The most confident mistakes", wrong, -confidence, NUM_CONFIDENT),
        ("The worst mistakes: the true class was rated lowest", wrong, -ranks, NUM_WORST),
        ("Spoiled by looking again: the first look was right", spoiled, -confidence, NUM_CHANGED),
        ("Corrected by looking again", corrected, -truth, NUM_CHANGED),
    ]
    shown: set[int] = set()
    groups = []
    for title, among, key, count in candidates:
        found = ordered(among, key)
        chosen = [index for index in found if index not in shown][:count]
        shown.update(chosen)
        if chosen:
            groups.append(Group(title, chosen, len(found)))
    return groups


def choose_of_classes(labels: np.ndarray, truth: np.ndarray) -> dict[int, list[int]]:
    """Images of each class that has some: where its probability is highest, lowest and in the middle.

    Args:
        labels: (N,) true classes.
        truth: (N,) the probability of the true class.

    >>> choose_of_classes(np.array([3, 0, 3, 3, 3]), np.array([0.2, 0.5, 0.9, 0.7, 0.4]))
    {0: [1], 3: [2, 0, 4]}
    """
    order = np.lexsort((-truth, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    chosen = {}
    for indices in np.split(order, starts[1:]):
        ends_first = [indices[0], indices[-1], indices[len(indices) // 2]]
        chosen[int(labels[indices[0]])] = [int(index) for index in dict.fromkeys(ends_first)][:PER_CLASS]
    return chosen


def choose_regions(predictions: Predictions) -> tuple[list[Group], np.ndarray]:
    """Choose regions of scale 1, by overlap with the true box, or by size if there is none: ends and middle.

    Returns:
        The groups, and (N,) what they are ordered by: IoU or share of the image, percent, both as
        `region_metrics` has them; NaN for an image without a true box where others have one.
    """
    boxes, sizes = predictions.boxes[0], predictions.image_sizes
    values = 100 * true_ious(boxes, predictions.records, sizes)
    titles = ("Best overlap", "Median overlap", "Worst overlap")
    if np.isnan(values).all():
        regions = clipped(boxes, sizes)
        values = 100 * (regions[:, 2:] - regions[:, :2]).prod(axis=1) / sizes.prod(axis=1)
        titles = ("Largest", "Median size", "Smallest")
    order = ordered(~np.isnan(values), -values)
    if len(order) < 3 * NUM_REGIONS:
        return [Group(f"{titles[0]} first", order, len(order))], values
    middle = len(order) // 2 - NUM_REGIONS // 2
    parts = order[:NUM_REGIONS], order[middle : middle + NUM_REGIONS], order[: -NUM_REGIONS - 1 : -1]
    groups = [Group(title, part, len(order)) for title, part in zip(titles, parts, strict=True)]
    return groups, values


def ordered(among: np.ndarray, key: np.ndarray) -> list[int]:
    """Indices of some images by a rising key; equal ones in their order."""
    indices = np.flatnonzero(among)
    found: Sequence[int] = indices[np.argsort(key[indices], kind="stable")].tolist()
    return list(found)
