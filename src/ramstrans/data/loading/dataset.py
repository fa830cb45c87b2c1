"""Labelled images to views and batches."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ramstrans.data.config import DataConfig
from ramstrans.data.geometry import Geometry, box_in_original
from ramstrans.data.loading.sampling import Key
from ramstrans.data.loading.transforms import Augmentation, View, make_view
from ramstrans.data.preprocessing import Preprocessing, Size
from ramstrans.data.reading.cache import DiskCache, MemoryCache
from ramstrans.data.reading.resize import ResizedImage, read_resized
from ramstrans.data.reading.threads import check_wanted
from ramstrans.data.records import Box, Record
from ramstrans.errors import RamsTransError


class Batch(NamedTuple):
    """Views of B images.

    Attributes:
        images: (B, 3, H, W) uint8.
        high_res: (B, 3, H', W') uint8, the same at the crop's resolution; with `zoom_source="native"` B
            tensors (3, H_i, W_i) uint8 at the photographs' own; None with `zoom_source="input"`.
        labels: (B,) int64; where images may have several labels (B, num_classes) float32, 1 for those that an
            image has, else 0.
        indices: (B,) int64, indices of the dataset's records.
        geometries: B geometries, from the pixels of `images` to those of the original images.
        original_sizes: (B, 2) int64, `(width, height)` of the original images in pixels.
        weight: How many of the images count, and how many images the global batch has in all processes.
        key: `(seed, epoch, index in the epoch)` of the global batch: seeds what is random about it.
        boxes: (B, 4) float32, the true boxes, half-open `(x0, y0, x1, y1)` in pixels of `images`, NaN for an
            image without one; None if no image has one.
    """

    images: Tensor
    high_res: Tensor | Sequence[Tensor] | None
    labels: Tensor
    indices: Tensor
    geometries: tuple[Geometry, ...]
    original_sizes: Tensor
    weight: tuple[int, int]
    key: tuple[int, int, int] = (0, 0, 0)
    boxes: Tensor | None = None

    def box_in_original(self, row: int, box: np.ndarray) -> Box:
        """Map a box (4,) from pixels of one of the `images` to the original, and clip it to that."""
        width, height = self.original_sizes[row].tolist()
        return box_in_original(box, self.geometries[row], (width, height))


class Example(NamedTuple):
    """One item of an `ImageDataset`.

    Attributes:
        view: What the model sees.
        label: The class; or (num_classes,) float32, see `Batch.labels`.
        record_index: Index of the dataset's record.
        original_size: `(height, width)` of the original image in pixels.
        box: The object's box in pixels of the original image, or None.
    """

    view: View
    label: int | Tensor
    record_index: int
    original_size: Size
    box: Box | None = None


@dataclass(eq=False)
class ImageDataset(Dataset[Example]):
    """Views of labelled images; the view of `(epoch, index)` is a pure function of it and the seed.

    Attributes:
        records: The images.
        preprocessing: Resizing and crop.
        image_size: `(height, width)` of the model's input.
        augmentation: Random changes for training; None for the centre view.
        seed: Seed of the augmentation.
        cache: Keeps resized images; None: each is decoded every time.
        max_pixels: Larger images are refused.
        num_classes: Where images may have several labels: of how many; None: each has one.
    """

    records: Sequence[Record]
    preprocessing: Preprocessing
    image_size: Size
    _: KW_ONLY
    augmentation: Augmentation | None = None
    seed: int = 0
    cache: MemoryCache | DiskCache | None = None
    max_pixels: int = DataConfig.max_pixels
    num_classes: int | None = None
    _being_read: Tensor | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> Example:
        epoch, index = key
        record = self.records[index]
        read = read_resized if self.cache is None else self.cache.read
        image = read(record.path, self.preprocessing.reading, max_pixels=self.max_pixels)
        view = make_view(
            *image,
            self.preprocessing,
            self.image_size,
            augmentation=self.augmentation,
            generator=np.random.default_rng([self.seed, epoch, index]),
        )
        label = record.label if self.num_classes is None else multi_hot(record.classes, self.num_classes)
        return Example(view, label, index, image.original_size, record.box)

    def __getitems__(self, keys: Sequence[Key]) -> list[Example | RamsTransError]:
        """The items of a batch, as a loader asks for them; a file that cannot be decoded gives its error.

        Raised in a worker, it would reach the main process as a RuntimeError; `ImageLoader` raises it.
        """
        examples: list[Example | RamsTransError] = []
        for key in keys:
            check_wanted()
            self._note_read(key[1])
            try:
                examples.append(self[key])
            except RamsTransError as error:
                examples.append(error)
        self._note_read(-1)
        return examples

    def note_reads(self, num_workers: int) -> None:
        """Start to record what each process of a new loader reads; in shared memory if there are workers."""
        self._being_read = torch.full((max(num_workers, 1),), -1)
        if num_workers:
            self._being_read.share_memory_()  # type: ignore[no-untyped-call]

    def files_being_read(self) -> list[str]:
        """The files that the newest loader's processes, or this one, are reading, or died reading."""
        indices = () if self._being_read is None else self._being_read.tolist()
        return [str(self.records[index].path) for index in indices if index >= 0]

    def _note_read(self, index: int) -> None:
        """Record what this process reads; -1 for nothing."""
        if self._being_read is not None:
            worker = get_worker_info()
            self._being_read[0 if worker is None else worker.id] = index


