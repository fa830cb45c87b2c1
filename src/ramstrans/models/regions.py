"""From saliency to a region: threshold, largest connected component, bounding box; or a box by moments.

Everything is batched tensor arithmetic with a number of steps that depends on the grid's size alone:
no loop over images, no synchronisation with the host.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ramstrans.errors import ConfigError
from ramstrans.models.config import Component, Placement
from ramstrans.options import check_name


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
    component: Component = "count",
) -> Regions:
    """Box the largest 8-connected component of the patches that stand out, or all of them by moments.

    A patch stands out if its saliency is above `threshold` times the mean over patches. Among
    equally large components the first in raster order is taken. If no patch stands out, or the saliency is
    not finite, the region is the whole image (DPPM of https://arxiv.org/abs/2107.08192;
    eta = 1.2 from its released set-up).

    Args:
        saliency: (B, h, w).
        image_size: `(height, width)` of the image in pixels, or the side of a square one.
        threshold: eta, above 0.
        patch_size: `(height, width)` of a patch in pixels; None: the image divided by the grid.
        patch_stride: `(down, across)`, distance between neighbouring patches in pixels, if they overlap;
            None: the patch size.
        component: `count`: the component with the most patches, as in the paper; `saliency`: the one with
            the largest sum of saliency; `soft`: none is chosen, all patches count by how far they are above
            the threshold, see `box_by_moments`.

    Returns:
        Regions, boxes in pixels of `image_size`.

    Raises:
        ConfigError: The threshold is not above 0, or there is no such component.

    >>> saliency = torch.tensor([[[9.0, 9.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 9.0]]])
    >>> propose_regions(saliency, (48, 48))
    Regions(boxes=tensor([[ 0.,  0., 32., 16.]]), has_region=tensor([True]))
    """
    if not 0 < threshold < math.inf:
        raise ConfigError(f"threshold is {threshold}; give a number above 0, e.g. 1.2")
    check_name("component", component, Component)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    mean = saliency.mean(dim=(-2, -1), keepdim=True)
    if component == "soft":
        above = (saliency - threshold * mean).clamp(min=0)
        return box_by_moments(above, (height, width), patch_size=patch_size, patch_stride=patch_stride)
    mask = (saliency > threshold * mean) & torch.isfinite(mean)
    largest = largest_component(mask, saliency if component == "saliency" else None)
    return bounding_boxes(largest, (height, width), patch_size=patch_size, patch_stride=patch_stride)


@torch.no_grad()
def box_by_moments(
    weights: Tensor,
    image_size: tuple[int, int],
    *,
    patch_size: tuple[int, int] | None = None,
    patch_stride: tuple[int, int] | None = None,
) -> Regions:
    """Box weighted patches by their mean position and spread, sqrt(3) standard deviations to each side.

    A uniform density on a rectangle has just its sides, so that patches of equal weight that fill a rectangle
    are boxed exactly, unless patches overlap. Sides end at the image's. The box moves smoothly with the
    weights, while a component may gain or lose a part of itself at once.

    Args:
        weights: (B, h, w), not negative. Where all are 0, or one is not finite, the box is the whole image.
        image_size: `(height, width)` of the image in pixels.
        patch_size: As `propose_regions`.
        patch_stride: As `propose_regions`.

    >>> box_by_moments(torch.tensor([[[0.0, 9.0, 9.0, 0.0]] * 4]), (64, 64)).boxes
    tensor([[16.,  0., 48., 64.]])
    """
    height, width = image_size
    rows, columns = weights.shape[-2:]
    weights = weights.float()
    total = weights.sum(dim=(-2, -1))
    has_region = torch.isfinite(total) & (total > 0)
    patch_height, patch_width = patch_size or (height / rows, width / columns)
    step_y, step_x = patch_stride or (patch_height, patch_width)
    x0, x1 = _spread(weights.sum(dim=1) / total[:, None], step_x, patch_width)
    y0, y1 = _spread(weights.sum(dim=2) / total[:, None], step_y, patch_height)
    sides = (x0.clamp(min=0), y0.clamp(min=0), x1.clamp(max=width), y1.clamp(max=height))
    return _or_whole(sides, has_region, image_size)


def _spread(shares: Tensor, step: float, patch: float) -> tuple[Tensor, Tensor]:
    """Mean less and plus sqrt(3) standard deviations of patches (B, n) with shares that sum to 1."""
    centres = torch.arange(shares.shape[1], device=shares.device) * step + patch / 2
    mean = (shares * centres).sum(dim=1)
    variance = (shares * (centres - mean[:, None]) ** 2).sum(dim=1) + patch**2 / 12  # that within a patch
    reach = (3 * variance).sqrt()
    return mean - reach, mean + reach


@torch.no_grad()
def smoothed(saliency: Tensor, sigma: float) -> Tensor:
    """Saliency (B, h, w), smoothed by a Gaussian; edges are repeated, so that a constant stays what it is.

    Args:
        saliency: One value for each location.
        sigma: Standard deviation in locations, above 0; the Gaussian is cut off at three of them.

    >>> smoothed(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]), 0.5).round(decimals=2)
    tensor([[[0.0000, 0.1100, 0.7900, 0.1100, 0.0000]]])
    """
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, device=saliency.device, dtype=torch.float32)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(saliency.float()[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, None, :]), kernel[None, None, :, None])[:, 0]


@torch.no_grad()
def bounding_boxes(
    mask: Tensor,
    image_size: tuple[int, int],
    *,
    patch_size: tuple[int, int] | None = None,
    patch_stride: tuple[int, int] | None = None,
) -> Regions:
    """Box all patches of each mask (B, h, w); the whole image where there is none.

    The other arguments are those of `propose_regions`.
    """
    height, width = image_size
    rows, columns = mask.shape[-2:]
    has_region = mask.flatten(1).any(dim=1)
    y0, y1 = _extent(mask.any(dim=2))
    x0, x1 = _extent(mask.any(dim=1))
    patch_height, patch_width = patch_size or (height / rows, width / columns)
    step_y, step_x = patch_stride or (patch_height, patch_width)
    right, bottom = (x1 - 1) * step_x + patch_width, (y1 - 1) * step_y + patch_height
    return _or_whole((x0 * step_x, y0 * step_y, right, bottom), has_region, image_size)


def _or_whole(sides: tuple[Tensor, ...], has_region: Tensor, image_size: tuple[int, int]) -> Regions:
    """Boxes of four sides (B,) each; the whole image where there is no region."""
    height, width = image_size
    whole = (0.0, 0.0, float(width), float(height))
    boxes = [torch.where(has_region, side, edge) for side, edge in zip(sides, whole, strict=True)]
    return Regions(torch.stack(boxes, dim=1), has_region)


def _extent(hit: Tensor) -> tuple[Tensor, Tensor]:
    """First hit, and one past the last hit, of each row of a (B, n) mask, as float32 (B,)."""
    length = hit.shape[1]
    index = torch.arange(length, device=hit.device)
    first = torch.where(hit, index, length).amin(dim=1)
    last = torch.where(hit, index, -1).amax(dim=1)
    return first.float(), last.float() + 1


def grow_boxes(
    boxes: Tensor, *, min_side: float = 0.0, max_aspect: float | None = None, width_by_height: float = 1.0
) -> Tensor:
    """Grow boxes that are too small or too long around their centres, shifted to stay inside the image.

    First each side grows to `min_side`, then the shorter one until the longer is at most `max_aspect` times
    as long, or until it is the image's. A box that is large and wide enough is returned as it is.

    Args:
        boxes: (B, 4), half-open `(x0, y0, x1, y1)` as shares of the image's sides, in [0, 1].
        min_side: Least side, as a share of the image's, in [0, 1].
        max_aspect: Largest ratio of the longer to the shorter side in pixels, at least 1; None: any.
        width_by_height: Width of the image divided by its height, in pixels.

    Returns:
        (B, 4), each box contains the one that it was.

    >>> boxes = torch.tensor([[0.0, 0.5, 0.5, 0.625]])
    >>> grow_boxes(boxes, max_aspect=2), grow_boxes(boxes, min_side=0.75)
    (tensor([[0.0000, 0.4375, 0.5000, 0.6875]]), tensor([[0.0000, 0.1875, 0.7500, 0.9375]]))
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    sides = (high - low).clamp(min=min_side)
    if max_aspect is not None:
        across, down = sides.unbind(dim=1)
        needed = torch.stack([down / width_by_height, across * width_by_height], dim=1) / max_aspect
        sides = torch.maximum(sides, needed).clamp(max=1)
    start = torch.minimum((low + high - sides).clamp(min=0) / 2, 1 - sides)
    is_short = high - low < sides
    low = torch.where(is_short, torch.minimum(start, low), low)
    return torch.cat(
        [low, torch.where(is_short, torch.maximum(start + sides, high).clamp(max=1), high)], dim=1
    )


