"""Images changed to see what a model makes of it: parts deleted, mirrored, shifted.

Images are (B, 3, H, W), normalised as the model expects, so that 0 is the mean colour that its weights know.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ramstrans.models.methods.base import HighRes

BLUR = 1 / 32
"""Standard deviation of the Gaussian blur, as a share of the longer side: 7 pixels of 224."""


class Shift(NamedTuple):
    """How far the content of an image moves: right and down, in whole pixels of the input, or mirrored."""

    right: int = 0
    down: int = 0
    mirrored: bool = False


def box_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) bool: the pixels whose centre lies in the half-open box of their image.

    Args:
        boxes: (B, 4), `(x0, y0, x1, y1)` in pixels.
        size: `(H, W)` in pixels.

    >>> box_mask(torch.tensor([[0.4, 0.0, 2.0, 1.0]]), (2, 3)).int().tolist()
    [[[[1, 1, 0], [0, 0, 0]]]]
    """
    x0, y0, x1, y1 = (side[:, None] for side in boxes.float().unbind(dim=1))
    x, y = (torch.arange(count, device=boxes.device) + 0.5 for count in (size[1], size[0]))
    across, down = (x0 <= x) & (x < x1), (y0 <= y) & (y < y1)
    return (down[:, :, None] & across[:, None, :])[:, None]


def ranks_of(saliency: Tensor) -> Tensor:
    """(B, h, w) int64 rank of each location by its saliency: 0 is the highest, equal ones in raster order.

    >>> ranks_of(torch.tensor([[[0.1, 0.7], [0.7, 0.3]]])).tolist()
    [[[3, 0], [1, 2]]]
    """
    order = saliency.flatten(1).argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter_(1, order, ranks).view_as(saliency)


def rank_mask(ranks: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) bool: the pixels of the `count` locations of highest rank, each a cell of an even grid.

    >>> rank_mask(torch.tensor([[[1, 0]]]), 1, (1, 4)).int().tolist()
    [[[[0, 0, 1, 1]]]]
    """
    mask = (ranks < count).float()[:, None]
    return torch.nn.functional.interpolate(mask, size, mode="nearest-exact") > 0.5


def blurred(images: Tensor) -> Tensor:
    """Images without detail, by a Gaussian of `BLUR`; edges are reflected."""
    sigma = BLUR * max(images.shape[2:])
    reach = min(int(3 * sigma), *(side - 1 for side in images.shape[2:]))  # reflection allows no more
    blur: Tensor = F.gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2)
    return blur


def shifted(images: Tensor, shift: Shift, size: tuple[int, int]) -> Tensor:
    """Images (..., H', W') mirrored, or with their content moved; edges are repeated.

    Args:
        images: Of any resolution.
        shift: In pixels of the input.
        size: `(H, W)` of the input.

    >>> shifted(torch.tensor([[[1, 2, 3, 4]]]), Shift(right=1), (1, 4))[0, 0].tolist()
    [1, 1, 2, 3]
    """
    if shift.mirrored:
        return images.flip(-1)
    moved = images
    for axis, step, side in ((-2, shift.down, size[0]), (-1, shift.right, size[1])):
        count = moved.shape[axis]
        places = torch.arange(count, device=moved.device) - round(step * count / side)
        moved = moved.index_select(moved.ndim + axis, places.clamp(0, count - 1))
    return moved


def all_shifted(high_res: HighRes | None, shift: Shift, size: tuple[int, int]) -> HighRes | None:
    """The same for what regions are cut from, in a tensor or one by one."""
    if high_res is None or isinstance(high_res, Tensor):
        return None if high_res is None else shifted(high_res, shift, size)
    return tuple(shifted(image, shift, size) for image in high_res)


def shifted_boxes(boxes: Tensor, shift: Shift, width: int) -> Tensor:
    """Where boxes (B, 4) of the image lie once it is shifted; NaN stays.

    >>> shifted_boxes(torch.tensor([[1.0, 2.0, 4.0, 5.0]]), Shift(mirrored=True), 10)
    tensor([[6., 2., 9., 5.]])
    """
    if shift.mirrored:
        x0, y0, x1, y1 = boxes.unbind(dim=1)
        return torch.stack([width - x1, y0, width - x0, y1], dim=1)
    return boxes + boxes.new_tensor([shift.right, shift.down] * 2)


def shifted_back(boxes: Tensor, shift: Shift, width: int) -> Tensor:
    """Boxes (B, 4) of the shifted image -> of the image; the inverse of `shifted_boxes`."""
    return shifted_boxes(boxes, Shift(-shift.right, -shift.down, shift.mirrored), width)


def common_window(shift: Shift, size: tuple[int, int]) -> Sequence[int]:
    """`(x0, y0, x1, y1)`, the part of the image that is still there once it is shifted.

    >>> common_window(Shift(right=3), (10, 20)), common_window(Shift(down=-2), (10, 20))
    ((0, 0, 17, 10), (0, 2, 20, 10))
    """
    height, width = size
    low_x, low_y = max(-shift.right, 0), max(-shift.down, 0)
    return low_x, low_y, width - max(shift.right, 0), height - max(shift.down, 0)
