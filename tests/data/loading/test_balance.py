import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.loading.balance import balanced_indices

LABELS = st.lists(st.integers(-3, 11), max_size=61).map(lambda labels: np.array(labels, dtype=np.int64))
SEEDS = st.integers(0, 2**32 - 1)
POWERS = st.floats(0, 1)

LONG_TAIL = np.repeat([5, 0, 3], [64, 16, 4])  # square roots 8, 4, 2


def counted(labels, power, seed=0):
    """How often each class is drawn, in ascending order of classes."""
    order = balanced_indices(labels, np.random.default_rng(seed), power)
    return np.array([(labels[order] == label).sum() for label in np.unique(labels)])


@given(LABELS, SEEDS)
def test_at_power_0_it_is_a_shuffle_of_all_images(labels, seed):
    order = balanced_indices(labels, np.random.default_rng(seed), 0.0)
    assert sorted(order.tolist()) == list(range(len(labels)))


@given(LABELS, SEEDS, POWERS)
def test_classes_come_as_often_as_expected_and_their_images_alike(labels, seed, power):
    order = balanced_indices(labels, np.random.default_rng(seed), power)
    assert len(order) == len(labels)
    assert order.dtype == np.int64
    classes, sizes = np.unique(labels, return_counts=True)
    weights = sizes ** (1 - power)
    for label, weight in zip(classes, weights, strict=True):
        expected = len(labels) * weight / weights.sum()
        taken = np.array([(order == place).sum() for place in np.flatnonzero(labels == label)])
        assert abs(taken.sum() - expected) < 1 + 1e-4
        assert taken.max() - taken.min() <= 1  # without repetition until all have been taken


def test_counts_of_a_long_tail_are_as_worked_by_hand():
    """84 images; classes 0, 3 and 5 have 16, 4 and 64 of them."""
    assert counted(LONG_TAIL, 0.0).tolist() == [16, 4, 64]
    assert counted(LONG_TAIL, 0.5).tolist() == [24, 12, 48]  # 84 / 14 = 6 times the square roots
    assert counted(LONG_TAIL, 1.0).tolist() == [28, 28, 28]


def test_counts_that_are_not_whole_are_right_on_average():
    labels = np.repeat([0, 1, 2], [5, 3, 2])  # 10 / 3 each
    counts = np.array([counted(labels, 1.0, seed) for seed in range(997)])
    assert set(counts.ravel().tolist()) == {3, 4}
    assert counts.mean(axis=0) == pytest.approx([10 / 3] * 3, abs=0.06)


def test_the_images_left_out_are_others_each_time():
    seen = [set(balanced_indices(LONG_TAIL, np.random.default_rng(seed), 1.0).tolist()) for seed in range(13)]
    assert set.union(*seen) == set(range(84))
    assert len(set.intersection(*seen)) < 84 - 36


def test_classes_are_spread_over_the_epoch():
    order = balanced_indices(np.repeat([0, 1], [900, 100]), np.random.default_rng(0), 1.0)
    assert (order[:500] >= 900).mean() == pytest.approx(0.5, abs=0.08)


def test_an_order_is_a_pure_function_of_its_generator():
    first, again, other = (
        balanced_indices(LONG_TAIL, np.random.default_rng(seed), 0.5) for seed in (5, 5, 7)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_many_classes_sum_up_to_the_number_of_images():
    labels = np.random.default_rng(0).zipf(1.3, 99_991) % 4999
    for power in (0.1, 0.7, 1.0):
        assert len(balanced_indices(labels, np.random.default_rng(1), power)) == 99_991


@pytest.mark.parametrize("power", [-0.1, 1.1])
def test_a_power_that_is_none_is_our_own_mistake(power):
    with pytest.raises(AssertionError, match="power"):
        balanced_indices(LONG_TAIL, np.random.default_rng(0), power)
