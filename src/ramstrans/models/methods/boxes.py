"""Boxes of a batch of images, and where a control puts them."""

import torch
from torch import Tensor

from ramstrans.models.methods.base import HighRes

MULTIPLIERS = (-7046029254386353131, -4658895280553007687)
"""Odd numbers, of 64 bits, that spread what they multiply over all bits."""


def whole_image(images: Tensor) -> Tensor:
    """(B, 4) float32 boxes that cover images (B, C, H, W).

    >>> whole_image(torch.zeros(1, 3, 5, 7))
    tensor([[0., 0., 7., 5.]])
    """
    boxes = images.new_zeros((images.shape[0], 4), dtype=torch.float32)  # len() would fix an exported batch
    boxes[:, 2], boxes[:, 3] = images.shape[3], images.shape[2]
    return boxes


def chosen(images: HighRes, indices: Tensor) -> HighRes:
    """The images at some indices (K,), in a tensor or one by one.

    >>> chosen((torch.zeros(3, 5, 7), torch.zeros(3, 2, 2)), torch.tensor([1]))[0].shape
    torch.Size([3, 2, 2])
    """
    if isinstance(images, Tensor):
        return images[indices]
    return tuple(images[index] for index in indices.tolist())


def scaled(boxes: Tensor, x: float, y: float) -> Tensor:
    """Boxes (B, 4) with both x coordinates times `x` and both y coordinates times `y`.

    >>> scaled(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 10, 100)
    tensor([[ 10., 200.,  30., 400.]])
    """
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    return torch.stack([x0 * x, y0 * y, x1 * x, y1 * y], dim=1)


def within(boxes: Tensor, crop_box: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (B, 4) as shares of crops' sides (B, 4), cut at their edges; the whole crop if none is left.

    Returns:
        (B, 4), and (B,) bool: whether something was left.

    >>> within(torch.tensor([[2.0, 1.0, 9.0, 5.0]]), torch.tensor([[0.0, 0.0, 4.0, 10.0]]))
    (tensor([[0.5000, 0.1000, 1.0000, 0.5000]]), tensor([True]))
    """
    corner, sides = crop_box[:, :2].repeat(1, 2), (crop_box[:, 2:] - crop_box[:, :2]).repeat(1, 2)
    shares = ((boxes.to(crop_box) - corner) / sides).clamp(0, 1)
    is_inside = (shares[:, 2:] > shares[:, :2]).all(dim=1)
    return torch.where(is_inside[:, None], shares, shares.new_tensor([0.0, 0.0, 1.0, 1.0])), is_inside


def moved(boxes: Tensor, crop_box: Tensor, draws: Tensor) -> Tensor:
    """Boxes (B, 4) of the same sides elsewhere in crops (B, 4) that hold them.

    Args:
        boxes: Half-open `(x0, y0, x1, y1)`.
        crop_box: In the same pixels.
        draws: (B, 2) in [0, 1): 0 is the left or upper edge, and towards 1 lies the other one.

    >>> box, crop = torch.tensor([[0.0, 0.0, 2.0, 4.0]]), torch.tensor([[0.0, 0.0, 8.0, 4.0]])
    >>> moved(box, crop, torch.tensor([[0.5, 0.9]]))
    tensor([[3., 0., 5., 4.]])
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    low = crop_box[:, :2] + draws * (crop_box[:, 2:] - crop_box[:, :2] - sides).clamp(min=0)
    return torch.cat([low, low + sides], dim=1)


def draws_of(images: Tensor, count: int = 2) -> Tensor:
    """(B, count) float32 in [0, 1) that look random and follow from each image's pixels, whatever the batch.

    The bits of an image's numbers are summed as integers, exactly in any order, and the sum is mixed as
    hash functions do.

    Args:
        images: (B, C, H, W) float32.
        count: Numbers per image; the first ones do not depend on it.
    """
    bits = images.detach().float().contiguous().view(torch.int32).flatten(1).long().sum(dim=1, keepdim=True)
    mixed = bits + torch.arange(1, count + 1, device=images.device)
    for factor in MULTIPLIERS:
        mixed = mixed * factor
        mixed = mixed ^ (mixed >> 29)
    return (mixed & (2**24 - 1)).float() / 2**24
