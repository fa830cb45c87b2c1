"""Each image once, and never more shards at a time than the window holds."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.loading.order import by_shard, windowed_order
from ramstrans.data.records import Record
from ramstrans.errors import UsageError

SIZES = st.lists(st.integers(0, 13), max_size=23)
WINDOW = st.integers(1, 30)
SEED = st.integers(0, 2**32)


def order_of(sizes, window, seed=0):
    return windowed_order(sizes, np.random.default_rng(seed), window)


def shards_of(order, sizes):
    """The shard of each image of an order."""
    return np.repeat(np.arange(len(sizes)), sizes)[order]


@given(SIZES, WINDOW, SEED)
def test_each_image_comes_once_and_always_alike(sizes, window, seed):
    order = order_of(sizes, window, seed)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    assert np.array_equal(order, order_of(sizes, window, seed))


@given(SIZES, WINDOW, SEED)
def test_no_more_shards_than_the_window_are_read_at_a_time(sizes, window, seed):
    shards = shards_of(order_of(sizes, window, seed), sizes)
    places = (np.nonzero(shards == shard)[0] for shard in set(shards.tolist()))
    spans = [(of_shard[0], of_shard[-1]) for of_shard in places]
    for place in range(len(shards)):
        assert sum(first <= place <= last for first, last in spans) <= window


def test_the_window_is_used_from_the_start_to_the_end():
    sizes, window = [499] * 13, 5
    shards = shards_of(order_of(sizes, window), sizes)
    parts = np.array_split(shards, 13)
    for part in (parts[0], parts[6], parts[-1]):
        assert len(set(part.tolist())) >= window
    # in the middle, each of the shards that are read has its share
    counts = np.bincount(parts[6])
    assert counts.max() < 2.5 * len(parts[6]) / window


def test_a_window_of_one_reads_shard_after_shard_each_shuffled():
    sizes = [7, 11, 13]
    order = order_of(sizes, 1, seed=3)
    shards = shards_of(order, sizes)
    assert np.count_nonzero(np.diff(shards)) == 2
    assert not np.array_equal(order, np.sort(order))
    for shard in range(3):
        iter_with_timeout = order[shards == shard]
        assert not np.array_equal(iter_with_timeout, np.sort(iter_with_timeout))


@pytest.mark.parametrize("window", [3, 4, 1000])
def test_a_window_of_all_shards_is_a_fair_shuffle(window):
    sizes = [2, 1, 2]
    generator = np.random.default_rng(0)
    counts = np.zeros((5, 5))
    for _ in range(4000):
        counts[np.arange(5), windowed_order(sizes, generator, window)] += 1
    assert np.abs(counts / 4000 - 1 / 5).max() < 0.03  # over 4 standard deviations


def test_every_shard_may_be_the_first():
    firsts = {int(shards_of(order_of([3] * 5, 1, seed), [3] * 5)[0]) for seed in range(60)}
    assert firsts == set(range(5))


def test_a_window_below_one():
    with pytest.raises(UsageError, match="the window is 0 shards; give 1 or more"):
        order_of([3, 5], 0)


@given(st.lists(st.sampled_from(["a.tar/1.jpg", "b.tar/x/1.jpg", "b.tar/y/2.jpg", "c/1.jpg", "d/2.jpg"])))
def test_records_by_shard(paths):
    records = [Record(Path("set", path), 0, "train") for path in paths]
    indices, sizes = by_shard(records)
    tars = [path[:5] if path[1] == "." else "none" for path in paths]
    expected = [[place for place, tar in enumerate(tars) if tar == name] for name in dict.fromkeys(tars)]
    assert indices.tolist() == list(chain.from_iterable(expected))
    assert sizes == tuple(map(len, expected))
