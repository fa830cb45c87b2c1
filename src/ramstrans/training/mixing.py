"""Mixup and CutMix for a model of several scales: pixels of two images, shares of two classes."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ramstrans.data.preprocessing import Size

MIXING_STREAM = 1
"""Separates these random numbers from those of the views, which have a key of three numbers too."""


class Mixing(NamedTuple):
    """How a batch is mixed: image i with image `partners[i]`, all in the same way.

    Attributes:
        partners: (B,) int64 on the CPU, a permutation; an image may be its own partner.
        share: The partner's share of the whole image, in [0, 1]; 1 - lambda of the papers.
        rectangle: What CutMix pastes from the partner, half-open `(x0, y0, x1, y1)` in whole pixels of the
            input. None: mixup, which blends all pixels.
    """

    partners: Tensor
    share: float
    rectangle: tuple[int, int, int, int] | None = None


def mixing_generator(seed: int, epoch: int, step: int, process: int = 0) -> np.random.Generator:
    """The generator of one batch, a pure function of its index, so that a resumed run draws the same.

    Args:
        seed: Seed of the run.
        epoch: Epoch, from 0.
        step: Step of the epoch or of the run, from 0.
        process: Rank; each process mixes within its own share of the batch.
    """
    entropy = np.random.SeedSequence([seed, epoch, step, process], spawn_key=(MIXING_STREAM,))
    return np.random.default_rng(entropy)


def draw_mixing(
    num_images: int,
    size: Size,
    generator: np.random.Generator,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    probability: float = 1.0,
) -> Mixing | None:
    """Draw how one batch is mixed; if both methods are on, each has probability 1/2.

    Mixup (https://arxiv.org/abs/1710.09412) draws lambda from Beta(alpha, alpha). So does CutMix
    (https://arxiv.org/abs/1905.04899), whose rectangle has sqrt(1 - lambda) of each side, a centre drawn
    uniformly, and is clipped at the edges; `share` is what remains of its area.

    Args:
        num_images: Images in the batch, B.
        size: `(height, width)` of the input in pixels.
        generator: The only source of randomness.
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of CutMix; 0 is off.
        probability: Probability that this batch is mixed, in [0, 1].

    Returns:
        The mixing; None to leave the batch as it is, e.g. because its only image has no partner.
    """
    if not (mixup or cutmix) or num_images < 2 or generator.random() >= probability:
        return None
    takes_cutmix = cutmix > 0 and (mixup == 0 or generator.random() < 0.5)
    alpha = cutmix if takes_cutmix else mixup
    share = 1 - float(generator.beta(alpha, alpha))
    partners = torch.from_numpy(generator.permutation(num_images))
    if not takes_cutmix:
        return Mixing(partners, share)
    x0, y0, x1, y1 = rectangle = _draw_rectangle(size, share, generator)
    return Mixing(partners, (x1 - x0) * (y1 - y0) / math.prod(size), rectangle)


def _draw_rectangle(size: Size, share: float, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """`(x0, y0, x1, y1)` in an image of `(height, width)`, about `share` of it unless an edge clips it."""
    corners = []
    for side in reversed(size):
        centre, half = generator.uniform(0, side), side * math.sqrt(share) / 2
        corners.append((round(max(centre - half, 0)), round(min(centre + half, side))))
    (x0, x1), (y0, y1) = corners
    return x0, y0, x1, y1


def mix(images: Tensor, high_res: Tensor | None, mixing: Mixing) -> tuple[Tensor, Tensor | None]:
    """Mix a batch, and the same views at another resolution, in the same way, neither in place.

    If `high_res` is not a multiple of the input's resolution, the rectangle is rounded to whole pixels.

    Args:
        images: (B, 3, H, W), normalised.
        high_res: (B, 3, H', W'), or None.
        mixing: The mixing drawn for B images of (H, W).

    Returns:
        Both, mixed.

    >>> images = torch.tensor([0.0, 8.0]).view(2, 1, 1, 1).expand(-1, -1, 1, 4)
    >>> mix(images, None, Mixing(torch.tensor([1, 0]), 0.25))[0][:, 0, 0].tolist()
    [[2.0, 2.0, 2.0, 2.0], [6.0, 6.0, 6.0, 6.0]]
    >>> mix(images, None, Mixing(torch.tensor([1, 0]), 0.25, (2, 0, 3, 1)))[0][:, 0, 0].tolist()
    [[0.0, 0.0, 8.0, 0.0], [8.0, 8.0, 0.0, 8.0]]
    """
    height, width = images.shape[-2:]
    mixed = _mixed(images, mixing, (height, width))
    return mixed, None if high_res is None else _mixed(high_res, mixing, (height, width))


def _mixed(images: Tensor, mixing: Mixing, size: Size) -> Tensor:
    """Mix images of any resolution; the rectangle is in pixels of an input of `size`."""
    assert len(images) == len(mixing.partners), "mixing was drawn for a batch of another length"
    partners = mixing.partners.to(images.device)
    if mixing.rectangle is None:
        return torch.lerp(images, images[partners], mixing.share)
    x, y = images.shape[3] / size[1], images.shape[2] / size[0]
    x0, y0, x1, y1 = (round(a * b) for a, b in zip(mixing.rectangle, (x, y, x, y), strict=True))
    mixed = images.clone()
    mixed[:, :, y0:y1, x0:x1] = images[partners, :, y0:y1, x0:x1]
    return mixed


def partner_shares(mixing: Mixing, boxes: Tensor) -> Tensor:
    """(B,) float32, the partner's share of each target, at a scale that sees `boxes` of the mixed images.

    A later scale may see nothing of what CutMix pasted, or nothing else: its share is the pasted area within
    its box over the area of the box. For mixup the share is the same everywhere.

    Args:
        mixing: How the images were mixed.
        boxes: (B, 4) float32, half-open `(x0, y0, x1, y1)` in pixels of the input, not empty.

    >>> mixing = Mixing(torch.tensor([1, 0]), 0.25, (0, 0, 4, 4))
    >>> partner_shares(mixing, torch.tensor([[0.0, 0.0, 8.0, 8.0], [2.0, 2.0, 4.0, 6.0]]))
    tensor([0.2500, 0.5000])
    """
    if mixing.rectangle is None:
        return torch.full_like(boxes[:, 0], mixing.share)
    x0, y0, x1, y1 = mixing.rectangle
    left, top, right, bottom = boxes.unbind(dim=1)
    across = (right.clamp(max=x1) - left.clamp(min=x0)).clamp(min=0)
    down = (bottom.clamp(max=y1) - top.clamp(min=y0)).clamp(min=0)
    return across * down / ((right - left) * (bottom - top))