def multi_hot(labels: Sequence[int], num_classes: int) -> Tensor:
    """(num_classes,) float32, 1 for some labels and 0 for the others.

    >>> multi_hot((0, 3), 5)
    tensor([1., 0., 0., 1., 0.])
    """
    target = torch.zeros(num_classes)
    target[list(labels)] = 1
    return target


def to_example(
    image: ResizedImage, preprocessing: Preprocessing, image_size: Size, box: Box | None = None
) -> Example:
    """Cut the centre view of an image, as an example without class and data set, perhaps with its box."""
    view = make_view(image.pixels, image.original_size, preprocessing, image_size)
    return Example(view, -1, -1, image.original_size, box)


def collate(examples: Sequence[Example], *, with_high_res: bool) -> Batch:
    """Stack examples into a batch of its own, whose images all count."""
    high_res: Tensor | Sequence[Tensor] | None = None
    if with_high_res:
        gather = _pack if examples[0].view.is_native else _stack
        high_res = gather([example.view.high_res for example in examples])
    return Batch(
        _stack([example.view.image for example in examples]),
        high_res,
        _labels_of(examples),
        torch.tensor([example.record_index for example in examples]),
        tuple(example.view.geometry for example in examples),
        torch.tensor([example.original_size[::-1] for example in examples]),
        (len(examples), len(examples)),
        boxes=_boxes_of(examples),
    )


def _labels_of(examples: Sequence[Example]) -> Tensor:
    labels = [example.label for example in examples]
    return torch.stack([torch.as_tensor(label) for label in labels])


def _boxes_of(examples: Sequence[Example]) -> Tensor | None:
    """(B, 4) boxes in pixels of the views, NaN where there is none; None if no example has one."""
    if all(example.box is None for example in examples):
        return None
    boxes = np.full((len(examples), 4), np.nan)
    for row, example in enumerate(examples):
        if example.box is not None:
            boxes[row] = example.view.geometry.from_original(np.array(example.box))
    return torch.from_numpy(boxes.astype(np.float32))


def _stack(images: Sequence[Tensor]) -> Tensor:
    """`torch.stack`, which is slower on images with channels last than making them contiguous first."""
    return torch.stack([image.contiguous() for image in images])


def _pack(images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Copy images (3, h_i, w_i) of any sizes into one block of memory.

    A loader process sends that as a single file; one per image would soon be too many open files.
    """
    rows = [image.permute(1, 2, 0).reshape(-1) for image in images]
    parts = torch.split(torch.cat(rows), [len(row) for row in rows])
    return tuple(
        part.view(*image.shape[1:], 3).permute(2, 0, 1) for part, image in zip(parts, images, strict=True)
    )
