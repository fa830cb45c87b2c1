import numpy as np
import pytest

from ramstrans.evaluation.report.choices import choose_mistakes, choose_of_classes, choose_regions
from tests.evaluation.builders import make_predictions


def test_mistakes_are_the_most_confident_first_and_no_image_is_shown_twice():
    predictions = make_predictions(num_images=97, num_classes=5)
    fused = predictions.fused
    wrong = fused.argmax(axis=1) != predictions.labels
    groups = choose_mistakes(predictions, fused)
    assert [group.title.split(":")[0] for group in groups] == [
        *("The most confident mistakes", "The worst mistakes"),
        *("Spoiled by looking again", "Corrected by looking again"),
    ]
    confident, worst, spoiled, corrected = groups
    assert fused[confident.indices].max(axis=1).tolist() == sorted(fused[wrong].max(axis=1))[: -16 - 1 : -1]
    assert confident.total == worst.total == wrong.sum()
    first = predictions.probabilities[0].argmax(axis=1) == predictions.labels
    assert (wrong & first)[spoiled.indices].all()
    assert spoiled.total == (wrong & first).sum()
    assert (~wrong & ~first)[corrected.indices].all()
    shown = [index for group in groups for index in group.indices]
    assert len(shown) == len(set(shown))


def test_the_worst_mistakes_have_the_true_class_last():
    probabilities = np.tile(np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32), (30, 1))
    labels = np.array([1] * 27 + [3, 2, 3])
    predictions = make_predictions(num_images=30, num_classes=4)._replace(
        probabilities=probabilities[None], labels=labels
    )
    confident, worst = choose_mistakes(predictions, probabilities)
    assert confident.indices == list(range(16))  # all equally confident
    assert worst.indices == [27, 29, 28, 16, 17, 18]


def test_perfect_answers_have_no_mistakes():
    predictions = make_predictions(num_scales=1, num_images=3, num_classes=3)
    eye = np.eye(3, dtype=np.float32)
    assert choose_mistakes(predictions._replace(probabilities=eye[None], labels=np.arange(3)), eye) == []


def test_a_class_shows_its_surest_its_least_sure_and_a_middle_image():
    labels, truth = np.array([2] * 6 + [0, 0, 4]), np.array([0.1, 0.6, 0.3, 0.5, 0.2, 0.4, 0.7, 0.8, 0.9])
    assert choose_of_classes(labels, truth) == {0: [7, 6], 2: [1, 0, 2], 4: [8]}


def test_regions_are_ordered_by_their_overlap_with_the_true_box():
    predictions = make_predictions(num_images=40)
    predictions.boxes[0] = [[3, 5, 3 + 14 * share, 19] for share in np.linspace(0, 1, 40)]
    groups, values = choose_regions(predictions)
    assert [group.title for group in groups] == ["Best overlap", "Median overlap", "Worst overlap"]
    assert [group.indices for group in groups] == [[39, 38, 37, 36], [21, 20, 19, 18], [0, 1, 2, 3]]
    assert (values[39], values[0]) == (100, 0)


def test_overlap_and_size_are_those_of_the_part_in_the_image():
    """Images of 31 x 23: of the true box (3, 5, 17, 19) and a region around it nothing outside counts."""
    predictions = make_predictions(num_images=2)
    outside = predictions.records[0]._replace(box=(-20.0, -20.0, 20.0, 20.0))
    predictions = predictions._replace(records=(outside, outside._replace(box=None)))
    predictions.boxes[0] = [[0, 0, 20, 20], [0, 0, 20, 20]]
    assert choose_regions(predictions)[1] == pytest.approx([100, np.nan], nan_ok=True)
    predictions = make_predictions(num_images=1, annotated=False)
    predictions.boxes[0] = [[-31, 0, 31, 46]]
    assert choose_regions(predictions)[1] == [100]


def test_without_true_boxes_regions_are_ordered_by_size_and_few_are_one_group():
    predictions = make_predictions(num_images=5, annotated=False)
    predictions.boxes[0] = [[0, 0, side, 23] for side in (31, 3, 7, 11, 5)]
    (group,), values = choose_regions(predictions)
    assert group.title == "Largest first"
    assert group.indices == [0, 3, 2, 4, 1]
    assert values[0] == 100
