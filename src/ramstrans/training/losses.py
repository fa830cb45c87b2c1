"""The loss over all looks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ramstrans.model.rams import RamsOutput


class MultiScaleLoss(NamedTuple):
    """The loss to descend, and its parts.

    Attributes:
        total: (), weighted sum over scales.
        scales: One () loss a scale, before weighting.
    """

    total: Tensor
    scales: tuple[Tensor, ...]


def multi_scale_loss(
    output: RamsOutput,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    weights: Sequence[float] | None = None,
) -> MultiScaleLoss:
    """Sum over scales of the cross-entropy, weight 1 each unless given (https://arxiv.org/abs/2107.08192).

    Args:
        output: Of a model with S scales.
        labels: (B,) int64.
        label_smoothing: In [0, 1).
        weights: S weights; None: all 1.
    """
    losses = tuple(
        F.cross_entropy(scale.logits.float(), labels, label_smoothing=label_smoothing)
        for scale in output.scales
    )
    weights = weights or (1.0,) * len(losses)
    total = sum((weight * loss for weight, loss in zip(weights, losses, strict=True)), start=losses[0] * 0)
    return MultiScaleLoss(total, losses)
