"""Answers that roll up: by hand, and against loops over a tree of dictionaries."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.calibration.answers import answers
from ramstrans.calibration.fitted import calibration_from_json, with_rank_confidence
from ramstrans.calibration.taxonomy import Taxonomy, roll_up, taxonomy_of, taxonomy_of_data
from ramstrans.errors import ConfigError
from tests.calibration.builders import FUSED, LOGITS, make_calibration

NAMES = ("herring gull", "common gull", "common tern", "house sparrow")
BIRDS = taxonomy_of(
    ("species", "genus", "family"),
    [("Larus", "Laridae"), ("Larus", "Laridae"), ("Sterna", "Laridae"), ("Passer", "Passeridae")],
)


def answer(probabilities, taxonomy=BIRDS):
    (found,) = (taxonomy.answer(roll_up(taxonomy, np.array([probabilities])), 0, NAMES),)
    return found


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ((0.9375, 0.0625, 0, 0), ("species", "herring gull", 0.9375)),
        ((0.5, 0.4375, 0.0625, 0), ("genus", "Larus", 0.9375)),
        ((0.5, 0.25, 0.25, 0), ("family", "Laridae", 1.0)),
        ((0.25, 0.25, 0, 0.5), ("root", None, 1.0)),
    ],
)
def test_by_hand(probabilities, expected):
    assert answer(probabilities) == expected


def test_the_confidence_itself_is_enough():
    taxonomy = replace(BIRDS, confidence=0.75)
    assert answer((0.75, 0.125, 0.125, 0), taxonomy).rank == "species"
    assert answer((0.625, 0.125, 0.25, 0), taxonomy) == ("genus", "Larus", 0.75)


def test_the_largest_sum_counts_and_not_the_best_class():
    """The sparrow is the best class, gulls and terns together are more."""
    taxonomy = replace(BIRDS, confidence=0.5625)
    assert answer((0.25, 0.1875, 0.1875, 0.375), taxonomy) == ("family", "Laridae", 0.625)


def test_a_class_without_a_rank_is_left_out_of_it():
    taxonomy = taxonomy_of(
        ("species", "genus", "family"),
        [("Larus", "Laridae"), ("Larus", "Laridae"), ("", "Laridae"), ("", "")],
    )
    assert taxonomy.members == ((0, 0, -1, -1), (0, 0, 0, -1))
    assert answer((0.5, 0.25, 0.25, 0), taxonomy) == ("family", "Laridae", 1.0)
    assert answer((0, 0, 0.0625, 0.9375), taxonomy) == ("species", "house sparrow", 0.9375)
    assert answer((0, 0, 0.5, 0.5), taxonomy) == ("root", None, 1.0)
    assert taxonomy.distances(np.array([0, 2, 3]), np.array([1, 0, 3])).tolist() == [1, 2, 0]


def test_groups_of_one_name_are_told_by_those_above():
    """A genus of gannets and one of mulberries."""
    found = taxonomy_of(("species", "genus", "kingdom"), [("Morus", "Animalia"), ("Morus", "Plantae")])
    assert found.groups == (("Morus", "Morus"), ("Animalia", "Plantae"))
    assert found.members[0] == (0, 1)


def test_a_rank_with_one_group_says_nothing():
    above = [("Larus", "Aves", ""), ("Sterna", "Aves", "")]
    assert taxonomy_of(("species", "genus", "class", "none"), above).ranks == ("species", "genus")
    assert taxonomy_of(("species", "class"), [("Aves",), ("Aves",)]) is None


def test_ranks_of_data_sets_with_and_without_names():
    hierarchy = {"a": ("Larus", "Laridae"), "b": ("Passeridae",), "other": ("X", "Y")}
    found = taxonomy_of_data(("species", "genus", "family"), hierarchy, ("b", "a"), "birds")
    assert found.ranks == ("species", "genus", "family")
    assert found.groups == (("Larus",), ("Passeridae", "Laridae"))
    assert found.members == ((-1, 0), (0, 1))
    assert found.source == "birds"
    assert taxonomy_of_data((), hierarchy, ("b", "a"), "").ranks == ("class", "level 2", "level 1")
    assert taxonomy_of_data((), {}, ("b", "a"), "") is None


@pytest.mark.parametrize("confidence", [0.5, 1.0, 0, -1, 90])
def test_a_confidence_that_two_groups_or_none_can_reach(confidence):
    with pytest.raises(ConfigError, match=r"--rank_confidence is .*; give more than 0\.5"):
        replace(BIRDS, confidence=confidence)


# ---- the slow twin


def tree_of(rows):
    """Dictionaries in dictionaries, from coarse to fine; a class is a number; no missing ranks."""
    tree = {}
    for label, groups in enumerate(rows):
        node = tree
        for rank, name in reversed(list(enumerate(groups, start=1))):
            if name:
                node = node.setdefault((rank, name), {})
        node[0, label] = label
    return tree


def mass(node, probabilities):
    return (
        probabilities[node]
        if isinstance(node, int)
        else sum(mass(below, probabilities) for below in node.values())
    )


def slow_answer(tree, probabilities, confidence):
    """Go down as long as a child has enough; rank, name or label, and probability."""
    rank, name, probability, node = None, None, 1.0, tree
    while not isinstance(node, int):
        enough = [key for key in node if mass(node[key], probabilities) >= confidence]
        if not enough:
            break
        ((rank, name),) = enough
        node = node[rank, name]
        probability = mass(node, probabilities)
    return rank, name, probability


@st.composite
def taxonomies(draw):
    """Names of groups at up to three ranks, nested, some of them missing."""
    depth = draw(st.integers(1, 3))
    paths = draw(
        st.lists(st.lists(st.integers(0, 2), min_size=depth, max_size=depth), min_size=2, max_size=7)
    )
    missing = draw(st.sets(st.integers(1, depth)))
    # a group is named by its way from above, so it never lies in two
    return [
        tuple(
            "" if depth - i in missing and path[i] == 0 else "-".join(map(str, path[: i + 1]))
            for i in reversed(range(depth))
        )
        for path in paths
    ]


@given(taxonomies(), st.data())
def test_the_same_as_going_down_a_tree(rows, data):
    weights = data.draw(st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows)).filter(any))
    confidence = data.draw(st.sampled_from([33 / 64, 40 / 64, 48 / 64, 60 / 64]))
    # of 64 parts, so that sums are exact in any order
    parts = np.array(weights) * 64 // sum(weights)
    parts[int(parts.argmax())] += 64 - parts.sum()
    probabilities = (parts / 64).tolist()
    names = ["species", *(f"rank {index + 1}" for index in range(len(rows[0])))]
    taxonomy = taxonomy_of(names, rows, confidence)
    if taxonomy is None:
        return
    rank, name, probability = slow_answer(tree_of(rows), probabilities, confidence)
    found = taxonomy.answer(
        roll_up(taxonomy, np.array([probabilities])), 0, [str(i) for i in range(len(rows))]
    )
    if rank is not None and names[rank] not in taxonomy.ranks:  # one group has all
        assert probability == 1
        assert found.rank == "root"
        return
    expected = ("root", None, 1.0) if rank is None else (names[rank], str(name), probability)
    assert found == expected


@given(taxonomies(), st.integers(0, 99))
def test_a_coarser_answer_is_above_a_finer_one(rows, seed):
    names = ["species", *(f"rank {index + 1}" for index in range(len(rows[0])))]
    taxonomy = taxonomy_of(names, rows)
    if taxonomy is None:
        return
    probabilities = np.random.default_rng(seed).dirichlet(np.full(len(rows), 0.3), 11)
    answers_by = [
        roll_up(replace(taxonomy, confidence=level), probabilities) for level in (0.51, 0.7, 0.9, 0.99)
    ]
    for finer, coarser in pairwise(answers_by):
        assert (coarser.ranks >= finer.ranks).all()
        for index in range(len(probabilities)):
            members = [set(of(taxonomy, found, index)) for found in (finer, coarser)]
            assert members[0] <= members[1]


def of(taxonomy, found, index):
    """The labels of an answer."""
    rank = int(found.ranks[index])
    labels = range(taxonomy.labels.shape[1])
    return [c for c in labels if rank == taxonomy.root or taxonomy.labels[rank, c] == found.groups[index]]


# ---- as part of a calibration


def three_birds(**fields):
    return taxonomy_of(("species", "genus"), [("Larus",), ("Larus",), ("Passer",)], **fields)


def test_temperature_comes_before_ranks():
    """At temperature 1/2 256 : 64 : 1, see test_answers."""
    found = answers(make_calibration(taxonomy=three_birds()), FUSED, LOGITS)
    assert found.rolled_up.ranks.tolist() == [1, 0]
    assert found.rolled_up.probabilities == pytest.approx([320 / 321, 49 / 54])


def test_priors_come_between_temperature_and_ranks():
    weights = np.array([[0.0, 1, 1], [1, 1, 1]])
    found = answers(make_calibration(taxonomy=three_birds()), FUSED, LOGITS, weights=weights)
    assert found.probabilities[0] == pytest.approx([0, 64 / 65, 1 / 65])
    assert found.rolled_up.ranks.tolist() == [0, 0]
    assert found.rolled_up.groups.tolist() == [1, 2]
    assert found.without_priors[0] == pytest.approx(np.array([256, 64, 1]) / 321)


def test_the_unknown_and_sets_are_without_priors():
    calibration, weights = make_calibration(), np.array([[0.0, 0, 1], [1, 1, 0]])
    plain, changed = answers(calibration, FUSED, LOGITS), answers(calibration, FUSED, LOGITS, weights=weights)
    assert (plain.sets == changed.sets).all()
    assert (plain.unknown_scores == changed.unknown_scores).all()
    assert changed.set_of(0) == [0]  # although its weight is 0
    assert changed.probabilities.argmax(axis=1).tolist() == [2, 1]


def test_written_and_read():
    saved = make_calibration(taxonomy=three_birds(confidence=0.8, source="birds.csv"))
    assert calibration_from_json(saved.to_json()) == saved


def test_a_calibration_of_before_has_no_ranks():
    values = json.loads(make_calibration().to_json())
    del values["taxonomy"]
    assert calibration_from_json(json.dumps(values)).taxonomy is None


def test_a_damaged_one_is_refused():
    values = json.loads(make_calibration(taxonomy=three_birds()).to_json())
    values["taxonomy"]["members"] = []
    with pytest.raises(ConfigError):
        calibration_from_json(json.dumps(values))


def test_another_confidence(caplog):
    calibration = make_calibration(taxonomy=three_birds())
    assert with_rank_confidence(calibration, None) is calibration
    assert with_rank_confidence(calibration, 0.6).taxonomy.confidence == 0.6
    assert with_rank_confidence(make_calibration(), 0.6) == make_calibration()
    assert "--rank_confidence is ignored: the model has no ranks" in caplog.text


def test_more_members_than_one_rank():
    with pytest.raises(ConfigError, match="a taxonomy has 2 ranks, 0 lists of groups and 1 of members"):
        Taxonomy(("species", "genus"), (), ((0, 0),))
