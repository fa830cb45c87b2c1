"""Measures at ranks by hand, and what pages say of them."""

from pathlib import Path

import numpy as np
import pytest

from ramstrans.calibration.answers import Answers
from ramstrans.calibration.priors import Matched
from ramstrans.calibration.taxonomy import roll_up, taxonomy_of
from ramstrans.data.records import ImageSet
from ramstrans.evaluation.metrics import wilson_interval
from ramstrans.evaluation.ranks import (
    mean_interval,
    mistakes_report,
    priors_report,
    ranks_report,
    taxonomy_of_images,
)
from ramstrans.evaluation.report.blocks import markdown_of
from ramstrans.evaluation.report.ranks import rank_blocks, rank_lines
from tests.evaluation.builders import assert_says

ABOVE = [("Larus", "Laridae"), ("Larus", "Laridae"), ("Sterna", "Laridae"), ("Passer", "Passeridae")]
BIRDS = taxonomy_of(("species", "genus", "family"), ABOVE, source="birds.csv")
PROBABILITIES = np.array(
    [
        [0.95, 0.05, 0, 0],  # species, right
        [0.95, 0, 0, 0.05],  # species, wrong: it is class 1, of the same genus
        [0.6, 0.35, 0.05, 0],  # genus Larus, right: class 0
        [0.5, 0.45, 0.05, 0],  # genus Larus, wrong: class 2, of the same family
        [0.4, 0.2, 0.4, 0],  # family, right: class 2, which is not the best class
        [0.5, 0, 0, 0.5],  # no rank: class 3
        [0, 0.95, 0, 0.05],  # species, wrong: class 3, nothing in common
    ]
)
LABELS = np.array([0, 1, 0, 2, 2, 3, 3])


def given(probabilities=PROBABILITIES, before=None):
    rolled = roll_up(BIRDS, probabilities)
    return Answers(probabilities, probabilities if before is None else before, None, None, None, rolled)


def test_by_hand():
    report = ranks_report(BIRDS, given(), LABELS)
    species, genus, family = report["ranks"]
    assert [each["rank"] for each in report["ranks"]] == ["species", "genus", "family"]
    assert [each["num_groups"] for each in report["ranks"]] == [4, 3, 2]
    assert species["accuracy"] == pytest.approx(100 * 2 / 7)  # images 0 and 2; ties go to the first
    assert genus["accuracy"] == pytest.approx(100 * 3 / 7)  # 0, 1 and 2
    assert family["accuracy"] == pytest.approx(100 * 5 / 7)  # all but 5, a tie, and 6
    assert [each["answered"] for each in report["ranks"]] == pytest.approx([300 / 7, 200 / 7, 100 / 7])
    assert [each["right"] for each in report["ranks"]] == pytest.approx([100 / 3, 50, 100])
    assert species["accuracy_interval"] == wilson_interval(2, 7)
    assert genus["right_interval"] == wilson_interval(1, 2)
    assert report["unanswered"] == pytest.approx(100 / 7)
    assert report["right"] == pytest.approx(50)  # 3 of 6
    assert report["depth"] == pytest.approx((3 * 3 + 2 * 2 + 1) / 7)
    assert report["depth_interval"] == mean_interval(np.array([3, 3, 2, 2, 1, 0, 3]))
    assert report["max_depth"] == 3
    assert report["confidence"] == 90


def test_mistakes_by_hand():
    """Image 1: 0 for 1, 1 rank; 3 and 4: 0 for 2, 2; 5 and 6: 3, as nothing but the root has both."""
    mistakes = mistakes_report(BIRDS, PROBABILITIES, LABELS)
    assert mistakes["num_images"] == 5
    assert mistakes["distance"] == pytest.approx((1 + 2 + 2 + 3 + 3) / 5)
    assert mistakes["distance_interval"] == mean_interval(np.array([1, 2, 2, 3, 3]))
    # by chance: from 1 to 0, 2, 3: 1, 2, 3; from 2: 2, 2, 3; from 3: 3, 3, 3
    assert mistakes["by_chance"] == pytest.approx((2 + 7 / 3 + 7 / 3 + 3 + 3) / 5)
    shares = {each["rank"]: each["share"] for each in mistakes["ranks"]}
    assert shares == pytest.approx({"genus": 20, "family": 40, "root": 40})


