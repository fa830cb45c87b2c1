import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from ramstrans.errors import DataError, WeightsError
from ramstrans.evaluation.multi_label import (
    average_precisions,
    best_thresholds,
    binary_cross_entropy,
    by_label,
    decision_metrics,
    label_metrics,
    map_metrics,
    mean_average_precision,
    resamples,
    sort_by_label,
)


def made_up(num_images=53, num_labels=7, digits=2, seed=0):
    """Probabilities, many of them equal, that tell something about the labels; the last is on no image."""
    generator = np.random.default_rng(seed)
    truth = generator.random((num_images, num_labels)) < 0.3
    truth[:, -1] = False
    probabilities = (generator.random(truth.shape) + 0.4 * truth).clip(0, 1).round(digits)
    return probabilities.astype(np.float32), truth


@pytest.mark.parametrize("digits", [1, 2, 7])
def test_average_precision_is_that_of_scikit_learn(digits):
    probabilities, truth = made_up(digits=digits)
    found = average_precisions(sort_by_label(probabilities, truth))
    assert np.isnan(found[-1])
    expected = [100 * average_precision_score(truth[:, label], probabilities[:, label]) for label in range(6)]
    assert found[:-1] == pytest.approx(expected)
    assert mean_average_precision(probabilities, truth) == pytest.approx(np.mean(expected))


def test_a_weight_is_a_repeated_image():
    probabilities, truth = made_up()
    weights = np.random.default_rng(1).integers(0, 3, len(truth))
    weighted = average_precisions(sort_by_label(probabilities, truth), weights)
    repeated = sort_by_label(np.repeat(probabilities, weights, axis=0), np.repeat(truth, weights, axis=0))
    assert weighted[:-1] == pytest.approx(average_precisions(repeated)[:-1])
    predicted = probabilities >= 0.5
    one = decision_metrics(predicted, truth, weights[None])
    again = np.repeat(predicted, weights, axis=0), np.repeat(truth, weights, axis=0)
    other = decision_metrics(*again, np.ones((1, weights.sum())))
    assert {name: value[0] for name, value in one.items()} == pytest.approx(
        {name: value[0] for name, value in other.items()}
    )


def test_decisions_are_those_of_scikit_learn():
    probabilities, truth = made_up()
    predicted = probabilities >= 0.6
    found = decision_metrics(predicted, truth, np.ones((1, len(truth))))
    for kind in ("micro", "macro"):
        labels = range(6)  # the last is on no image
        average = {"average": kind, "zero_division": 0, "labels": labels if kind == "macro" else None}
        scores = precision_recall_fscore_support(truth, predicted, **average)
        for name, value in zip(("precision", "recall", "f1"), scores, strict=False):
            assert found[f"{name}_{kind}"][0] == pytest.approx(100 * value), (name, kind)


def test_decisions_by_hand():
    truth = np.array([[True, True, False], [False, False, False], [True, False, False]])
    predicted = np.array([[True, False, False], [False, False, False], [True, False, True]])
    found = decision_metrics(predicted, truth, np.ones((1, 3)))
    assert {name: round(float(value[0]), 1) for name, value in found.items()} == {
        **{"precision_micro": 66.7, "recall_micro": 66.7, "f1_micro": 66.7},
        **{"precision_macro": 50.0, "recall_macro": 50.0, "f1_macro": 50.0},
        "exact_match": 33.3,
    }


def test_thresholds_have_the_highest_f1():
    probabilities, truth = made_up(digits=7)
    thresholds = best_thresholds(probabilities, truth)
    for label in range(6):
        predictions = [probabilities[:, label] >= t for t in (thresholds[label], *probabilities[:, label])]
        chosen, *others = (
            precision_recall_fscore_support(truth[:, label], predicted, average="binary", zero_division=0)[2]
            for predicted in predictions
        )
        assert chosen == pytest.approx(max(others))
    assert thresholds[-1] == 0.5


def test_of_equally_good_thresholds_that_nearest_to_a_half():
    truth = np.array([[True], [False], [True], [False]])
    # F1 is 2 / 3 above 0.85 alone, 2 / 3 again above 0.1, and 4 / 5 nowhere but between 0.6 and 0.3
    assert best_thresholds(np.array([[0.9], [0.7], [0.6], [0.3]]), truth) == pytest.approx(0.45)
    assert best_thresholds(np.array([[0.9], [0.8]]), np.array([[True], [True]])) == pytest.approx(0.4)
    assert best_thresholds(np.array([[0.4], [0.4]]), np.array([[True], [False]])) == pytest.approx(0.2)


def test_intervals_hold_the_metric_and_shrink_with_more_images():
    widths = []
    for count in (50, 5000):
        probabilities, truth = made_up(count, 3)
        found = label_metrics(probabilities, truth, np.full(3, 0.6), resamples(count, 3)[:200])
        for name in ("map", "f1_micro", "f1_macro", "exact_match", "recall_macro"):
            low, high = found[f"{name}_interval"]
            assert low < found[name] < high, name
        low, high = found["map_interval"]
        widths.append(high - low)
    assert widths[1] < 0.2 * widths[0]


def test_the_bootstrap_covers_as_often_as_it_says():
    """Of many samples the interval of exact match holds the true 70 % in about 95 of 100."""
    generator, inside = np.random.default_rng(0), 0
    draws = resamples(200, 1)
    for _ in range(100):
        right = generator.random((200, 1)) < 0.7
        drawn = decision_metrics(right, np.ones_like(right), draws)["exact_match"]
        low, high = np.percentile(drawn, (2.5, 97.5))
        inside += low <= 70 <= high
    assert 88 <= inside <= 100


def test_resamples_are_fewer_for_large_sets():
    assert resamples(50, 7).shape == (1000, 50)
    assert resamples(50, 7).sum(axis=1).tolist() == [50] * 1000
    assert len(resamples(20_000, 1000)) == 100


def test_by_label():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.1], [0.7, 0.1]])
    truth = np.array([[True, False], [False, False], [True, False]])
    first, second = by_label(probabilities, truth, np.array([0.8, 0.5]))
    assert first == pytest.approx(
        {
            "num_images": 2,
            "average_precision": 100,
            "precision": 100,
            "recall": 50,
            "f1": 200 / 3,
            "threshold": 0.8,
        }
    )
    assert second["num_images"] == 0
    assert all(np.isnan(second[name]) for name in ("average_precision", "precision", "recall", "f1"))


def test_loss():
    assert binary_cross_entropy(np.array([[1.0, 0.0]], np.float32), np.array([[True, False]])) == 0
    wrong = binary_cross_entropy(np.array([[0.0, 0.0]], np.float32), np.array([[True, False]]))
    assert wrong == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_without_labels_there_is_no_map():
    truth = np.zeros((3, 2), dtype=bool)
    assert np.isnan(mean_average_precision(np.full((3, 2), 0.5), truth))
    assert np.isnan(map_metrics(np.full((3, 2), 0.5), truth, resamples(3, 2))["map"])


def test_broken_predictions():
    with pytest.raises(WeightsError, match="NaN or infinite for 1 of 2 images"):
        sort_by_label(np.array([[np.nan], [0.5]]), np.array([[True], [False]]))
    with pytest.raises(DataError, match="no images"):
        sort_by_label(np.zeros((0, 2)), np.zeros((0, 2), dtype=bool))
