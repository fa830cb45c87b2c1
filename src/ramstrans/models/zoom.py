"""Crop a box out of each image and resize it: a batch in one step, or images of any sizes one by one."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SLIVER = 0.001
"""Share of a pixel that is rounding: a box on whole pixels stays there."""


@torch.no_grad()
def zoom(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop one box from each image and resize it bilinearly.

    Equals cutting the box out and calling `F.interpolate(crop, size, mode="bilinear",
    align_corners=False)` if the box lies on whole pixels: samples never reach outside the box.

    Args:
        images: (B, C, H, W).
        boxes: (B, 4), half-open `(x0, y0, x1, y1)` in pixels of `images`, at least one pixel each way.
        size: `(height, width)` of the result.

    Returns:
        `(B, C, *size)`, in the dtype of `images`; whole numbers are rounded to the nearest.

    >>> image = torch.arange(4.0).view(1, 1, 1, 4)
    >>> zoom(image, torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (1, 2))
    tensor([[[[1., 2.]]]])
    """
    height, width = images.shape[-2:]
    boxes = boxes.to(images.device, torch.float32)
    x = _centres(boxes[:, 0], boxes[:, 2], size[1]) * (2 / width) - 1
    y = _centres(boxes[:, 1], boxes[:, 3], size[0]) * (2 / height) - 1
    grid = torch.stack([x[:, None, :].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])], dim=-1)
    # bfloat16 coordinates would be off by up to a pixel
    precise = torch.promote_types(images.dtype, torch.float32)
    with torch.autocast(images.device.type, enabled=False):
        crops = F.grid_sample(
            images.to(precise), grid.to(precise), mode="bilinear", padding_mode="border", align_corners=False
        )
    return _like(crops, images)


@torch.no_grad()
def zoom_by_products(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """`zoom` as two products of matrices, for runtimes that sample a grid differently, as browsers' do.

    Along each side a sample is a weighted mean of the two pixels next to it, so that a crop is
    `rows @ image @ columns`. Arguments and result are those of `zoom`, equal to rounding.

    >>> image = torch.arange(4.0).view(1, 1, 1, 4)
    >>> zoom_by_products(image, torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (1, 2))
    tensor([[[[1., 2.]]]])
    """
    boxes = boxes.float()
    rows = _between(_centres(boxes[:, 1], boxes[:, 3], size[0]), images.shape[-2])
    columns = _between(_centres(boxes[:, 0], boxes[:, 2], size[1]), images.shape[-1])
    crops = rows[:, None] @ images.float() @ columns[:, None].transpose(-1, -2)
    return _like(crops, images)


def _like(crops: Tensor, images: Tensor) -> Tensor:
    """Crops in the dtype of the images, rounded where that has whole numbers."""
    return (crops if images.is_floating_point() else crops.round()).to(images.dtype)


def _between(positions: Tensor, length: int) -> Tensor:
    """(B, n, length) weights of a side's pixels for samples at positions (B, n); each row sums to 1."""
    inside = (positions - 0.5).clamp(0, length - 1)
    pixels = torch.arange(length, device=positions.device)
    return (1 - (inside[..., None] - pixels).abs()).clamp(min=0)


def _centres(start: Tensor, stop: Tensor, count: int) -> Tensor:
    """(B, count) sample positions, in pixels: centres of `count` equal steps, kept half a pixel inside."""
    steps = (torch.arange(count, device=start.device) + 0.5) / count
    positions = start[:, None] + steps * (stop - start)[:, None]
    return torch.minimum(torch.maximum(positions, start[:, None] + 0.5), stop[:, None] - 0.5)


def zoom_each(images: Sequence[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop one box from each of B images of any sizes; resize it bilinearly, with antialiasing (Pillow's).

    Where a box is reduced, all of its pixels count; where it is enlarged, this is `zoom`, but for pixels that
    the box's edges cut through. Samples never reach beyond those.

    Args:
        images: B tensors (3, h_i, w_i) uint8 on the CPU.
        boxes: (B, 4), half-open `(x0, y0, x1, y1)` as shares of the images' sides, in [0, 1], not empty, on
            any device.
        size: `(height, width)` of the result in pixels.

    Returns:
        (B, 3, *size) uint8 on the CPU.

    >>> image = torch.arange(0, 240, 60, dtype=torch.uint8).expand(3, 1, 4)
    >>> zoom_each([image], torch.tensor([[0.5, 0.0, 1.0, 1.0]]), (1, 1))[0, 0]
    tensor([[150]], dtype=torch.uint8)
    """
    crops = [_zoom_one(image, box, size) for image, box in zip(images, boxes.tolist(), strict=True)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)


def _zoom_one(image: Tensor, box: Sequence[float], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 of one box; only the pixels that it touches are copied."""
    left, right, x0, x1 = _touched(box[0], box[2], image.shape[2])
    top, bottom, y0, y1 = _touched(box[1], box[3], image.shape[1])
    pixels = image[:, top:bottom, left:right].permute(1, 2, 0).contiguous().numpy()
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR, (x0, y0, x1, y1)))


def _touched(start: float, stop: float, length: int) -> tuple[int, int, float, float]:
    """The pixels, first and past the last, that a span touches by more than `SLIVER`; the span from there.

    >>> _touched(0.25, 0.7, 10)
    (2, 7, 0.5, 5.0)
    """
    start, stop = max(start, 0.0) * length, min(stop, 1.0) * length
    first = min(math.floor(start + SLIVER), length - 1)
    last = max(math.ceil(stop - SLIVER), first + 1)
    begin = min(max(start - first, 0.0), last - first - SLIVER)
    return first, last, begin, max(min(stop, last) - first, begin + SLIVER)
