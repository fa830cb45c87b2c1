"""The class token's attention to each patch in the last layer, averaged over heads."""

import torch
from torch import Tensor

from ramstrans.models.attention import AttentionCall
from ramstrans.models.encoder import Encoder, Features, reads_class_token
from ramstrans.models.saliency.base import Rows, Saliency


@torch.no_grad()
def attention_row(call: AttentionCall | Tensor, index: int) -> Tensor:
    """(B, N) float32 head mean of one query's attention weights, or of (B, M, N) means; sums to 1.

    >>> attention_row(AttentionCall(torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 4, 3), 1.0), 0)
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    if isinstance(call, Tensor):
        return call[:, index]
    with torch.autocast(call.query.device.type, enabled=False):
        row = call.query[:, :, index : index + 1] * call.scale
        scores = row @ call.key.transpose(-2, -1)
        if call.bias is not None:
            rows = call.bias.expand(*call.bias.shape[:2], call.query.shape[-2], call.key.shape[-2])
            scores = scores + rows[:, :, index : index + 1]
        return scores.softmax(dim=-1, dtype=torch.float32).mean(dim=1).squeeze(1)


def _saliency(features: Features, _encoder: Encoder, _rows: Rows) -> Tensor:
    row = attention_row(features.attention[-1], features.class_index or 0)
    return row[:, features.num_prefix :].reshape(-1, *features.grid)


def _unfit(encoder: Encoder, _rows: Rows) -> str | None:
    if not encoder.anatomy.num_layers:
        return "its last layer is not attention among all tokens"
    return None if reads_class_token(encoder.model) else "it is not read at a class token"


SALIENCY = Saliency(_saliency, _unfit, uses="last layer")
