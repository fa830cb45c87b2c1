"""Each image once per epoch, in batches that do not depend on the number of processes."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.loading.sampling import (
    EpochBatches,
    balanced_order,
    by_shard,
    order_of,
    windowed_order,
)
from ramstrans.data.records import Record
from ramstrans.errors import UsageError


def batches_of(length, batch_size, epoch=0, first_batch=0, **options):
    """The indices in each batch of a pass; all keys are of the epoch."""
    batches = EpochBatches(length, batch_size, **options)
    batches.epoch, batches.first_batch = epoch, first_batch
    passed = list(batches)
    assert {key[0] for batch in passed for key in batch} <= {epoch}
    return [[index for _, index in batch] for batch in passed]


@given(
    length=st.integers(1, 61), size=st.integers(1, 17), seed=st.integers(0, 2**32), epoch=st.integers(0, 9)
)
def test_an_epoch_is_a_permutation_and_always_the_same_one(length, size, seed, epoch):
    batches = batches_of(length, size, epoch, shuffle=True, seed=seed)
    assert batches == batches_of(length, size, epoch, shuffle=True, seed=seed)
    assert sorted(index for batch in batches for index in batch) == list(range(length))
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert len(batches) == len(EpochBatches(length, size, shuffle=True)) == -(-length // size)


def test_epochs_and_seeds_are_shuffled_differently():
    passes = ((0, 0), (0, 1), (1, 0), (1, 1))
    orders = {tuple(batches_of(31, 31, epoch, shuffle=True, seed=seed)[0]) for seed, epoch in passes}
    assert len(orders) == 4


def test_unshuffled_is_in_order():
    assert batches_of(5, 2, shuffle=False, seed=5) == [[0, 1], [2, 3], [4]]


@given(length=st.integers(1, 61), size=st.integers(1, 17), first=st.integers(0, 61))
def test_a_pass_may_begin_at_a_later_batch(length, size, first):
    whole = batches_of(length, size, 3, shuffle=True)
    assert batches_of(length, size, 3, first, shuffle=True) == whole[first:]


@given(length=st.integers(1, 61), size=st.integers(1, 17), processes=st.integers(1, 5))
def test_processes_share_each_training_batch(length, size, processes):
    whole = batches_of(length, size, 2, shuffle=True)
    samplers = [
        EpochBatches(length, size, shuffle=True, process=process, num_processes=processes)
        for process in range(processes)
    ]
    for sampler in samplers:
        sampler.epoch = 2
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(whole)}  # or some would wait for others for ever
    for number, batch in enumerate(whole):
        counted = []
        for sampler, share in zip(samplers, shares, strict=True):
            own, of = sampler.weight(number)
            assert of == len(batch)
            assert len(share[number]) == max(own, 1)
            counted += share[number][:own]
        assert sorted(counted) == sorted((2, index) for index in batch)


@given(length=st.integers(1, 61), size=st.integers(1, 17), processes=st.integers(1, 5))
def test_evaluation_batches_are_distributed_whole_and_once(length, size, processes):
    whole, dealt = batches_of(length, size, shuffle=False), []
    for process in range(processes):
        share = batches_of(length, size, shuffle=False, process=process, num_processes=processes)
        assert len(share) == len(
            EpochBatches(length, size, shuffle=False, process=process, num_processes=processes)
        )
        dealt += share
    assert sorted(dealt) == whole


LABELS = st.lists(st.integers(-3, 11), max_size=61).map(lambda labels: np.array(labels, dtype=np.int64))
SEEDS = st.integers(0, 2**32 - 1)
POWERS = st.floats(0, 1)

LONG_TAIL = np.repeat([5, 0, 3], [64, 16, 4])  # square roots 8, 4, 2


def counted(labels, power, seed=0):
    """How often each class is drawn, in ascending order of classes."""
    order = balanced_order(labels, np.random.default_rng(seed), power)
    return np.array([(labels[order] == label).sum() for label in np.unique(labels)])


@given(LABELS, SEEDS)
def test_at_power_0_it_is_a_shuffle_of_all_images(labels, seed):
    order = balanced_order(labels, np.random.default_rng(seed), 0.0)
    assert sorted(order.tolist()) == list(range(len(labels)))


@given(LABELS, SEEDS, POWERS)
def test_classes_come_as_often_as_expected_and_their_images_equally_often(labels, seed, power):
    order = balanced_order(labels, np.random.default_rng(seed), power)
    assert len(order) == len(labels)
    assert order.dtype == np.int64
    classes, sizes = np.unique(labels, return_counts=True)
    weights = sizes ** (1 - power)
    for label, weight in zip(classes, weights, strict=True):
        expected = len(labels) * weight / weights.sum()
        taken = np.array([(order == index).sum() for index in np.flatnonzero(labels == label)])
        assert abs(taken.sum() - expected) < 1 + 1e-4
        assert taken.max() - taken.min() <= 1  # without repetition until all have been taken


def test_counts_of_a_long_tail_worked_by_hand():
    """84 images; classes 0, 3 and 5 have 16, 4 and 64 of them."""
    assert counted(LONG_TAIL, 0.0).tolist() == [16, 4, 64]
    assert counted(LONG_TAIL, 0.5).tolist() == [24, 12, 48]  # 84 / 14 = 6 times the square roots
    assert counted(LONG_TAIL, 1.0).tolist() == [28, 28, 28]


def test_counts_that_are_not_whole_are_right_on_average():
    labels = np.repeat([0, 1, 2], [5, 3, 2])  # 10 / 3 each
    counts = np.array([counted(labels, 1.0, seed) for seed in range(997)])
    assert set(counts.ravel().tolist()) == {3, 4}
    assert counts.mean(axis=0) == pytest.approx([10 / 3] * 3, abs=0.06)


def test_other_images_are_left_out_each_time():
    seen = [set(balanced_order(LONG_TAIL, np.random.default_rng(seed), 1.0).tolist()) for seed in range(13)]
    assert set.union(*seen) == set(range(84))
    assert len(set.intersection(*seen)) < 84 - 36


def test_classes_are_spread_over_the_epoch():
    order = balanced_order(np.repeat([0, 1], [900, 100]), np.random.default_rng(0), 1.0)
    assert (order[:500] >= 900).mean() == pytest.approx(0.5, abs=0.08)


def test_an_order_is_a_pure_function_of_its_generator():
    first, again, other = (balanced_order(LONG_TAIL, np.random.default_rng(seed), 0.5) for seed in (5, 5, 7))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


SIZES = st.lists(st.integers(0, 13), max_size=23)
WINDOW = st.integers(1, 30)
SEED = st.integers(0, 2**32)


def windowed(sizes, window, seed=0):
    return windowed_order(sizes, np.random.default_rng(seed), window)


def shards_of(order, sizes):
    """The shard of each image of an order."""
    return np.repeat(np.arange(len(sizes)), sizes)[order]


@given(SIZES, WINDOW, SEED)
def test_each_image_comes_once_and_always_in_the_same_order(sizes, window, seed):
    order = windowed(sizes, window, seed)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    assert np.array_equal(order, windowed(sizes, window, seed))


@given(SIZES, WINDOW, SEED)
def test_no_more_shards_than_the_window_are_read_at_a_time(sizes, window, seed):
    shards = shards_of(windowed(sizes, window, seed), sizes)
    indices = (np.nonzero(shards == shard)[0] for shard in set(shards.tolist()))
    spans = [(of_shard[0], of_shard[-1]) for of_shard in indices]
    for index in range(len(shards)):
        assert sum(first <= index <= last for first, last in spans) <= window


def test_the_window_is_used_from_the_start_to_the_end():
    sizes, window = [499] * 13, 5
    shards = shards_of(windowed(sizes, window), sizes)
    parts = np.array_split(shards, 13)
    for part in (parts[0], parts[6], parts[-1]):
        assert len(set(part.tolist())) >= window
    # in the middle, each of the shards that are read has its share
    counts = np.bincount(parts[6])
    assert counts.max() < 2.5 * len(parts[6]) / window


def test_a_window_of_one_reads_shard_after_shard_each_shuffled():
    sizes = [7, 11, 13]
    order = windowed(sizes, 1, seed=3)
    shards = shards_of(order, sizes)
    assert np.count_nonzero(np.diff(shards)) == 2
    assert not np.array_equal(order, np.sort(order))
    for shard in range(3):
        within = order[shards == shard]
        assert not np.array_equal(within, np.sort(within))


@pytest.mark.parametrize("window", [3, 4, 1000])
def test_a_window_of_all_shards_is_a_fair_shuffle(window):
    sizes = [2, 1, 2]
    generator = np.random.default_rng(0)
    counts = np.zeros((5, 5))
    for _ in range(4000):
        counts[np.arange(5), windowed_order(sizes, generator, window)] += 1
    assert np.abs(counts / 4000 - 1 / 5).max() < 0.03  # over 4 standard deviations


def test_every_shard_may_be_the_first():
    firsts = {int(shards_of(windowed([3] * 5, 1, seed), [3] * 5)[0]) for seed in range(60)}
    assert firsts == set(range(5))


@given(st.lists(st.sampled_from(["a.tar/1.jpg", "b.tar/x/1.jpg", "b.tar/y/2.jpg", "c/1.jpg", "d/2.jpg"])))
def test_records_by_shard(paths):
    records = [Record(Path("set", path), 0, "train") for path in paths]
    indices, sizes = by_shard(records)
    tars = [path[:5] if path[1] == "." else "none" for path in paths]
    expected = [[index for index, tar in enumerate(tars) if tar == name] for name in dict.fromkeys(tars)]
    assert indices.tolist() == list(chain.from_iterable(expected))
    assert sizes == tuple(map(len, expected))


def test_one_way_to_draw_an_order_at_a_time():
    records = [Record(Path(f"{i % 2}.tar/{i}.jpg"), i % 2, "train") for i in range(7)]
    for options in ({}, {"balance": 0.5}, {"window": 1}):
        assert len(order_of(records, **options)(np.random.default_rng(0))) == 7
    with pytest.raises(UsageError, match="cannot be combined"):
        order_of(records, balance=0.5, window=1)
