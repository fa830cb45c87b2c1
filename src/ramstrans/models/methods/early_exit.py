"""Spend further looks only where they pay: images whose answer is sure enough leave after a look."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ramstrans.errors import ConfigError, UsageError
from ramstrans.models.methods.base import Stage
from ramstrans.models.methods.rams import RamsTrans


@dataclass(frozen=True)
class EarlyExit:
    """When an image needs no further look, and what that was found to cost; travels with the model.

    Attributes:
        confidence: An image leaves once its highest probability, mean over its looks, is at least this.
        chosen_on: Split on which it was chosen.
        num_images: Number of its images.
        top1_lost: Percentage points of top-1 that leaving early cost there; negative: it gained.
        mean_scales_used: Mean number of looks that an image took there.
    """

    confidence: float
    chosen_on: str
    num_images: int
    top1_lost: float
    mean_scales_used: float

    def __post_init__(self) -> None:
        check_confidence(self.confidence, ConfigError)


class EarlyExitOutput(NamedTuple):
    """What B images said that left as soon as they were sure; the order of the batch is kept.

    Attributes:
        fused: (B, C) float32, mean of the probabilities of the looks that each image took.
        num_scales_used: (B,) int64, 1 to S.
        scales: One a look that any image took: its output for the images that took it, boxes in the frame
            of the input; the last of S looks proposes no region.
        indices: One (B_s,) int64 per scale: indices of those images in the batch, ascending.
    """

    fused: Tensor
    num_scales_used: Tensor
    scales: tuple[Stage, ...]
    indices: tuple[Tensor, ...]


@torch.no_grad()
def exit_early(
    model: RamsTrans, images: Tensor, high_res: Tensor | None = None, *, confidence: float
) -> EarlyExitOutput:
    """Look until sure: after each look the images that are sure leave, and the batch closes up.

    How many images are left is looked at on the host after each look.

    Args:
        model: In eval mode.
        images: (B, 3, H, W), as `RamsTrans.forward` takes them.
        high_res: Likewise.
        confidence: Highest mean probability, above 0, at which an image leaves; above 1 none does.

    Raises:
        UsageError: The confidence is not above 0, or `high_res` does not go with the model.
    """
    check_confidence(confidence, UsageError)
    stages = model.stages(images, high_res, last_region=False)
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
        unsure = (total.amax(dim=1) < confidence * len(scales)).nonzero().squeeze(1)
        if stage.boxes is None or len(unsure) == 0:
            break
        indices, total = indices[unsure], total[unsure]
        stage = stages.send(unsure)
    return EarlyExitOutput(fused, num_scales_used, tuple(scales), tuple(all_indices))


def check_confidence(confidence: float, error: type[UsageError]) -> None:
    """Raise unless a confidence can be met."""
    if not confidence > 0:
        raise error(f"the confidence of early exit is {confidence}; give more than 0, at most 1")


def check_num_scales(num_scales: int) -> None:
    """Raise UsageError where there is no further look to be spared."""
    if num_scales == 1:
        raise UsageError("this model looks once, so nothing can be spared; leave --early_exit out")
