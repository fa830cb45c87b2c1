"""In which order photographs are read where reading at random is slow."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramstrans.data.loading.balance import balanced_indices
from ramstrans.data.reading.tars import tar_name
from ramstrans.data.records import Record
from ramstrans.errors import UsageError


class ByShard(NamedTuple):
    """Records laid out shard by shard.

    Attributes:
        indices: (N,) int64, places in the records: those of the first shard, of the second, ...
        sizes: Records of each shard; they add up to N.
    """

    indices: NDArray[np.int64]
    sizes: tuple[int, ...]


def by_shard(records: Sequence[Record]) -> ByShard:
    """Lay records out by the tars that they lie in, tars in order of their first record.

    Records outside tars are one shard together.

    >>> from pathlib import Path
    >>> records = [Record(Path(f"{tar}.tar/{i}.jpg"), 0, "train") for i, tar in enumerate("abaab")]
    >>> indices, sizes = by_shard(records)
    >>> indices.tolist(), sizes
    ([0, 2, 3, 1, 4], (3, 2))
    """
    number_of: dict[str, int] = {}
    numbers = np.array(
        [number_of.setdefault(tar_name(record.path), len(number_of)) for record in records], np.int64
    )
    sizes = np.bincount(numbers, minlength=len(number_of))
    return ByShard(np.argsort(numbers, kind="stable"), tuple(sizes.tolist()))


def order_of(
    records: Sequence[Record], *, balance: float = 0.0, window: int | None = None
) -> Callable[[np.random.Generator], NDArray[np.int64]]:
    """How the order of a training epoch is drawn from a generator.

    Args:
        records: The training images.
        balance: See `balanced_indices`; 0: each image once.
        window: See `windowed_order`; None: a full shuffle.

    Raises:
        UsageError: Both were asked for.
    """
    if balance and window is not None:
        raise UsageError("data.balance and data.shuffle_window do not go together; leave one of them out")
    if balance:
        labels = np.array([record.label for record in records])
        return lambda generator: balanced_indices(labels, generator, balance)
    if window is not None:
        indices, sizes = by_shard(records)
        return lambda generator: indices[windowed_order(sizes, generator, window)]
    return lambda generator: generator.permutation(len(records))


def windowed_order(
    shard_sizes: Sequence[int], generator: np.random.Generator, window: int
) -> NDArray[np.int64]:
    """Shuffle shards, then images within a window of `window` shards that slides over them.

    The shard in place r of the shuffled row is read in the time from r to r + `window`, its images at
    times drawn uniformly. So at any time `window` shards are being read. Shards that would start or end
    alone are compressed into what time there is: all of the first `window` start together, all of the last
    end together. With a window of all shards this is a full shuffle.

    Readers near each other in time read near each other on disk. Where the processes of a machine each
    take their part of every global batch of one order, they read the same `window` shards: what the first
    reads from the network, with the system's read-ahead, the others find in the machine's page cache. So
    a window of shards should fit in its memory. Every machine reads of every shard its part of the images.

    Args:
        shard_sizes: Images of each shard; image i of the result counts through the shards in this order,
            see `by_shard`.
        generator: Source of randomness; give one seeded by (seed, epoch) on every process alike.
        window: Shards that are read at a time, 1 or more; more mix better, fewer read closer together.

    Returns:
        (N,) int64, a permutation of the N images.

    Raises:
        UsageError: The window is below 1.

    >>> order = windowed_order([2, 3, 2], np.random.default_rng(0), window=1)
    >>> [sorted(part.tolist()) for part in np.split(order, [3, 5])]
    [[2, 3, 4], [5, 6], [0, 1]]
    """
    if window < 1:
        raise UsageError(f"the window is {window} shards; give 1 or more")
    num_shards = len(shard_sizes)
    window = min(window, num_shards)
    ranks = np.repeat(generator.permutation(num_shards), shard_sizes)
    starts = np.maximum(ranks, window - 1)
    ends = np.minimum(ranks + window, num_shards)
    times = starts + (ends - starts) * generator.random(len(ranks))
    return np.argsort(times, kind="stable")
