"""The contrastive loss of TransFG: pull class tokens of one class together, push others apart."""

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 0.4
"""alpha of the paper: below this cosine, images of two classes cost nothing."""


def contrastive_loss(class_tokens: Tensor, labels: Tensor, margin: float = MARGIN) -> Tensor:
    """L_con of TransFG (https://arxiv.org/abs/2103.07976).

    With sim the cosine of two images' class tokens, the mean over all B^2 ordered pairs of `1 - sim` for
    images of one class and `max(sim - margin, 0)` for images of two. An image is paired with itself too,
    which costs 0. Each process compares only images of its own share of the batch, so the loss does
    little if that share holds each class once.

    Args:
        class_tokens: (B, D), after the final LayerNorm.
        labels: (B,) int64.
        margin: alpha, in [-1, 1].

    Returns:
        () float32.

    >>> tokens = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    >>> contrastive_loss(tokens, torch.tensor([0, 0, 1]))  # (2 * 1 + 2 * 0.6 + 0) / 9
    tensor(0.3556)
    """
    with torch.autocast(class_tokens.device.type, enabled=False):
        directions = F.normalize(class_tokens.float(), dim=-1)
        cosines = directions @ directions.T
    same = labels[:, None] == labels
    return torch.where(same, 1 - cosines, (cosines - margin).clamp(min=0)).mean()
