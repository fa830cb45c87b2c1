"""Datasets and loaders: records in, batches of views out, the same whatever the workers."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ramstrans.data.config import DataConfig
from ramstrans.data.loading.transforms import Augmentation, Geometry, Size, View, make_view
from ramstrans.data.loading.workers import (
    block_signals,
    init_worker,
    iter_with_timeout,
    start_method,
    worker_errors,
)
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading.cache import DiskCache, MemoryCache
from ramstrans.data.reading.photographs import ResizedImage, read_resized
from ramstrans.data.reading.retry import retrying
from ramstrans.data.records import Record
from ramstrans.distributed import num_processes, process_index
from ramstrans.errors import RamsTransError

Draw = Callable[[np.random.Generator], np.ndarray]
"""Draws the order of an epoch: indices of the dataset, as many as it has."""

Key = tuple[int, int]
"""`(epoch, index)`: what a sampler yields, so that augmentation needs no state in the workers."""


class Batch(NamedTuple):
    """Views of B photographs.

    Attributes:
        images: (B, 3, H, W) uint8.
        high_res: (B, 3, H', W') uint8, the same at the crop's resolution; None with `zoom_source="input"`.
        labels: (B,) int64.
        indices: (B,) int64, places in the dataset's records.
        geometries: B geometries, from the pixels of `images` to the photographs'.
        original_sizes: (B, 2) int64, `(width, height)` of the photographs in pixels.
        num_retries: Reads that failed for a moment and were tried again.
    """

    images: Tensor
    high_res: Tensor | None
    labels: Tensor
    indices: Tensor
    geometries: tuple[Geometry, ...]
    original_sizes: Tensor
    num_retries: int = 0


class Example(NamedTuple):
    """One item of a `ImageDataset`; `num_retries` is how often its reads were tried again."""

    view: View
    label: int
    place: int
    original_size: Size
    num_retries: int = 0


class ImageDataset(Dataset[Example]):
    """Views of labelled photographs; the view of `(epoch, index)` is a pure function of it and the seed.

    Args:
        records: The photographs.
        preprocessing: Resizing and crop.
        image_size: `(height, width)` of the model's input.
        augmentation: Random changes for training; None for the centre view.
        seed: Of the augmentation.
        cache: Where resized photographs are kept; None: each is decoded each time.
        max_pixels: Larger photographs are refused.
        read_retries: Times that a read is tried again when it fails for a moment.

    Attributes:
        num_retries: Such repetitions, of all batches that loaders have given.
    """

    def __init__(
        self,
        records: Sequence[Record],
        preprocessing: Preprocessing,
        image_size: Size,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache: MemoryCache | DiskCache | None = None,
        max_pixels: int = DataConfig.max_pixels,
        read_retries: int = DataConfig.read_retries,
    ) -> None:
        self.records = tuple(records)
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.augmentation = augmentation
        self.seed = seed
        self.max_pixels = max_pixels
        self.read_retries = read_retries
        self.cache = cache
        self.num_retries = 0
        self._under_way: Tensor | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> Example:
        epoch, index = key
        with retrying(self.read_retries) as given:
            pixels, original_size = self._resized(index)
        view = make_view(
            pixels,
            original_size,
            self.preprocessing.crop,
            self.image_size,
            augmentation=self.augmentation,
            generator=np.random.default_rng([self.seed, epoch, index]),
        )
        return Example(view, self.records[index].label, index, original_size, given.num_retries)

    def __getitems__(self, keys: Sequence[Key]) -> list[Example | RamsTransError]:
        """The items of a batch, as a loader asks for them; a file that cannot be decoded gives its error.

        Raised in a worker, it would reach the main process as a RuntimeError; `ImageLoader` raises it.
        """
        return [self._item_or_error(key) for key in keys]

    def _item_or_error(self, key: Key) -> Example | RamsTransError:
        self._note(key[1])
        try:
            return self[key]
        except RamsTransError as error:
            return error
        finally:
            self._note(-1)

    def watch(self, num_workers: int) -> None:
        """Begin to note, in memory that they share, what each of a new loader's processes reads."""
        self._under_way = torch.full((max(num_workers, 1),), -1)
        self._under_way.share_memory_()  # type: ignore[no-untyped-call]

    def under_way(self) -> list[str]:
        """The files that the newest loader's processes, or this one, are reading; or died reading."""
        indices = () if self._under_way is None else self._under_way.tolist()
        return [str(self.records[index].path) for index in indices if index >= 0]

    def _note(self, index: int) -> None:
        """Note what this process reads; -1 for nothing."""
        if self._under_way is not None:
            worker = get_worker_info()
            self._under_way[0 if worker is None else worker.id] = index

    def _resized(self, index: int) -> ResizedImage:
        read = read_resized if self.cache is None else self.cache.read
        return read(self.records[index].path, self.preprocessing.resize, max_pixels=self.max_pixels)


