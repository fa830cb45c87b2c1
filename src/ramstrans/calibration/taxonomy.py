"""A taxonomy of the classes, and answers that roll up to the finest rank that is certain enough.

The probability of a group, e.g. a genus, is the sum of those of its classes. The answer is the finest rank
whose most probable group reaches the confidence that is asked, the trade of accuracy for detail of Deng et
al. (https://doi.org/10.1109/CVPR.2012.6248086). Where none does, it is the root, which stands for every
class.

The confidence is above 0.5. Of groups that share no class, only one can have more than half of the
probability, and a group lies within one group of the next rank. So the groups that reach it are each above
the other, and the answer at a coarser rank, which is that with the largest sum there, is always above a
finer one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramstrans.calibration.wanted import check_rank_confidence
from ramstrans.errors import ConfigError

CONFIDENCE = 0.9
"""Asked of an answer by default."""

ROOT = "root"
"""Rank of an answer that no rank is certain enough for."""

NO_GROUP = -1
"""Stands for the group of a class that has no such rank."""

Float = NDArray[np.floating]


@dataclass(frozen=True)
class Taxonomy:
    """The ranks of C classes.

    Attributes:
        ranks: Names of the ranks, that of the classes first, then coarser and coarser ones: R names.
        groups: For each rank above the classes, the names of its groups. Two may share a name if groups above
            them differ: a genus of plants may be called like one of animals.
        members: For each rank above the classes, the group of each class, by its index; -1 if a class has no
            such rank.
        confidence: That the probability of an answer is to reach, in (0.5, 1).
        source: Where the ranks come from.
    """

    ranks: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    members: tuple[tuple[int, ...], ...]
    confidence: float = CONFIDENCE
    source: str = ""

    def __post_init__(self) -> None:
        check_rank_confidence(self.confidence)
        if not len(self.ranks) == len(self.groups) + 1 == len(self.members) + 1:
            raise ConfigError(
                f"a taxonomy has {len(self.ranks)} ranks, {len(self.groups)} lists of groups and "
                f"{len(self.members)} of members; copy calibration.json again"
            )

    @property
    def root(self) -> int:
        """Index of the rank above all others."""
        return len(self.ranks)

    @cached_property
    def labels(self) -> NDArray[np.intp]:
        """(R, C) the group of each class at each rank; at the first it is the class itself."""
        num_classes = len(self.members[0]) if self.members else 0
        return np.array([range(num_classes), *self.members], dtype=np.intp)

    def answer(self, found: "RolledUp", index: int, class_names: Sequence[str]) -> "RankAnswer":
        """The answer for one image, by names; those of the classes are in label order."""
        rank, group, probability = (values[index].item() for values in found)
        if rank == self.root:
            return RankAnswer(ROOT, None, probability)
        names = class_names if rank == 0 else self.groups[rank - 1]
        return RankAnswer(self.ranks[rank], names[group], probability)

    def sums(self, probabilities: Float, rank: int) -> NDArray[np.float64]:
        """(N, G) summed probabilities of the groups of a rank, from those of the classes (N, C).

        >>> birds = Taxonomy(("species", "genus"), (("Larus", "Sterna"),), ((0, 1, 0),))
        >>> birds.sums(np.array([[0.5, 0.25, 0.25]]), 1).tolist()
        [[0.75, 0.25]]
        """
        values = np.asarray(probabilities, np.float64)
        if rank == 0:
            return values
        groups = self.labels[rank]
        order = np.argsort(groups, kind="stable")
        order = order[groups[order] != NO_GROUP]
        starts = np.searchsorted(groups[order], np.arange(len(self.groups[rank - 1])))
        return np.minimum(np.add.reduceat(values[:, order], starts, axis=1), 1.0)

    def distances(self, first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.intp]:
        """(N,) how many ranks are between pairs of classes (N,) and the finest group that has both.

        0: the same class; 1: both are in one group of the next rank; R: only the root has both.

        >>> birds = Taxonomy(("species", "genus"), (("Larus", "Sterna"),), ((0, 1, 0),))
        >>> birds.distances(np.array([0, 0, 0]), np.array([0, 2, 1])).tolist()
        [0, 1, 2]
        """
        one, other = self.labels[:, first], self.labels[:, second]
        shared = (one == other) & (one != NO_GROUP)
        return np.where(shared.any(axis=0), shared.argmax(axis=0), self.root)


class RankAnswer(NamedTuple):
    """The answer for an image at the finest rank that is certain enough.

    Attributes:
        rank: Name of the rank; `root` if none is.
        name: The group, or class; None for the root.
        probability: Summed; 1 for the root.
    """

    rank: str
    name: str | None
    probability: float


class RolledUp(NamedTuple):
    """Answers for N images at the finest ranks that are certain enough.

    Attributes:
        ranks: (N,) indices of their ranks: 0 is that of the classes, R the root.
        groups: (N,) indices of the groups at these ranks; of the root 0.
        probabilities: (N,) summed; of the root 1.
    """

    ranks: NDArray[np.intp]
    groups: NDArray[np.intp]
    probabilities: NDArray[np.float64]


def roll_up(taxonomy: Taxonomy, probabilities: Float) -> RolledUp:
    """The answers for N images, from probabilities (N, C).

    >>> birds = Taxonomy(("species", "genus"), (("Larus", "Sterna"),), ((0, 1, 0),), confidence=0.7)
    >>> found = roll_up(birds, np.array([[0.5, 0.25, 0.25], [0.9, 0.1, 0.0], [0.5, 0.5, 0.0]]))
    >>> found.ranks.tolist(), found.groups.tolist(), found.probabilities.tolist()
    ([1, 0, 2], [0, 0, 0], [0.75, 0.9, 1.0])
    """
    num_images = len(probabilities)
    ranks = np.full(num_images, taxonomy.root, np.intp)
    groups, reached = np.zeros(num_images, np.intp), np.ones(num_images)
    for rank in reversed(range(taxonomy.root)):  # a finer one takes the place of a coarser one
        sums = taxonomy.sums(probabilities, rank)
        best = sums.argmax(axis=1)
        highest = np.take_along_axis(sums, best[:, None], axis=1)[:, 0]
        rows = highest >= taxonomy.confidence
        ranks[rows], groups[rows], reached[rows] = rank, best[rows], highest[rows]
    return RolledUp(ranks, groups, reached)


def taxonomy_of(
    ranks: Sequence[str], above: Sequence[Sequence[str]], confidence: float = CONFIDENCE, source: str = ""
) -> Taxonomy | None:
    """Build a taxonomy; None if no rank divides the classes.

    A rank of which all classes are in one group says nothing, and is left out.

    Args:
        ranks: Names of R ranks, that of the classes first.
        above: For each class, the names of its groups at the R - 1 ranks above it; "" where it has no such
            rank. Groups are the same if they, and all above them, have the same names.
        confidence: That an answer is to reach.
        source: Where the ranks come from.

    >>> taxonomy_of(("species", "genus", "class"), [("Larus", "Birds"), ("Sterna", "Birds")]).ranks
    ('species', 'genus')
    """
    kept, groups, members = [ranks[0]], [], []
    for index, rank in enumerate(ranks[1:]):
        keys = [tuple(names[index:]) for names in above]
        known = dict.fromkeys(key for key in keys if key[0])
        if len(known) < 2 and all(key[0] for key in keys):
            continue
        if not known:
            continue
        number = {key: position for position, key in enumerate(known)}
        kept.append(rank)
        groups.append(tuple(key[0] for key in known))
        members.append(tuple(number.get(key, NO_GROUP) for key in keys))
    if not groups:
        return None
    return Taxonomy(tuple(kept), tuple(groups), tuple(members), confidence, source)


def taxonomy_of_data(
    ranks: Sequence[str], hierarchy: Mapping[str, Sequence[str]], class_names: Sequence[str], source: str
) -> Taxonomy | None:
    """The taxonomy of a model's classes by the hierarchy of its data set; None if that has none.

    Args:
        ranks: Names of the ranks, that of the classes first; empty: they are called `class`, and, from the
            coarsest down, `level 1`, `level 2`, ...
        hierarchy: By class, the groups above it, nearest first. Where classes have different numbers of
            groups, the coarsest are at the same rank.
        class_names: Of the model, in label order.
        source: Where the hierarchy comes from.

    >>> found = taxonomy_of_data((), {"wren": ("Wrens", "Birds"), "ant": ("Insects",)}, ("ant", "wren"), "")
    >>> found.ranks, found.groups
    (('class', 'level 2', 'level 1'), (('Wrens',), ('Insects', 'Birds')))
    """
    depth = max((len(hierarchy.get(name, ())) for name in class_names), default=0)
    if not depth:
        return None
    names = tuple(ranks) or ("class", *(f"level {level}" for level in range(depth, 0, -1)))
    depth = len(names) - 1
    above = [tuple(hierarchy.get(name, ())) for name in class_names]
    padded = [("",) * (depth - len(groups)) + groups for groups in above]
    return taxonomy_of(names, padded, source=source)
