"""Datasets and loaders: records in, batches of views out, the same whatever the workers."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ramstrans.data.cache import DiskCache, MemoryCache
from ramstrans.data.photographs import ResizedPhotograph, read_resized
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import Record
from ramstrans.data.transforms import Augmentation, Geometry, Size, View, make_view
from ramstrans.errors import RamsTransError

Key = tuple[int, int]
"""`(epoch, index)`: what a sampler yields, so that augmentation needs no state in the workers."""


class Batch(NamedTuple):
    """Views of B photographs.

    Attributes:
        images: (B, 3, H, W) uint8.
        source: (B, 3, H', W') uint8, the same at the crop's resolution; None with `zoom_source="input"`.
        labels: (B,) int64.
        indices: (B,) int64, places in the dataset's records.
        geometries: B geometries, from the pixels of `images` to the photographs'.
        original_sizes: (B, 2) int64, `(width, height)` of the photographs in pixels.
    """

    images: Tensor
    source: Tensor | None
    labels: Tensor
    indices: Tensor
    geometries: tuple[Geometry, ...]
    original_sizes: Tensor


class Example(NamedTuple):
    """One item of a `PhotographDataset`."""

    view: View
    label: int
    place: int
    original_size: Size


class PhotographDataset(Dataset[Example]):
    """Views of labelled photographs; item `(epoch, index)` is a pure function of it and the seed.

    Args:
        records: The photographs.
        preprocessing: Resizing and crop.
        image_size: `(height, width)` of the model's input.
        augmentation: Random changes for training; None for the centre view.
        seed: Of the augmentation.
        cache: Where resized photographs are kept; None: each is decoded each time.
        max_pixels: Larger photographs are refused.
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
        max_pixels: int = 200_000_000,
    ) -> None:
        self.records = tuple(records)
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.augmentation = augmentation
        self.seed = seed
        self.max_pixels = max_pixels
        self.cache = cache

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> Example:
        epoch, index = key
        pixels, original_size = self._resized(index)
        view = make_view(
            pixels,
            original_size,
            self.preprocessing.crop,
            self.image_size,
            augmentation=self.augmentation,
            generator=np.random.default_rng([self.seed, epoch, index]),
        )
        return Example(view, self.records[index].label, index, original_size)

    def __getitems__(self, keys: Sequence[Key]) -> list[Example | RamsTransError]:
        """The items of a batch, as a loader asks for them; a file that cannot be decoded gives its error.

        Raised in a worker, it would reach the main process as a RuntimeError; `PhotographLoader` raises it.
        """
        return [self._item_or_error(key) for key in keys]

    def _item_or_error(self, key: Key) -> Example | RamsTransError:
        try:
            return self[key]
        except RamsTransError as error:
            return error

    def _resized(self, index: int) -> ResizedPhotograph:
        read = read_resized if self.cache is None else self.cache.read
        return read(self.records[index].path, self.preprocessing.resize, max_pixels=self.max_pixels)


class EpochSampler(Sampler[Key]):
    """Yields `(epoch, index)`, shuffled by (seed, epoch) or in order; set `epoch` before each pass."""

    def __init__(self, length: int, *, shuffle: bool, seed: int = 0) -> None:
        self.length = length
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        yield from ((self.epoch, int(index)) for index in order)


def collate(examples: Sequence[Example], *, with_source: bool) -> Batch:
    """Stack examples into a batch."""
    sizes = torch.tensor([example.original_size[::-1] for example in examples])
    return Batch(
        _stack([example.view.image for example in examples]),
        _stack([example.view.source for example in examples]) if with_source else None,
        torch.tensor([example.label for example in examples]),
        torch.tensor([example.place for example in examples]),
        tuple(example.view.geometry for example in examples),
        sizes,
    )


def _stack(images: Sequence[Tensor]) -> Tensor:
    """`torch.stack`, which takes longer over images with channels last than first to set them in order."""
    return torch.stack([image.contiguous() for image in images])


class _Collate:
    """`collate` with its option bound, picklable for workers; of a batch with errors, the first one."""

    def __init__(self, with_source: bool) -> None:
        self.with_source = with_source

    def __call__(self, examples: Sequence[Example | RamsTransError]) -> Batch | RamsTransError:
        readable = []
        for example in examples:
            if isinstance(example, RamsTransError):
                return example
            readable.append(example)
        return collate(readable, with_source=self.with_source)


class PhotographLoader(DataLoader[Batch]):
    """A loader that raises the errors of its workers as they are."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, RamsTransError):
                raise batch
            yield batch


def build_loader(
    dataset: PhotographDataset,
    batch_size: int,
    *,
    shuffle: bool,
    with_source: bool,
    seed: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> PhotographLoader:
    """A loader whose `sampler.epoch` is set before each pass; the last batch may be smaller."""
    return PhotographLoader(
        dataset,  # type: ignore[arg-type]
        batch_size,
        sampler=EpochSampler(len(dataset), shuffle=shuffle, seed=seed),
        num_workers=num_workers,
        collate_fn=_Collate(with_source),
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
    )
