"""Early exit: images predicted with enough confidence skip the remaining scales."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ramstrans.errors import UsageError
from ramstrans.models.methods.base import HighRes, Stage
from ramstrans.models.methods.method import Method


class EarlyExitOutput(NamedTuple):
    """Predictions for B images that exited as soon as they were confident, in the order of the batch.

    Attributes:
        fused: (B, C) float32, mean of the probabilities of the scales that each image used.
        num_scales_used: (B,) int64, 1 to S.
        scales: One stage per scale that any image used, for the images that used it; boxes are in pixels of
            the input; the last of S scales does not propose a region.
        indices: One (B_s,) int64 per scale: indices of those images in the batch, ascending.
    """

    fused: Tensor
    num_scales_used: Tensor
    scales: tuple[Stage, ...]
    indices: tuple[Tensor, ...]


@torch.no_grad()
def exit_early(
    model: Method,
    images: Tensor,
    high_res: HighRes | None = None,
    *,
    confidence: float,
    boxes: Tensor | None = None,
    temperatures: Sequence[float] | None = None,
) -> EarlyExitOutput:
    """Compute scale by scale; after each one the confident images leave, and the batch closes up.

    Synchronises with the host once per scale.

    Args:
        model: In eval mode.
        images: (B, 3, H, W), as in `Method.forward`.
        high_res: As in `Method.forward`.
        boxes: As in `Method.forward`.
        confidence: Highest mean probability, above 0, at which an image exits; above 1 none does.
        temperatures: For the first 1, 2, ... S scales together: the confidence is one of mean probabilities
            at these temperatures, which `fused` is not; None: as they are.

    Raises:
        UsageError: The confidence is not above 0, `high_res` does not go with the model, or an image may have
            several labels.
    """
    check_confidence(confidence)
    check_one_label(model.multi_label)
    stages = model.stages(images, high_res, last_region=False, boxes=boxes)
    indices = torch.arange(len(images), device=images.device)
    num_scales_used = torch.zeros_like(indices)
    total = images.new_zeros((len(images), 1), dtype=torch.float32)  # over scales, of images still here
    fused = total
    scales: list[Stage] = []
    all_indices: list[Tensor] = []
    stage = next(stages)
    while True:
        scales.append(stage)
        all_indices.append(indices)
        total = total + stage.logits.float().softmax(dim=-1)
        fused = total if len(scales) == 1 else fused.index_copy(0, indices, total / len(scales))
        num_scales_used[indices] += 1
        if temperatures is None:
            is_unsure = total.amax(dim=1) < confidence * len(scales)
        else:
            is_unsure = _confidence(total / len(scales), temperatures[len(scales) - 1]) < confidence
        unsure = is_unsure.nonzero().squeeze(1)
        if stage.boxes is None or len(unsure) == 0:
            break
        indices, total = indices[unsure], total[unsure]
        stage = stages.send(unsure)
    return EarlyExitOutput(fused, num_scales_used, tuple(scales), tuple(all_indices))


def _confidence(mean: Tensor, temperature: float) -> Tensor:
    """(B,) highest probability at a temperature."""
    log_p = mean.clamp(min=torch.finfo(torch.float32).tiny).log()
    return (log_p / temperature).softmax(dim=1).amax(dim=1)


def check_confidence(confidence: float) -> None:
    """Raise UsageError unless a confidence can be reached."""
    if not confidence > 0:
        raise UsageError(f"the confidence of early exit is {confidence}; give more than 0, at most 1")


def check_given(confidence: float) -> None:
    """Raise UsageError unless a confidence that a user gave is a probability above 0."""
    check_confidence(confidence)
    if confidence > 1:
        raise UsageError(
            f"the confidence of early exit is {confidence}, which no image reaches; give at most 1"
        )


def check_one_label(multi_label: bool) -> None:
    """Raise UsageError if an image may have several labels, so that its answer has no single confidence."""
    if multi_label:
        raise UsageError(
            "early exit stops at a confident class, and images of this model may have several labels "
            "(multi_label); leave --early_exit out"
        )


def check_num_scales(num_scales: int) -> None:
    """Raise UsageError if there is no further scale to skip."""
    if num_scales == 1:
        raise UsageError("this model has one scale, so none can be skipped; leave --early_exit out")
