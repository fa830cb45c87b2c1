"""Crop a box out of each image and enlarge it, in one batched sampling step."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
        (B, C, *size), in the dtype of `images`.

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
    return crops.to(images.dtype)


def _centres(start: Tensor, stop: Tensor, count: int) -> Tensor:
    """(B, count) sample positions, in pixels: centres of `count` equal steps, kept half a pixel inside."""
    steps = (torch.arange(count, device=start.device) + 0.5) / count
    positions = start[:, None] + steps * (stop - start)[:, None]
    return torch.minimum(torch.maximum(positions, start[:, None] + 0.5), stop[:, None] - 0.5)