def test_no_mistakes_and_no_answers():
    report = ranks_report(BIRDS, given(np.eye(4)), np.arange(4))
    assert report["mistakes"]["num_images"] == 0
    assert report["ranks"][1]["right"] is None
    assert (report["right"], report["unanswered"], report["depth"]) == (100, 0, 3)
    unsure = np.array([[0.25, 0.25, 0, 0.5]] * 2)
    lost = ranks_report(BIRDS, given(unsure), LABELS[:2])
    assert (lost["unanswered"], lost["right"]) == (100, None)
    for one in (report, lost):
        assert markdown_of(rank_blocks({"ranks": one}), Path())


def test_classes_without_a_rank_do_not_count_there():
    taxonomy = taxonomy_of(("species", "genus"), [("Larus",), ("Larus",), ("",), ("Passer",)])
    rolled = roll_up(taxonomy, PROBABILITIES)
    answers = Answers(PROBABILITIES, PROBABILITIES, None, None, None, rolled)
    genus = ranks_report(taxonomy, answers, LABELS)["ranks"][1]
    assert genus["num_images"] == 5
    assert genus["accuracy"] == pytest.approx(60)  # 0, 1 and 2 of 0, 1, 2, 5, 6


def test_priors_by_hand():
    after = PROBABILITIES[:, [3, 1, 2, 0]]
    report = priors_report(given(after, PROBABILITIES), [Matched(np.ones(4), "x")] * 3, LABELS, "list.txt")
    before, now = PROBABILITIES.argmax(axis=1), after.argmax(axis=1)
    assert before.tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert now.tolist() == [3, 3, 3, 3, 2, 0, 1]
    assert (report["matched"], report["changed"], report["corrected"], report["spoiled"]) == (3, 5, 1, 2)
    assert report["points"] == pytest.approx(-100 / 7)
    assert (report["before"], report["after"]) == pytest.approx((200 / 7, 100 / 7))


def test_pages_say_what_was_measured():
    report = {"ranks": ranks_report(BIRDS, given(), LABELS)}
    report["priors"] = priors_report(given(), [Matched(None, None)] * 7, LABELS, "list.txt")
    text = markdown_of(rank_blocks(report, level=2), Path())
    assert_says(
        text,
        "## Answers at the rank that is certain",
        "| genus | 3 | 42.9 % (15.8 to 75.0 %) | 28.6 % (8.2 to 64.1 %) | 50.0 % (9.5 to 90.5 %) |",
        "2.00 ranks deep on average",
        "it is 2.20 ranks on average",
        "to a class drawn at random, it would be 2.53",
        "| of the same genus | 20.0 % |",
        "| nothing in common | 40.0 % |",
        "a condition holds for 0 of 7 images; 0 answers changed",
    )
    first, second = rank_lines(report)
    assert first == (
        "Answers with 90 %: species 42.9 % of images, 33.3 % right; genus 28.6 % of images, 50.0 % right; "
        "family 14.3 % of images, 100.0 % right; none 14.3 %; mean depth 2.00 of 3"
    )
    assert second.startswith("Priors: a condition holds for 0 of 7 images")
    assert rank_blocks({}) == rank_lines({}) == []


def test_an_interval_of_one_value_is_none():
    assert mean_interval(np.array([3])) is None


def test_ranks_of_a_data_set_for_the_classes_of_a_model():
    images = ImageSet(("a", "b", "c"), (), (("X",), ("Y",), ("Y",)), ("species", "genus"))
    assert taxonomy_of_images(images, ("c", "a"), "cub").groups == (("Y", "X"),)
    assert taxonomy_of_images(images._replace(hierarchy=()), ("c", "a"), "cub") is None
    assert taxonomy_of_images(images, ("b", "c"), "cub") is None  # of one genus
