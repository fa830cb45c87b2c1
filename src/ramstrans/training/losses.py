"""The loss over all looks."""

from collections.abc import Iterator
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ramstrans.model.rams import RamsTrans, ScaleOutput, whole_image


class MultiScaleLoss(NamedTuple):
    """The loss that is descended, and its parts.

    Attributes:
        total: (), weighted sum over scales.
        scales: One () loss a scale, before weighting.
    """

    total: Tensor
    scales: tuple[Tensor, ...]


class Look(nn.Module):
    """One look as a module of its own, so that wrappers for devices and precision go around each look.

    Args:
        model: Whose look it is.
    """

    def __init__(self, model: RamsTrans) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, scale: int, frame: Tensor, *, with_region: bool) -> ScaleOutput:
        """See `RamsTrans.look`."""
        return self.model.look(images, scale, frame, with_region=with_region)


def losses_by_look(
    look: nn.Module,
    model: RamsTrans,
    images: Tensor,
    source: Tensor | None,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
) -> Iterator[Tensor]:
    """Cross-entropy of one scale after the other; their sum is the loss of https://arxiv.org/abs/2107.08192.

    No gradient flows from one look to another, so each loss may be descended as it comes, before the next
    look is taken: gradients add up to the sum's, and the activations of one look are held at a time.

    Args:
        look: A `Look` of `model`, perhaps wrapped.
        model: With S scales.
        images: (B, 3, H, W), normalised.
        source: As in `RamsTrans.forward`.
        labels: (B,) int64.
        label_smoothing: In [0, 1).

    Returns:
        An iterator over S () losses.
    """
    source = model.source_of(images, source)
    frame = whole_image(images)
    for scale in range(model.num_scales):
        output: ScaleOutput = look(images, scale, frame, with_region=scale < model.num_scales - 1)
        yield F.cross_entropy(output.logits.float(), labels, label_smoothing=label_smoothing)
        if output.boxes is not None:
            frame = output.boxes
            images = model.closer(source, frame, scale + 1)