def place_boxes(boxes: Tensor, placement: Placement) -> Tensor:
    """Put boxes elsewhere, as controls: is it the place that helps, or any second look?

    Args:
        boxes: (B, 4), half-open `(x0, y0, x1, y1)` as shares of the image's sides, in [0, 1].
        placement: `centre`: of the same sides, around the image's centre; `whole`: the whole image; others:
            as they are, since what they need is not here (see `Method.placed`).

    >>> place_boxes(torch.tensor([[0.0, 0.5, 0.5, 0.75]]), "centre")
    tensor([[0.2500, 0.3750, 0.7500, 0.6250]])
    """
    if placement not in ("centre", "whole"):
        return boxes
    sides = boxes[:, 2:] - boxes[:, :2] if placement == "centre" else torch.ones_like(boxes[:, 2:])
    low = (1 - sides) / 2
    return torch.cat([low, low + sides], dim=1)


def largest_component(mask: Tensor, saliency: Tensor | None = None) -> Tensor:
    """The largest 8-connected component of each mask; ties to the first in raster order.

    Args:
        mask: (B, h, w) bool.
        saliency: (B, h, w), finite and not negative inside the mask: the component with the largest sum, in
            steps of 2^-30 of the highest value, is taken. None: the one with the most patches.

    Returns:
        (B, h, w) bool; all False if the mask is.

    >>> largest_component(torch.tensor([[[1, 0, 1], [0, 1, 0], [0, 0, 0]]]).bool()).int()
    tensor([[[1, 0, 1],
             [0, 1, 0],
             [0, 0, 0]]], dtype=torch.int32)
    """
    labels = label_components(mask).flatten(1)
    inside = mask.flatten(1)
    weight = inside.long() if saliency is None else _whole_numbers(saliency.flatten(1), inside)
    size = torch.zeros_like(labels).scatter_add_(1, labels, weight)
    largest = size.argmax(dim=1, keepdim=True)  # argmax's choice among ties is not specified ...
    order = torch.arange(labels.shape[1], device=mask.device)
    ties = (size == size.gather(1, largest)) & inside
    first = torch.where(ties, order, labels.shape[1] - 1).amin(dim=1, keepdim=True)  # ... this one's is
    return ((labels == first) & inside).view_as(mask)


def _whole_numbers(saliency: Tensor, inside: Tensor) -> Tensor:
    """(B, n) int64 in proportion to saliency, 0 outside: sums of floats would depend on a GPU's order."""
    saliency = torch.where(inside, saliency, 0.0).float()
    highest = saliency.amax(dim=1, keepdim=True)
    return (saliency / torch.where(highest > 0, highest, 1.0) * 2**30).round().long()


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
    padded = F.pad(torch.where(mask, labels, none), (1, 1, 1, 1), value=none)
    rows, columns = labels.shape[-2:]
    smallest = torch.full_like(labels, none)
    for y in range(3):
        for x in range(3):
            shifted = padded[:, y : y + rows, x : x + columns]
            smallest = torch.minimum(smallest, torch.where(shifted == labels, none, shifted))
    return torch.where(mask, smallest, none)
