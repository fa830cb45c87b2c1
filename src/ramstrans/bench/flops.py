"""Multiply-adds of a forward pass, counted by torch."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from ramstrans.models.attention import ExplicitAttention
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.boxes import whole_image
from ramstrans.models.methods.build import build_model


def count_macs(run: Callable[[], object]) -> int:
    """Multiply-adds of the matrix products and convolutions in a call: half of its FLOPs.

    The counter does not see fused attention on every device: compute it by matrix products as `macs_of` does.

    >>> count_macs(lambda: torch.zeros(2, 3) @ torch.zeros(3, 5))
    30
    """
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: _in_place_product})
    with torch.no_grad(), counter:
        run()
    return int(counter.get_total_flops()) // 2


def _in_place_product(_sum: Sequence[int], left: Sequence[int], right: Sequence[int], **_: object) -> int:
    """Return the FLOPs of `baddbmm_` from its shapes; torch's counter knows only `baddbmm`."""
    return 2 * math.prod(left) * right[-1]


def macs_of(config: ModelConfig, num_scales: int | None = None) -> int:
    """Multiply-adds per image of a model in evaluation: all scales, and what selects tokens or regions.

    With one scale, this is the plain backbone.

    Args:
        config: The model.
        num_scales: Use the first so many of its scales; None: all.
    """
    return macs_by_scale(config, num_scales)[-1]


def macs_by_scale(config: ModelConfig, num_scales: int | None = None) -> list[int]:
    """Multiply-adds per image until each of the scales has its prediction, ascending; the last is `macs_of`.

    An image that exits early has had the region of its last scale proposed, but not cut out.
    """
    images = torch.zeros(1, 3, *config.input_size)
    model = build_model(config).eval().requires_grad_(False)  # or the counter looks for gradients of views
    model.limit_scales(num_scales or model.num_scales)
    # regions are resized to the same size wherever they lie, and whatever they are cut from
    high_res = images if model.needs_high_res else None
    boxes = whole_image(images)
    forward_scale = functools.partial(model.forward_scale, explicit_attention=False)  # alike on all devices
    stages = model.stages(images, high_res, last_region=False, boxes=boxes, forward_scale=forward_scale)
    with ExplicitAttention():  # torch counts products, not fused kernels
        each = [count_macs(functools.partial(next, stages)) for _ in range(model.num_stages)]
    return list(itertools.accumulate(each))
