import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.errors import DataError, WeightsError
from ramstrans.evaluation.metrics import (
    ConfusedPair,
    classification_metrics,
    confused_pairs,
    cross_entropy,
    expected_calibration_error,
    paired_interval,
    per_class_accuracy,
    true_ranks,
    wilson_interval,
)


def random_probabilities(seed, num_images, num_classes):
    """Rounded to a tenth, so that many are equal."""
    rng = np.random.default_rng(seed)
    probabilities = rng.random((num_images, num_classes)).round(1).astype(np.float32)
    return probabilities, rng.integers(0, num_classes, num_images)


cases = st.builds(random_probabilities, st.integers(0, 2**31), st.integers(1, 23), st.integers(2, 11))


def slow_ranks(probabilities, labels):
    orders = [
        sorted(range(len(row)), key=lambda label: (-row[label], label)) for row in probabilities.tolist()
    ]
    return [order.index(label) for order, label in zip(orders, labels.tolist(), strict=True)]


@given(cases)
def test_metrics_agree_with_a_slow_count(case):
    probabilities, labels = case
    ranks = slow_ranks(probabilities, labels)
    by_class = {
        label: [rank == 0 for rank, other in zip(ranks, labels, strict=True) if other == label]
        for label in set(labels.tolist())
    }
    metrics = classification_metrics(probabilities, labels)
    assert true_ranks(probabilities, labels).tolist() == ranks
    assert metrics.top1 == pytest.approx(100 * sum(rank < 1 for rank in ranks) / len(ranks))
    assert metrics.top5 == pytest.approx(100 * sum(rank < 5 for rank in ranks) / len(ranks))
    means = [100 * sum(right) / len(right) for right in by_class.values()]
    assert metrics.mean_class_accuracy == pytest.approx(sum(means) / len(means))


def test_sixth_answer_is_not_among_the_first_five():
    probabilities = np.array([[0.3, 0.2, 0.17, 0.13, 0.11, 0.09]] * 2)
    assert classification_metrics(probabilities, np.array([5, 4])).top5 == 50


def test_class_without_images_is_left_out_though_it_is_predicted():
    probabilities = np.eye(3)[[0, 2, 1]]
    labels = np.array([0, 0, 1])
    np.testing.assert_equal(per_class_accuracy(probabilities, labels), [50, 100, np.nan])
    assert classification_metrics(probabilities, labels).mean_class_accuracy == 75


def test_one_image_has_a_wide_interval():
    metrics = classification_metrics(np.array([[0.2, 0.8]]), np.array([1]))
    assert metrics.top1 == 100
    assert metrics.top1_interval == (pytest.approx(20.654, abs=1e-3), 100)


@given(st.integers(1, 997), st.data())
def test_interval_ends_solve_the_score_equation(num_images, data):
    num_right = data.draw(st.integers(0, num_images))
    share = num_right / num_images
    for end in wilson_interval(num_right, num_images):
        p = end / 100
        assert (share - p) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / num_images, abs=1e-12)


def test_confused_pairs_by_hand():
    predicted, true = [0, 1, 1, 2, 2, 0, 1], [1, 0, 0, 1, 1, 2, 1]
    pairs = confused_pairs(np.eye(3)[predicted], np.array(true), 10)
    assert pairs == [
        ConfusedPair(0, 1, 2),
        ConfusedPair(1, 2, 2),
        ConfusedPair(1, 0, 1),
        ConfusedPair(2, 0, 1),
    ]
    assert confused_pairs(np.eye(3)[predicted], np.array(true), 1) == pairs[:1]


@given(cases)
def test_confused_pairs_count_every_mistake_once(case):
    probabilities, labels = case
    pairs = confused_pairs(probabilities, labels, len(labels))
    assert sum(pair.num_images for pair in pairs) == (true_ranks(probabilities, labels) > 0).sum()
    assert all(pair.true != pair.predicted for pair in pairs)
    assert [pair.num_images for pair in pairs] == sorted((pair.num_images for pair in pairs), reverse=True)


def test_calibration_error_by_hand():
    """Confidences 0.3 and 0.25 share the bin (0.2, 0.4], 0.6 is in (0.4, 0.6], 1 in (0.8, 1]."""
    confidence = np.array([0.3, 0.25, 0.6, 1.0])
    probabilities = np.stack([confidence, *[(1 - confidence) / 4] * 4], axis=1)
    error = expected_calibration_error(probabilities, np.array([0, 1, 0, 0]), num_bins=5)
    # |1 - 0.55| of two images that are one right answer, |1 - 0.6| of one, |1 - 1| of one
    assert error == pytest.approx(100 * (0.45 + 0.4 + 0) / 4)


def test_calibration_error_agrees_with_a_slow_sum():
    rng = np.random.default_rng(3)
    probabilities, labels = rng.dirichlet(np.full(7, 0.5), 211).astype(np.float32), rng.integers(0, 7, 211)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * 15)
    slow = sum(
        abs(right[bins == index].mean() - confidence[bins == index].mean()) * (bins == index).mean()
        for index in set(bins)
    )
    assert expected_calibration_error(probabilities, labels) == pytest.approx(100 * slow, abs=1e-3)


def test_calibration_error_takes_a_probability_just_above_one_as_it_is():
    probabilities = np.array([[1.0000001, 0.0], [0.0, 1.0000001]], dtype=np.float32)
    assert expected_calibration_error(probabilities, np.array([0, 1])) == 0


def test_cross_entropy_of_a_class_without_probability_is_finite():
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5]], dtype=np.float32)
    tiny = -np.log(2.0**-126)  # float32's smallest normal number
    assert cross_entropy(probabilities, np.array([1, 0])) == pytest.approx((tiny + np.log(2)) / 2)
    assert cross_entropy(probabilities[:1], np.array([0])) == 0


def test_no_images_is_an_error():
    with pytest.raises(DataError, match="no images"):
        classification_metrics(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_an_error(value):
    probabilities = np.full((3, 2), 0.5)
    probabilities[1] = value
    with pytest.raises(WeightsError, match="1 of 3 images"):
        classification_metrics(probabilities, np.zeros(3, dtype=np.int64))


def test_the_interval_of_a_difference_stays_within_what_is_possible():
    # p 2/3, q 1/3: 1/3 +- 1.96 sqrt((1 - 1/9) / 3) = 1/3 +- 1.067
    assert paired_interval(1, 0, 1) == (pytest.approx(-73.35, abs=0.01), 100)
    assert paired_interval(0, 1, 1) == (-100, pytest.approx(73.35, abs=0.01))
