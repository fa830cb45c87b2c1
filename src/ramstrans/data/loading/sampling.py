"""Which images make up each batch of an epoch, and the orders in which training reads them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ramstrans.data.records import Record
from ramstrans.errors import UsageError

Draw = Callable[[np.random.Generator], NDArray[np.int64]]
"""Draws the order of an epoch: indices of the dataset, as many as it has."""

Key = tuple[int, int]
"""`(epoch, index)`: what the sampler yields, so that augmentation needs no state in the workers."""


@dataclass(eq=False)
class EpochBatches(Sampler[list[Key]]):
    """Yields batches of `(epoch, index)`; set `epoch` and `first_batch` before each pass.

    All processes cut the same order into the same global batches. In training each process takes its part
    of every one, so that an optimiser step sees the same images whatever the number of processes; if the
    last batch has fewer images than there are processes, the remaining processes repeat its first image
    with weight 0. In evaluation, whole batches are distributed round-robin.

    Attributes:
        length: Images of the dataset, at least 1.
        batch_size: Images per global batch; the last one may be smaller.
        shuffle: Whether the order is drawn by (seed, epoch), and batches are shared; otherwise images stay
            in order, and whole batches are distributed.
        seed: Seed of the order.
        draw: Draws an epoch's order; None: a shuffle. See `order_of`.
        process: Index of this process.
        num_processes: How many there are.
        epoch: The epoch that the next pass yields.
        first_batch: Index in the epoch of the first batch of the next pass.
    """

    length: int
    batch_size: int
    _: KW_ONLY
    shuffle: bool
    seed: int = 0
    draw: Draw | None = None
    process: int = 0
    num_processes: int = 1
    epoch: int = 0
    first_batch: int = 0

    @property
    def num_batches(self) -> int:
        """Global batches per epoch."""
        return math.ceil(self.length / self.batch_size)

    def __len__(self) -> int:
        """Batches of a whole epoch that this process gets."""
        return len(self.numbers(0))

    def numbers(self, first: int | None = None) -> range:
        """Indices in the epoch of this process's batches, from `first` or else `first_batch` on."""
        first = self.first_batch if first is None else first
        if self.shuffle:
            return range(first, self.num_batches)
        first += (self.process - first) % self.num_processes
        return range(first, self.num_batches, self.num_processes)

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order()
        for number in self.numbers():
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            if self.shuffle:
                own = batch[self.process :: self.num_processes]
                batch = own if len(own) else batch[:1]
            yield [(self.epoch, int(index)) for index in batch]

    def order(self) -> NDArray[np.int64]:
        """(length,) int64, the images of this epoch, of all processes."""
        if not self.shuffle:
            return np.arange(self.length)
        generator = np.random.default_rng([self.seed, self.epoch])
        return generator.permutation(self.length) if self.draw is None else self.draw(generator)

    def weight(self, number: int) -> tuple[int, int]:
        """How many images of this process's part of a batch count, and how many the global batch has.

        >>> batches = EpochBatches(10, 4, shuffle=True, process=2, num_processes=3)
        >>> [batches.weight(number) for number in range(3)]
        [(1, 4), (1, 4), (0, 2)]
        """
        whole = min(self.batch_size, self.length - number * self.batch_size)
        own = len(range(self.process, whole, self.num_processes)) if self.shuffle else whole
        return own, whole


def order_of(records: Sequence[Record], *, balance: float = 0.0, window: int | None = None) -> Draw:
    """How a training epoch's order is drawn: a full shuffle, `balanced_order` or `windowed_order`.

    Raises:
        UsageError: Both balance and window were given.
    """
    if balance and window is not None:
        raise UsageError("data.balance and data.shuffle_window cannot be combined; leave one of them out")
    if balance:
        labels = np.array([record.label for record in records])
        return lambda generator: balanced_order(labels, generator, balance)
    if window is not None:
        indices, sizes = by_shard(records)
        return lambda generator: indices[windowed_order(sizes, generator, window)]
    return lambda generator: generator.permutation(len(records))


