"""From saliency to a region: threshold, largest connected component, bounding box.

Everything is batched tensor arithmetic with a number of steps that depends on the grid's size alone:
no loop over images, no synchronisation with the host.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Regions(NamedTuple):
    """One region for each image.

    Attributes:
        boxes: (B, 4) float32, half-open `(x0, y0, x1, y1)` in pixels of the image the saliency belongs to.
        has_region: (B,) bool; False if no patch stands out and the box is the whole image.
    """

    boxes: Tensor
    has_region: Tensor


@torch.no_grad()
def propose_regions(
    saliency: Tensor,
    image_size: int | tuple[int, int],
    threshold: float = 1.2,
    *,
    patch_size: tuple[int, int] | None = None,
    patch_stride: tuple[int, int] | None = None,
) -> Regions:
    """Box the largest 8-connected component of the patches that stand out.

    A patch stands out if its saliency is above `threshold` times the mean over patches. Among
    equally large components the first in raster order wins. If no patch stands out, or the saliency is
    not finite, the region is the whole image (DPPM of https://arxiv.org/abs/2107.08192;
    eta = 1.2 from its released set-up).

    Args:
        saliency: (B, h, w).
        image_size: `(height, width)` of the image in pixels, or the side of a square one.
        threshold: eta, above 0.
        patch_size: `(height, width)` of a patch in pixels; None: the image divided by the grid.
        patch_stride: `(down, across)`, distance between neighbouring patches in pixels, if they overlap;
            None: the patch size.

    Returns:
        Regions, boxes in pixels of `image_size`.

    >>> saliency = torch.tensor([[[9.0, 9.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 9.0]]])
    >>> propose_regions(saliency, (48, 48))
    Regions(boxes=tensor([[ 0.,  0., 32., 16.]]), has_region=tensor([True]))
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    rows, columns = saliency.shape[-2:]
    mean = saliency.mean(dim=(-2, -1), keepdim=True)
    mask = (saliency > threshold * mean) & torch.isfinite(mean)
    component = largest_component(mask)
    has_region = component.flatten(1).any(dim=1)
    y0, y1 = _extent(component.any(dim=2))
    x0, x1 = _extent(component.any(dim=1))
    patch_height, patch_width = patch_size or (height / rows, width / columns)
    step_y, step_x = patch_stride or (patch_height, patch_width)
    sides = (
        torch.where(has_region, x0 * step_x, 0.0),
        torch.where(has_region, y0 * step_y, 0.0),
        torch.where(has_region, (x1 - 1) * step_x + patch_width, float(width)),
        torch.where(has_region, (y1 - 1) * step_y + patch_height, float(height)),
    )
    return Regions(torch.stack(sides, dim=1), has_region)


def _extent(hit: Tensor) -> tuple[Tensor, Tensor]:
    """First hit, and one past the last hit, of each row of a (B, n) mask, as float32 (B,)."""
    length = hit.shape[1]
    index = torch.arange(length, device=hit.device)
    first = torch.where(hit, index, length).amin(dim=1)
    last = torch.where(hit, index, -1).amax(dim=1)
    return first.float(), last.float() + 1


def largest_component(mask: Tensor) -> Tensor:
    """The largest 8-connected component of each mask, by count; ties to the first in raster order.

    Args:
        mask: (B, h, w) bool.

    Returns:
        (B, h, w) bool; all False if the mask is.

    >>> largest_component(torch.tensor([[[1, 0, 1], [0, 1, 0], [0, 0, 0]]]).bool()).int()
    tensor([[[1, 0, 1],
             [0, 1, 0],
             [0, 0, 0]]], dtype=torch.int32)
    """
    labels = label_components(mask).flatten(1)
    inside = mask.flatten(1)
    size = torch.zeros_like(labels).scatter_add_(1, labels, inside.long())
    largest = size.argmax(dim=1, keepdim=True)  # argmax's choice among ties is not specified ...
    order = torch.arange(labels.shape[1], device=mask.device)
    ties = (size == size.gather(1, largest)) & inside
    first = torch.where(ties, order, labels.shape[1] - 1).amin(dim=1, keepdim=True)  # ... this one's is
    return ((labels == first) & inside).view_as(mask)


def label_components(mask: Tensor) -> Tensor:
    """Label 8-connected components by the raster index of their first patch.

    Borůvka's scheme: in each round every component so far joins its smallest-labelled neighbour, the smaller
    of two that choose each other stays, and pointer doubling follows the chains to their end. The number
    of unfinished components at least halves in a round, so ceil(log2(h·w)) rounds are enough for any
    mask, spirals included.

    Args:
        mask: (B, h, w) bool.

    Returns:
        (B, h, w) int64 in [0, h·w): equal inside a component, different between components; a patch
        outside the mask keeps its own index.

    >>> label_components(torch.tensor([[[1, 1, 0, 1], [0, 0, 0, 1]]]).bool()).tolist()
    [[[0, 0, 2, 3], [4, 5, 6, 3]]]
    """
    batch, rows, columns = mask.shape
    count = rows * columns
    steps = max(count - 1, 1).bit_length()
    own = torch.arange(count, device=mask.device).expand(batch, count)
    labels = own.clone()
    for _ in range(steps):
        neighbour = _smallest_other_neighbour(labels.view_as(mask), mask, count).flatten(1)
        choice = torch.full_like(labels, count).scatter_reduce_(1, labels, neighbour, "amin")
        parent = torch.where(choice < count, choice, own)
        mutual = parent.gather(1, parent) == own
        parent = torch.where(mutual & (own < parent), own, parent)
        for _ in range(steps):
            parent = parent.gather(1, parent)
        labels = parent.gather(1, labels)
    first = torch.full_like(labels, count).scatter_reduce_(1, labels, own, "amin")
    return first.gather(1, labels).view_as(mask)


def _smallest_other_neighbour(labels: Tensor, mask: Tensor, none: int) -> Tensor:
    """Smallest label among the 8 neighbours that differs from the patch's own; `none` if there is none."""
    padded = torch.nn.functional.pad(torch.where(mask, labels, none), (1, 1, 1, 1), value=none)
    rows, columns = labels.shape[-2:]
    smallest = torch.full_like(labels, none)
    for y in range(3):
        for x in range(3):
            shifted = padded[:, y : y + rows, x : x + columns]
            smallest = torch.minimum(smallest, torch.where(shifted == labels, none, shifted))
    return torch.where(mask, smallest, none)
