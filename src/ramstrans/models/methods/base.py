"""What every recognition method gives, and how its scales follow each other."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

HighRes = Tensor | Sequence[Tensor]
"""What regions of B images are cut from: (B, 3, H, W), or B tensors (3, H_i, W_i) uint8 of any sizes."""


class Stage(NamedTuple):
    """One scale of a forward pass.

    Attributes:
        logits: (B, num_classes).
        feature: (B, D), the pooled feature that the logits are computed from.
        crop_box: (B, 4) float32, what this scale saw, half-open `(x0, y0, x1, y1)` in pixels of the input.
        saliency: (h, w) per image, (B, h, w) float32, non-negative, over the patches of what this scale saw.
            None for the last scale in training, and where it was not asked for.
        boxes: (B, 4) float32, the region proposed for the next scale, half-open `(x0, y0, x1, y1)` in
            pixels of the input, whatever the scale. None where `saliency` is None.
        has_region: (B,) bool, False where nothing stood out and the box is all that this scale saw.
            None where `saliency` is None.
    """

    logits: Tensor
    feature: Tensor
    crop_box: Tensor
    saliency: Tensor | None
    boxes: Tensor | None
    has_region: Tensor | None


def to_probabilities(logits: Tensor, *, multi_label: bool = False) -> Tensor:
    """(B, num_classes) float32 of logits: a softmax over the classes, or a sigmoid for each.

    >>> to_probabilities(torch.tensor([[0.0, 0.0]])), to_probabilities(torch.zeros(1, 2), multi_label=True)
    (tensor([[0.5000, 0.5000]]), tensor([[0.5000, 0.5000]]))
    """
    logits = logits.float()
    return logits.sigmoid() if multi_label else logits.softmax(dim=-1)


class Output(NamedTuple):
    """All scales of a forward pass, first scale first.

    Attributes:
        scales: One stage per scale.
        multi_label: Whether an image may have several classes, so that probabilities do not sum to 1.
    """

    scales: tuple[Stage, ...]
    multi_label: bool = False

    @property
    def probabilities(self) -> Tensor:
        """(S, B, num_classes) float32, softmax of each scale's logits; sigmoid with `multi_label`."""
        return torch.stack(
            [to_probabilities(scale.logits, multi_label=self.multi_label) for scale in self.scales]
        )

    @property
    def fused(self) -> Tensor:
        """(B, num_classes) float32, mean of the scales' probabilities."""
        return self.probabilities.mean(dim=0)


class ForwardScale(Protocol):
    """Compute one scale: the model's own `forward_scale`, or a wrapper around it."""

    def __call__(
        self,
        images: Tensor,
        scale: int,
        crop_box: Tensor,
        *,
        with_region: bool,
        **more: Any,  # noqa: ANN401 - by method
    ) -> Stage:
        """See `Method.forward_scale`."""


Stages = Generator[Stage, Tensor | None, None]
"""Yields one Stage per scale; may be sent the indices (K,) of the images that go on to the next scale."""
