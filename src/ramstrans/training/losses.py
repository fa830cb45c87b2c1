"""The loss, scale by scale."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramstrans.distributed import autocast
from ramstrans.models.methods.base import ForwardScale, HighRes, Output, Stage
from ramstrans.models.methods.method import Method
from ramstrans.training.contrastive import contrastive_loss
from ramstrans.training.mixing import Mixing, mix, partner_shares

LossName = Literal["bce", "asymmetric"]
"""Losses of images that may have several labels."""

FOCUS_PRESENT, FOCUS_ABSENT, MARGIN = 0.0, 4.0, 0.05
"""g+, g- and m of the asymmetric loss."""


class ScaleForward(nn.Module):
    """One scale as a module of its own, so that wrappers for devices and precision go around each scale.

    Args:
        model: The model.
        precision: Of autocast; None: the caller's.
        explicit_attention: Whether attention is computed by matrix products.
    """

    def __init__(
        self, model: Method, precision: str | None = None, *, explicit_attention: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        self.explicit_attention = explicit_attention

    def forward(
        self,
        images: Tensor,
        scale: int,
        crop_box: Tensor,
        *,
        with_region: bool,
        **more: Any,  # noqa: ANN401 - by method
    ) -> Stage:
        """See `Method.forward_scale`."""
        precision: AbstractContextManager[object] = nullcontext()
        if self.precision is not None:
            precision = autocast(images.device, self.precision)
        with precision:
            return self.model.forward_scale(
                images,
                scale,
                crop_box,
                with_region=with_region,
                explicit_attention=self.explicit_attention,
                **more,
            )


def losses_by_scale(
    forward_scale: ForwardScale,
    model: Method,
    images: Tensor,
    high_res: HighRes | None,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    mixing: Mixing | None = None,
    contrastive: float = 0.0,
    class_weights: Tensor | None = None,
    boxes: Tensor | None = None,
    fused_target: float = 0.0,
    loss_name: LossName = "bce",
) -> Iterator[Tensor]:
    """Yield the cross-entropy of each scale; their sum is the loss of https://arxiv.org/abs/2107.08192.

    No gradient flows from one scale to another, so each loss may be descended as it comes, before the next
    scale is computed: gradients add up to the sum's, and the activations of one scale are held at a time.

    Args:
        forward_scale: A `ScaleForward` of `model`, perhaps wrapped.
        model: With S scales.
        images: (B, 3, H, W), normalised, not mixed.
        high_res: As in `Method.forward`, not mixed.
        labels: (B,) int64, for cross-entropy; or (B, num_classes) float32, for `multi_label_loss`.
        label_smoothing: In [0, 1).
        mixing: How to mix this batch; each scale's target follows from what it sees. None: not at all.
        contrastive: Weight of `contrastive_loss`, added for each scale; not with `mixing`, as a mixed image
            does not have one class.
        class_weights: (num_classes,) float32, see `cross_entropy` and `multi_label_loss`.
        boxes: As in `Method.forward`.
        fused_target: w in [0, 1): a scale's loss is (1 - w) times its cross-entropy with the label, and w
            times that with the mean of all scales' probabilities, which a pass without gradients gives first.
        loss_name: See `multi_label_loss`.

    Returns:
        An iterator over S () losses.
    """
    assert not (mixing and contrastive), "a mixed image does not have one class"
    if mixing is not None:
        assert high_res is None or isinstance(high_res, Tensor), "checked by RunConfig"
        images, high_res = mix(images, high_res, mixing)
    how: dict[str, Any] = {"last_region": False, "boxes": boxes, "forward_scale": forward_scale}
    target = None
    if fused_target:
        with torch.no_grad():
            target = Output(tuple(model.stages(images, high_res, **how))).fused
    for stage in model.stages(images, high_res, **how):
        logits = stage.logits.float()
        if labels.dim() == 2:
            targets = mixed_targets(labels, stage.crop_box, mixing)
            yield multi_label_loss(
                logits, targets, loss_name, label_smoothing=label_smoothing, positive_weights=class_weights
            )
            continue
        loss = cross_entropy(logits, labels, stage.crop_box, mixing, label_smoothing, class_weights)
        if target is not None:
            soft = F.cross_entropy(logits, target, reduction="none")
            weighted = soft if class_weights is None else soft * class_weights[labels]
            loss = torch.lerp(loss, weighted.mean(), fused_target)
        yield loss + contrastive * contrastive_loss(stage.feature, labels) if contrastive else loss


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    crop_box: Tensor,
    mixing: Mixing | None,
    label_smoothing: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """() cross-entropy of one scale; of mixed images with the two classes that it sees.

    Cross-entropy is linear in its target, label smoothing or not, so the mixed target's is the mean of both
    classes' by their shares.

    Args:
        logits: (B, num_classes).
        labels: (B,) int64.
        crop_box: (B, 4), what this scale sees, in pixels of the input.
        mixing: How the images were mixed.
        label_smoothing: In [0, 1).
        class_weights: (num_classes,) float32, factor on the cross-entropy of each image by its class; None:
            1. The mean is over images, not over weights, so that parts of a batch add up to the whole.
    """
    if mixing is None and class_weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    def by_image(classes: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, classes, label_smoothing=label_smoothing, reduction="none")
        return losses if class_weights is None else losses * class_weights[classes]

    if mixing is None:
        return by_image(labels).mean()
    own, partners = by_image(labels), by_image(labels[mixing.partners.to(labels.device)])
    return torch.lerp(own, partners, partner_shares(mixing, crop_box)).mean()


def mixed_targets(targets: Tensor, crop_box: Tensor, mixing: Mixing | None) -> Tensor:
    """(B, num_classes) targets of one scale: the mean of both images' by their shares of what it sees.

    Args:
        targets: (B, num_classes) float32.
        crop_box: (B, 4), what this scale sees, in pixels of the input.
        mixing: How the images were mixed; None: not at all.
    """
    if mixing is None:
        return targets
    partners = targets[mixing.partners.to(targets.device)]
    return torch.lerp(targets, partners, partner_shares(mixing, crop_box)[:, None])


def multi_label_loss(
    logits: Tensor,
    targets: Tensor,
    name: LossName = "bce",
    *,
    label_smoothing: float = 0.0,
    positive_weights: Tensor | None = None,
) -> Tensor:
    """() loss of images that may have several labels: the sum over the labels, the mean over the images.

    With the probability p = sigmoid(logit) of a label, its target y in [0, 1] and its weight w:

        bce:         -w y log(p) - (1 - y) log(1 - p)
        asymmetric:  -w y (1 - p)^g+ log(p) - (1 - y) q^g- log(1 - q),  q = max(p - m, 0)

    The second is Eq. 4 to 7 of https://arxiv.org/abs/2009.14119 with g+ = 0, g- = 4 and m = 0.05, as there:
    labels that an image has not count the less the surer the model is, and not at all below m. No mean is
    taken over the labels: most of them are absent and cost little, so that the loss of an image stays of the
    size of a cross-entropy, whatever their number, and learning rates carry over.

    Args:
        logits: (B, num_classes) float32.
        targets: (B, num_classes) float32.
        name: `bce` or `asymmetric`.
        label_smoothing: e in [0, 1): targets become (1 - e) y + e / 2.
        positive_weights: (num_classes,) float32, w; None: 1.

    >>> round(float(multi_label_loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))), 4)  # 3 ln 2
    2.0794
    """
    targets = (1 - label_smoothing) * targets + label_smoothing / 2
    if name == "bce":
        losses = F.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=positive_weights, reduction="none"
        )
        return losses.sum(dim=1).mean()
    probabilities = logits.sigmoid()
    shifted = (probabilities - MARGIN).clamp(min=0)
    present = targets * (1 - probabilities) ** FOCUS_PRESENT * F.logsigmoid(logits)
    absent = (1 - targets) * shifted**FOCUS_ABSENT * torch.log1p(-shifted)
    if positive_weights is not None:
        present = present * positive_weights
    return -(present + absent).sum(dim=1).mean()


def positive_weights(labels: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    """(num_classes,) float32, (N - n) / n for a label that n of the N images have; at least 1 / n.

    Weighted so, the images that have a label count as much as those that do not.

    Args:
        labels: Those of each image; each label is there once at least.
        num_classes: Number of labels of the model.

    >>> positive_weights([(0, 1), (1,), (1,), ()], 2)
    tensor([3.0000, 0.3333])
    """
    counts = torch.bincount(torch.tensor([label for some in labels for label in some]), minlength=num_classes)
    return (len(labels) - counts).clamp(min=1) / counts


def balanced_class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """(num_classes,) float32, N / (K * n) for a class with n of the N images, if K classes have any; else 0.

    Weighted so, every class that has images counts as much as any other, and the mean weight over the
    images is 1.

    Args:
        labels: (N,) int64, the classes of the training images.
        num_classes: Number of classes of the model.

    >>> balanced_class_weights(torch.tensor([0, 0, 0, 2]), 3)
    tensor([0.6667, 0.0000, 2.0000])
    """
    counts = torch.bincount(labels, minlength=num_classes)
    weights = len(labels) / (counts.count_nonzero() * counts)
    return torch.where(counts > 0, weights, 0.0)
