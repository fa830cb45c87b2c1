"""The loss over all looks."""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramstrans.evaluation.evaluate import autocast
from ramstrans.model.rams import RamsTrans, ScaleOutput, whole_image
from ramstrans.training.recipe.contrastive import contrastive_loss
from ramstrans.training.recipe.mixing import Mixing, mix, partner_shares


class Look(nn.Module):
    """One look as a module of its own, so that wrappers for devices and precision go around each look.

    Args:
        model: Whose look it is.
        precision: Of autocast; None: what it is called in.
    """

    def __init__(self, model: RamsTrans, precision: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.precision = precision

    def forward(
        self, images: Tensor, scale: int, frame: Tensor, *, with_region: bool
    ) -> tuple[ScaleOutput, Tensor]:
        """See `RamsTrans.look_with_token`."""
        with nullcontext() if self.precision is None else autocast(images.device, self.precision):
            return self.model.look_with_token(images, scale, frame, with_region=with_region)


def losses_by_look(
    look: nn.Module,
    model: RamsTrans,
    images: Tensor,
    source: Tensor | None,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    mixing: Mixing | None = None,
    contrastive: float = 0.0,
) -> Iterator[Tensor]:
    """Cross-entropy of one scale after the other; their sum is the loss of https://arxiv.org/abs/2107.08192.

    No gradient flows from one look to another, so each loss may be descended as it comes, before the next
    look is taken: gradients add up to the sum's, and the activations of one look are held at a time.

    Args:
        look: A `Look` of `model`, perhaps wrapped.
        model: With S scales.
        images: (B, 3, H, W), normalised, not mixed.
        source: As in `RamsTrans.forward`, not mixed.
        labels: (B,) int64.
        label_smoothing: In [0, 1).
        mixing: How to mix this batch; each look's target follows from what it sees. None: not at all.
        contrastive: Weight of `contrastive_loss`, which each look adds; not with `mixing`, as a mixed image
            has no one class.

    Returns:
        An iterator over S () losses.
    """
    assert not (mixing and contrastive), "a mixed image has no one class to be contrasted by"
    if mixing is not None:
        images, source = mix(images, source, mixing)
    source = model.source_of(images, source)
    frame = whole_image(images)
    for scale in range(model.num_scales):
        output, class_token = look(images, scale, frame, with_region=scale < model.num_scales - 1)
        loss = cross_entropy(output.logits.float(), labels, frame, mixing, label_smoothing)
        yield loss + contrastive * contrastive_loss(class_token, labels) if contrastive else loss
        if output.boxes is not None:
            frame = output.boxes
            images = model.closer(source, frame, scale + 1)


def cross_entropy(
    logits: Tensor, labels: Tensor, frame: Tensor, mixing: Mixing | None, label_smoothing: float
) -> Tensor:
    """() cross-entropy of one look, of mixed images with the two classes that it sees.

    Cross-entropy is linear in its target, label smoothing or not, so the mixed target's is the mean of both
    classes' by their shares.

    Args:
        logits: (B, num_classes).
        labels: (B,) int64.
        frame: (B, 4), what this look sees, in pixels of the input.
        mixing: How the images were mixed.
        label_smoothing: In [0, 1).
    """
    if mixing is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    own, partners = (
        F.cross_entropy(logits, classes, label_smoothing=label_smoothing, reduction="none")
        for classes in (labels, labels[mixing.partners.to(labels.device)])
    )
    return torch.lerp(own, partners, partner_shares(mixing, frame)).mean()