def balanced_order(
    labels: NDArray[np.int64], generator: np.random.Generator, power: float
) -> NDArray[np.int64]:
    """(N,) indices of images, as many as there are, rare classes more often: for a long-tailed data set.

    A class of n images is drawn with probability proportional to `n ** (1 - power)`, Eq. 1 of
    https://arxiv.org/abs/1910.09217 with q = 1 - power: with 0 this is a shuffle of all images; with 0.5
    classes are drawn by the square root of their images; with 1 all equally often. Class counts equal their
    expectation, randomly rounded; images of a class are repeated only after all have been drawn. `labels`
    (N,) are the classes of the images, `power` is in [0, 1].

    >>> order = balanced_order(np.array([0, 0, 0, 0, 0, 0, 7, 7]), np.random.default_rng(0), 1.0)
    >>> sorted(int(index) for index in order if index >= 6)
    [6, 6, 7, 7]
    """
    assert 0 <= power <= 1, f"power is {power}, not in [0, 1]"
    classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    counts = _rounded_counts(sizes ** (1.0 - power), len(labels), generator)
    shuffled = generator.permutation(len(labels))
    members = shuffled[np.argsort(classes[shuffled], kind="stable")]  # class by class, each in random order
    turns = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    starts, lengths = np.repeat(sizes.cumsum() - sizes, counts), np.repeat(sizes, counts)
    return generator.permutation(members[starts + turns % lengths])


def _rounded_counts(
    weights: NDArray[np.floating[Any]], total: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """(C,) int64 that sum to `total`, each `total * weight / sum` on average and less than 1 away from it."""
    ends = np.round(weights.cumsum() * (total / max(weights.sum(), 1)), 6)  # undoes rounding errors
    counts: NDArray[np.int64] = np.diff(np.floor(ends + generator.random()).astype(np.int64), prepend=0)
    return counts


def by_shard(records: Sequence[Record]) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Group records by their tars, in the order of each tar's first record; those outside tars are one shard.

    Returns:
        (N,) int64, indices of the records: those of the first shard, of the second, ...; and the number of
        records per shard.

    >>> from pathlib import Path
    >>> records = [Record(Path(f"{tar}.tar/{i}.jpg"), 0, "train") for i, tar in enumerate("abaab")]
    >>> indices, sizes = by_shard(records)
    >>> indices.tolist(), sizes
    ([0, 2, 3, 1, 4], (3, 2))
    """
    number_of: dict[str, int] = {}
    tars = (record.path.as_posix().rpartition(".tar/")[0] for record in records)
    numbers = np.array([number_of.setdefault(tar, len(number_of)) for tar in tars], np.int64)
    sizes = np.bincount(numbers, minlength=len(number_of))
    return np.argsort(numbers, kind="stable"), tuple(sizes.tolist())


def windowed_order(
    shard_sizes: Sequence[int], generator: np.random.Generator, window: int
) -> NDArray[np.int64]:
    """(N,) int64, a permutation of N images: shards are shuffled, and images in a sliding window of shards.

    The shard of rank r after the shuffle is read in the time from r to r + `window`, its images at times
    drawn uniformly. So at any time `window` shards are being read. Shards that would start or end alone
    are compressed: all of the first `window` start together, all of the last end together. With a window
    of all shards this is a full shuffle; more mix better, fewer read closer together.

    Images that are close in time are close on disk. The processes of a machine each take their part of
    every global batch of one order, so they read the same `window` shards: what the first one reads from
    the network, with the system's read-ahead, the others find in the machine's page cache. A window of
    shards should therefore fit in its memory. Every machine reads its part of the images of every shard.

    `shard_sizes` are the images of each shard; indices of the result count through the shards in this order,
    see `by_shard`. Give a generator seeded by (seed, epoch), the same in every process.

    >>> order = windowed_order([2, 3, 2], np.random.default_rng(0), window=1)
    >>> [sorted(part.tolist()) for part in np.split(order, [3, 5])]
    [[2, 3, 4], [5, 6], [0, 1]]
    """
    assert window >= 1, f"the window is {window} shards"
    num_shards = len(shard_sizes)
    window = min(window, num_shards)
    ranks = np.repeat(generator.permutation(num_shards), shard_sizes)
    starts = np.maximum(ranks, window - 1)
    ends = np.minimum(ranks + window, num_shards)
    times = starts + (ends - starts) * generator.random(len(ranks))
    return np.argsort(times, kind="stable")
