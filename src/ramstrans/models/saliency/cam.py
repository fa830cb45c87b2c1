"""Class activation map of the highest logit (https://arxiv.org/abs/1512.04150).

Where the head is average pooling and a linear layer, the logit of class c is
`b_c + sum_i w_c · f_i / n` over n locations: each location's summand is its part in it.
"""

import torch
from torch import Tensor, nn

from ramstrans.models.encoder import Encoder, Features
from ramstrans.models.saliency.base import Rows, Saliency


@torch.no_grad()
def class_map(features: Features, encoder: Encoder, classes: Tensor | None = None) -> Tensor:
    """(B, h, w) float32 parts of a logit by location: their sum plus the bias is the logit.

    Args:
        features: Of B images.
        encoder: Whose head is average pooling and a linear layer.
        classes: (B,) int64; None: the one with the highest logit.
    """
    head = encoder.get_classifier()
    assert isinstance(head, nn.Linear | nn.Conv2d), "a linear head"
    with torch.autocast(features.pooled.device.type, enabled=False):
        if classes is None:
            classes = encoder.forward_head(features.pooled.to(head.weight.dtype)).argmax(dim=1)
        weights = head.weight.flatten(1)[classes].float()
        parts = (features.locations.float() @ weights[:, :, None]).squeeze(2) / features.locations.shape[1]
    return parts.reshape(-1, *features.grid)


def _saliency(features: Features, encoder: Encoder, _rows: Rows) -> Tensor:
    return class_map(features, encoder).clamp(min=0)


def _unfit(encoder: Encoder, _rows: Rows) -> str | None:
    if encoder.sums_locations:
        return None
    return "its head is not average pooling and a linear layer, so that the map would not be exact"


SALIENCY = Saliency(_saliency, _unfit)
