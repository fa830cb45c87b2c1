"""Spend further looks only where they pay: images whose answer is sure enough leave after a look."""

from typing import NamedTuple

import torch
from torch import Tensor

from ramstrans.errors import UsageError
from ramstrans.models.methods.rams import RamsTrans, ScaleOutput, whole_image


class EarlyExitOutput(NamedTuple):
    """What B images said that left as soon as they were sure; the order of the batch is kept.

    Attributes:
        fused: (B, C) float32, mean of the probabilities of the looks that each image took.
        num_scales_used: (B,) int64, 1 to S.
        scales: One a look that any image took: its output for the images that took it, boxes in the frame
            of the input; the last of S looks proposes no region.
        places: One (B_s,) int64 a scale: places of those images in the batch, ascending.
    """

    fused: Tensor
    num_scales_used: Tensor
    scales: tuple[ScaleOutput, ...]
    places: tuple[Tensor, ...]


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
    high_res = model.zoom_image(images, high_res)
    crop_box, places = whole_image(images), torch.arange(len(images), device=images.device)
    num_scales_used = torch.zeros_like(places)
    total = images.new_zeros((len(images), 1), dtype=torch.float32)  # sum over looks, of images still here
    fused = total
    scales: list[ScaleOutput] = []
    all_places: list[Tensor] = []
    for scale in range(model.num_scales):
        is_last = scale == model.num_scales - 1
        output = model.look(images, scale, crop_box, with_region=not is_last)
        scales.append(output)
        all_places.append(places)
        total = total + output.logits.float().softmax(dim=-1)
        fused = total if scale == 0 else fused.index_copy(0, places, total / (scale + 1))
        num_scales_used[places] += 1
        if output.boxes is None:
            break
        unsure = (total.amax(dim=1) < confidence * (scale + 1)).nonzero().squeeze(1)
        if len(unsure) == 0:
            break
        places, total, high_res, crop_box = (
            places[unsure],
            total[unsure],
            high_res[unsure],
            output.boxes[unsure],
        )
        images = model.crop_regions(high_res, crop_box, scale + 1)
    return EarlyExitOutput(fused, num_scales_used, tuple(scales), tuple(all_places))


def check_confidence(confidence: float, error: type[UsageError]) -> None:
    """Raise unless a confidence can be met."""
    if not confidence > 0:
        raise error(f"the confidence of early exit is {confidence}; give more than 0, at most 1")


def check_num_scales(num_scales: int) -> None:
    """Raise UsageError where there is no further look to be spared."""
    if num_scales == 1:
        raise UsageError("this model looks once, so nothing can be spared; leave --early_exit out")
