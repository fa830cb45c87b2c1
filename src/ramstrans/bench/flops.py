"""Work of a forward pass, counted: multiply-adds of all matrix products and convolutions."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from ramstrans.models.config import ModelConfig
from ramstrans.models.encoder import build_vit
from ramstrans.models.methods.rams import build_model


class Macs(NamedTuple):
    """Multiply-adds for one image.

    Attributes:
        plain: Of one pass of the plain ViT.
        ours: Of all looks, with the regions between them, rollout included.
    """

    plain: int
    ours: int


def _in_place_product(_sum: Sequence[int], left: Sequence[int], right: Sequence[int], **_: object) -> int:
    """FLOPs of `baddbmm_`, from shapes; torch's counter knows `baddbmm` alone."""
    return 2 * math.prod(left) * right[-1]


def count_macs(run: Callable[[], object]) -> int:
    """Multiply-adds of the matrix products and convolutions in a call; half of its FLOPs.

    Fused attention is not seen on every device: count with matrix products instead, as `macs_of` does.

    >>> count_macs(lambda: torch.zeros(2, 3) @ torch.zeros(3, 5))
    30
    """
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: _in_place_product})
    with torch.no_grad(), counter:
        run()
    return int(counter.get_total_flops()) // 2


def macs_of(config: ModelConfig) -> Macs:
    """Multiply-adds for one image of the model that a config describes, and of its plain ViT.

    With attention by matrix products, so that all of them are seen; the last look proposes no region.
    """
    height, width = config.input_size
    images = torch.zeros(1, 3, height, width)
    high_res = images if config.needs_high_res else None  # its size is free
    model = build_model(config).eval()
    model.backbone.use_fused_attention(False)
    vit = build_vit(config).eval()
    for block in vit.blocks:
        block.attn.fused_attn = False
    return Macs(
        count_macs(functools.partial(vit, images)),
        count_macs(functools.partial(model, images, high_res, last_region=False)),
    )
