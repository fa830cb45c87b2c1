"""The loss over all looks."""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramstrans.evaluation.predict import autocast
from ramstrans.models.methods.rams import RamsTrans, ScaleOutput, whole_image
from ramstrans.training.contrastive import contrastive_loss
from ramstrans.training.mixing import Mixing, mix, partner_shares


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
        self, images: Tensor, scale: int, crop_box: Tensor, *, with_region: bool
    ) -> tuple[ScaleOutput, Tensor]:
        """See `RamsTrans.look_with_token`."""
        with nullcontext() if self.precision is None else autocast(images.device, self.precision):
            return self.model.look_with_token(images, scale, crop_box, with_region=with_region)


def losses_by_scale(
    look: nn.Module,
    model: RamsTrans,
    images: Tensor,
    high_res: Tensor | None,
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
        high_res: As in `RamsTrans.forward`, not mixed.
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
        images, high_res = mix(images, high_res, mixing)
    high_res = model.zoom_image(images, high_res)
    crop_box = whole_image(images)
    for scale in range(model.num_scales):
        output, class_token = look(images, scale, crop_box, with_region=scale < model.num_scales - 1)
        loss = cross_entropy(output.logits.float(), labels, crop_box, mixing, label_smoothing)
        yield loss + contrastive * contrastive_loss(class_token, labels) if contrastive else loss
        if output.boxes is not None:
            crop_box = output.boxes
            images = model.crop_regions(high_res, crop_box, scale + 1)


def cross_entropy(
    logits: Tensor, labels: Tensor, crop_box: Tensor, mixing: Mixing | None, label_smoothing: float
) -> Tensor:
    """() cross-entropy of one look, of mixed images with the two classes that it sees.

    Cross-entropy is linear in its target, label smoothing or not, so the mixed target's is the mean of both
    classes' by their shares.

    Args:
        logits: (B, num_classes).
        labels: (B,) int64.
        crop_box: (B, 4), what this look sees, in pixels of the input.
        mixing: How the images were mixed.
        label_smoothing: In [0, 1).
    """
    if mixing is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    own, partners = (
        F.cross_entropy(logits, classes, label_smoothing=label_smoothing, reduction="none")
        for classes in (labels, labels[mixing.partners.to(labels.device)])
    )
    return torch.lerp(own, partners, partner_shares(mixing, crop_box)).mean()