class EpochBatches(Sampler[list[Key]]):
    """Yields batches of `(epoch, index)`; set `epoch` and `first_batch` before each pass.

    All processes cut the same order into the same batches. In training each takes its part of every
    batch, so that the batch of an optimiser step is the same whatever their number; where a last batch
    has fewer images than there are processes, those left without take its first image, which `counts`
    tells them not to count. In evaluation whole batches are dealt out.

    Args:
        length: Images of the dataset, at least 1.
        batch_size: Images a batch, of all processes together; the last may be smaller.
        shuffle: Whether the order is drawn by (seed, epoch), and batches are shared; else in order, dealt.
        seed: Of the order.
        draw: How an epoch's order is drawn; None: a shuffle. See `order_of`.
        process: Which process this is, from 0.
        num_processes: Of how many.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        draw: Draw | None = None,
        process: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.draw = draw
        self.process = process
        self.num_processes = num_processes
        self.epoch = 0
        self.first_batch = 0

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, of all processes together."""
        return math.ceil(self.length / self.batch_size)

    def __len__(self) -> int:
        """Batches that this process gets of a whole epoch."""
        if self.shuffle:
            return self.num_batches
        return len(range(self.process, self.num_batches, self.num_processes))

    def __iter__(self) -> Iterator[list[Key]]:
        order = self.order()
        for number in range(self.first_batch, self.num_batches):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            if self.shuffle:
                batch = batch[self.process :: self.num_processes] if self.counts(number)[0] else batch[:1]
            elif number % self.num_processes != self.process:
                continue
            yield [(self.epoch, int(index)) for index in batch]

    def order(self) -> np.ndarray:
        """(length,) int64, the images of this epoch, of all processes."""
        if not self.shuffle:
            return np.arange(self.length)
        generator = np.random.default_rng([self.seed, self.epoch])
        return generator.permutation(self.length) if self.draw is None else self.draw(generator)

    def counts(self, number: int) -> tuple[int, int]:
        """How many images of a shared batch count in this process, and in all together.

        >>> batches = EpochBatches(10, 4, shuffle=True, process=2, num_processes=3)
        >>> [batches.counts(number) for number in range(3)]
        [(1, 4), (1, 4), (0, 2)]
        """
        whole = min(self.batch_size, self.length - number * self.batch_size)
        return len(range(self.process, whole, self.num_processes)), whole


def collate(examples: Sequence[Example], *, with_high_res: bool) -> Batch:
    """Stack examples into a batch."""
    sizes = torch.tensor([example.original_size[::-1] for example in examples])
    return Batch(
        _stack([example.view.image for example in examples]),
        _stack([example.view.high_res for example in examples]) if with_high_res else None,
        torch.tensor([example.label for example in examples]),
        torch.tensor([example.place for example in examples]),
        tuple(example.view.geometry for example in examples),
        sizes,
        sum(example.num_retries for example in examples),
    )


def _stack(images: Sequence[Tensor]) -> Tensor:
    """`torch.stack`, which takes longer over images with channels last than first to set them in order."""
    return torch.stack([image.contiguous() for image in images])


class _Collate:
    """`collate` with its option bound, picklable for workers; of a batch with errors, the first one."""

    def __init__(self, with_high_res: bool) -> None:
        self.with_high_res = with_high_res

    def __call__(self, examples: Sequence[Example | RamsTransError]) -> Batch | RamsTransError:
        readable = []
        for example in examples:
            if isinstance(example, RamsTransError):
                return example
            readable.append(example)
        return collate(readable, with_high_res=self.with_high_res)


class ImageLoader(DataLoader[Batch]):
    """A loader that raises the errors of its workers as they are, and never waits for ever.

    Attributes:
        read_timeout: Seconds that a batch may take, whatever the number of workers; 0: any time.

    Raises:
        RamsTransError: A photograph cannot be read, or a worker has died, or takes too long.
    """

    dataset: ImageDataset  # type: ignore[assignment] # torch takes items for batches
    batch_sampler: EpochBatches
    read_timeout: float = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        with worker_errors(self.dataset.under_way):
            with block_signals():
                batches: Iterator[Batch] = super().__iter__()
            if self.num_workers == 0 and self.read_timeout > 0:  # else torch itself looks at the clock
                batches = iter_with_timeout(batches, self.read_timeout)
            for batch in batches:
                if isinstance(batch, RamsTransError):
                    raise batch
                self.dataset.num_retries += batch.num_retries
                yield batch


def build_loader(
    dataset: ImageDataset,
    batch_size: int,
    *,
    shuffle: bool,
    with_high_res: bool,
    seed: int = 0,
    draw: Draw | None = None,
    num_workers: int = 0,
    timeout: float = DataConfig.read_timeout,
    pin_memory: bool = False,
) -> ImageLoader:
    """A loader whose `batch_sampler.epoch` is set before each pass; this process's share of the batches.

    See `EpochBatches`.
    """
    dataset.watch(num_workers)
    loader = ImageLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=EpochBatches(
            len(dataset),
            batch_size,
            shuffle=shuffle,
            seed=seed,
            draw=draw,
            process=process_index(),
            num_processes=num_processes(),
        ),
        num_workers=num_workers,
        collate_fn=_Collate(with_high_res),
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=init_worker,
        multiprocessing_context=start_method() if num_workers > 0 else None,
        timeout=timeout if num_workers > 0 else 0,
        generator=torch.Generator(),  # of the workers' seeds: torch's own is part of a run's saved state
    )
    loader.read_timeout = timeout
    return loader
