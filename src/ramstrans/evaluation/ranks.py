"""Answers at the ranks of a taxonomy, measured: accuracy, detail, and how far off mistakes are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from ramstrans.calibration.answers import Answers
from ramstrans.calibration.priors import Matched
from ramstrans.calibration.taxonomy import NO_GROUP, RolledUp, Taxonomy, taxonomy_of_data
from ramstrans.data.records import ImageSet
from ramstrans.evaluation.metrics import paired_interval, wilson_interval


def taxonomy_of_images(images: ImageSet, class_names: Sequence[str], source: str) -> Taxonomy | None:
    """The ranks of a model's classes that a data set brings; None if it has none that divide them."""
    hierarchy = dict(zip(images.class_names, images.hierarchy, strict=False))
    return taxonomy_of_data(images.ranks, hierarchy, class_names, source)


def ranks_report(taxonomy: Taxonomy, given: Answers, labels: np.ndarray) -> dict[str, Any]:
    """Report how good answers at the ranks of a taxonomy are; all shares in percent, intervals of 95 %.

    Args:
        taxonomy: Of C classes.
        given: For N images.
        labels: (N,) their classes.

    Returns:
        `source`; `confidence` asked; `ranks`, from that of the classes up, see `_rank`; `unanswered`: share
        of images that no rank is certain enough for, with its `unanswered_interval`; `right`: share of the
        answers at any rank that are right, None without answers, with its `right_interval`; `depth`: mean
        depth of the answers, 0 for none and `max_depth` for the class, with its `depth_interval`; and
        `mistakes`, see `mistakes_report`.
    """
    found = given.rolled_up
    assert found is not None, "answers of a model with a taxonomy"
    is_right = right_answers(taxonomy, found, labels)
    answered = found.ranks < taxonomy.root
    depth = taxonomy.root - found.ranks
    return {
        "source": taxonomy.source,
        "confidence": 100 * taxonomy.confidence,
        "ranks": [
            _rank(taxonomy, rank, given.probabilities, found, is_right, labels)
            for rank in range(taxonomy.root)
        ],
        **_share("unanswered", int((~answered).sum()), len(labels)),
        **_share("right", int(is_right[answered].sum()), int(answered.sum())),
        "depth": float(depth.mean()),
        "depth_interval": mean_interval(depth),
        "max_depth": taxonomy.root,
        "mistakes": mistakes_report(taxonomy, given.probabilities, labels),
    }


def right_answers(taxonomy: Taxonomy, found: RolledUp, labels: np.ndarray) -> np.ndarray:
    """(N,) whether each answer is a group of the true class (N,); False where there is none."""
    rank = np.minimum(found.ranks, taxonomy.root - 1)
    return np.asarray((taxonomy.labels[rank, labels] == found.groups) & (found.ranks < taxonomy.root))


def _rank(
    taxonomy: Taxonomy,
    rank: int,
    probabilities: np.ndarray,
    found: RolledUp,
    is_right: np.ndarray,
    labels: np.ndarray,
) -> dict[str, Any]:
    """One rank.

    Returns:
        Its name, `rank`; `num_groups`; `num_images` whose class has this rank; `accuracy`: share of these for
        which the most probable group is the true one, whatever the confidence; `answered`: share of all
        images with an answer at this rank; `right`: share of those answers that are right. None where there
        is nothing to count; each share has its interval.
    """
    truth = taxonomy.labels[rank, labels]
    has_rank = truth != NO_GROUP
    best = taxonomy.sums(probabilities, rank).argmax(axis=1)
    here = found.ranks == rank
    return {
        "rank": taxonomy.ranks[rank],
        "num_groups": int(taxonomy.labels[rank].max()) + 1,
        "num_images": int(has_rank.sum()),
        **_share("accuracy", int((best == truth)[has_rank].sum()), int(has_rank.sum())),
        **_share("answered", int(here.sum()), len(labels)),
        **_share("right", int(is_right[here].sum()), int(here.sum())),
    }


def mistakes_report(taxonomy: Taxonomy, probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How bad it is where the most probable class is wrong: the ranks up to a group that has both classes.

    This is the severity of mistakes of Bertinetto et al. (https://arxiv.org/abs/1912.09393): 1 if both are
    in one group of the rank above the classes, R if nothing but the root has both.

    Returns:
        `num_images` with a wrong class; `distance`, their mean, and its `distance_interval`; `by_chance`, the
        mean over all other classes in place of the one that was taken; `ranks`: for each rank above the
        classes, and `root`, its name, `rank`, and the `share` of mistakes that first meet there. None if
        there are no mistakes.
    """
    predicted = probabilities.argmax(axis=1)
    wrong = predicted != labels
    truth, taken = labels[wrong], predicted[wrong]
    if not len(truth):
        return dict.fromkeys(("distance", "distance_interval", "by_chance")) | {"num_images": 0, "ranks": []}
    distances = taxonomy.distances(truth, taken)
    every = np.arange(probabilities.shape[1])
    mean_of = {
        label: float(taxonomy.distances(np.full(len(every), label), every).sum()) / (len(every) - 1)
        for label in np.unique(truth).tolist()
    }
    names = [*taxonomy.ranks[1:], "root"]
    return {
        "num_images": len(truth),
        "distance": float(distances.mean()),
        "distance_interval": mean_interval(distances),
        "by_chance": float(np.mean([mean_of[label] for label in truth.tolist()])),
        "ranks": [
            {"rank": name, "share": 100 * float((distances == index).mean())}
            for index, name in enumerate(names, start=1)
        ],
    }


def priors_report(
    given: Answers, matched: Sequence[Matched], labels: np.ndarray, source: str
) -> dict[str, Any]:
    """Report what priors do to the answers.

    Returns:
        `source`; `num_images`; `matched`: of them those with a condition that holds; `changed`, `corrected`
        and `spoiled`: images whose most probable class is another, became right, became wrong; `before` and
        `after`, percent that are right, and the `points` between them with their 95 % `interval`.
    """
    before, after = (p.argmax(axis=1) for p in (given.without_priors, given.probabilities))
    was_right, is_right = before == labels, after == labels
    corrected, spoiled = int((is_right & ~was_right).sum()), int((was_right & ~is_right).sum())
    return {
        "source": source,
        "num_images": len(labels),
        "matched": sum(one.weights is not None for one in matched),
        "changed": int((before != after).sum()),
        "corrected": corrected,
        "spoiled": spoiled,
        "before": 100 * int(was_right.sum()) / len(labels),
        "after": 100 * int(is_right.sum()) / len(labels),
        "points": 100 * (corrected - spoiled) / len(labels),
        "interval": paired_interval(corrected, spoiled, len(labels)),
    }


def mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of a mean by Student's t; None for fewer than two values.

    >>> [round(end, 3) for end in mean_interval(np.array([1, 2, 3]))]  # 2 +- 4.303 / sqrt(3)
    [-0.484, 4.484]
    """
    if len(values) < 2:
        return None
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1)) / len(values) ** 0.5
    mean = float(values.mean())
    return mean - half, mean + half


def _share(name: str, count: int, total: int) -> dict[str, Any]:
    """A share in percent with its interval; None of nothing."""
    interval = wilson_interval(count, total) if total else None
    return {name: 100 * count / total if total else None, f"{name}_interval": interval}
