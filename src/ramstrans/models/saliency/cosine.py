"""Cosine of the pooled vector and the features of each location (GLSim, https://arxiv.org/abs/2407.12891)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ramstrans.models.encoder import Encoder, Features
from ramstrans.models.saliency.base import Rows, Saliency


@torch.no_grad()
def cosine_map(pooled: Tensor, locations: Tensor) -> Tensor:
    """(B, n) float32 cosines, in [-1, 1].

    Args:
        pooled: (B, D).
        locations: (B, n, C). Where C is not D, their mean takes the place of `pooled`, of another space.

    >>> cosine_map(torch.tensor([[2.0, 0.0]]), torch.tensor([[[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]]))
    tensor([[ 1.,  0., -1.]])
    """
    locations = locations.float()
    whole = pooled.float() if pooled.shape[-1] == locations.shape[-1] else locations.mean(dim=1)
    return F.cosine_similarity(whole[:, None], locations, dim=-1)


def _saliency(features: Features, _encoder: Encoder, _rows: Rows) -> Tensor:
    """The cosines above an image's lowest one: those of a CNN, after its ReLU, differ by little."""
    cosines = cosine_map(features.pooled, features.locations)
    return (cosines - cosines.amin(dim=1, keepdim=True)).reshape(-1, *features.grid)


SALIENCY = Saliency(_saliency, lambda _encoder, _rows: None)
