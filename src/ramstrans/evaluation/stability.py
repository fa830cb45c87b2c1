"""Whether regions stay on their object when the image is mirrored, or moves by a little.

The regions of the changed image are put back into the frame of the original, and compared with those of the
original by their intersection over union.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ramstrans.distributed import autocast
from ramstrans.evaluation.localization import paired_iou
from ramstrans.evaluation.perturbation import (
    Shift,
    all_shifted,
    common_window,
    shifted,
    shifted_back,
    shifted_boxes,
)
from ramstrans.models.methods.base import HighRes, Output
from ramstrans.models.methods.method import Method

STEP = 0.04
"""How far an image moves, as a share of its side: 9 pixels of 224, about half a patch of 16."""


class Stability(NamedTuple):
    """How regions and answers of B images change with the image.

    Attributes:
        mirror_iou: (R, B) of each scale's region and that of the mirrored image, in [0, 1].
        shift_iou: (R, B) the same of images that are moved, mean over four directions, within what both show.
        mirror_same: (B,) bool: whether the fused answer is the same for the mirrored image.
        shift_same: (B,) in [0, 1]: in how many of the four directions it is.
    """

    mirror_iou: np.ndarray
    shift_iou: np.ndarray
    mirror_same: np.ndarray
    shift_same: np.ndarray


class Inputs(NamedTuple):
    """What a model takes; see `Method.forward`."""

    images: Tensor
    high_res: HighRes | None
    boxes: Tensor | None


def outputs_of(model: Method, inputs: Inputs, precision: str) -> Output:
    """All scales of a batch; one that looks once proposes a region all the same."""
    images, high_res, boxes = inputs
    with autocast(model.device, precision):
        output: Output = model(images, high_res, last_region=model.num_scales == 1, boxes=boxes)
    return output


def regions_of(output: Output) -> Tensor:
    """(R, B, 4) regions of the scales that have some, in pixels of the input."""
    return torch.stack([stage.boxes for stage in output.scales if stage.boxes is not None])


def small_shifts(size: tuple[int, int]) -> tuple[Shift, ...]:
    """To the right, to the left, down and up, by `STEP` and at least a pixel.

    >>> small_shifts((224, 448))[0], small_shifts((224, 448))[3]
    (Shift(right=18, down=0, mirrored=False), Shift(right=0, down=-9, mirrored=False))
    """
    down, right = (max(round(STEP * side), 1) for side in size)
    return Shift(right=right), Shift(right=-right), Shift(down=down), Shift(down=-down)


@torch.no_grad()
def stability(model: Method, inputs: Inputs, output: Output, precision: str) -> Stability:
    """Look at changed images, and compare; `output` is that of the images as they are."""
    mirror_iou, mirror_same = _compared(model, inputs, output, Shift(mirrored=True), precision)
    shifts = [_compared(model, inputs, output, shift, precision) for shift in small_shifts(model.image_size)]
    return Stability(
        mirror_iou,
        np.mean([ious for ious, _ in shifts], axis=0),
        mirror_same,
        np.mean([same for _, same in shifts], axis=0),
    )


def _compared(
    model: Method, inputs: Inputs, output: Output, shift: Shift, precision: str
) -> tuple[np.ndarray, np.ndarray]:
    """(R, B) IoU of the regions of a batch and of its shifted images; (B,) whether the answer is the same."""
    images, high_res, boxes = inputs
    size = model.image_size
    changed = Inputs(
        shifted(images, shift, size),
        all_shifted(high_res, shift, size),
        None if boxes is None else shifted_boxes(boxes, shift, size[1]),
    )
    other = outputs_of(model, changed, precision)
    x0, y0, x1, y1 = common_window(shift, size)
    low, high = np.array([x0, y0, x0, y0]), np.array([x1, y1, x1, y1])
    ious = [
        paired_iou(
            np.clip(one.cpu().double().numpy(), low, high),
            np.clip(shifted_back(two, shift, size[1]).cpu().double().numpy(), low, high),
        )
        for one, two in zip(regions_of(output), regions_of(other), strict=True)
    ]
    same = output.fused.argmax(dim=1) == other.fused.argmax(dim=1)
    return np.stack(ious), same.cpu().numpy()
