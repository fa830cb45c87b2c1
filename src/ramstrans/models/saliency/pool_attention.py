"""Rollout that begins at the weights of the query that pools the tokens, as SigLIP's head has one."""

import torch
from torch import Tensor

from ramstrans.models.encoder import Encoder, Features
from ramstrans.models.saliency.base import Rows, Saliency
from ramstrans.models.saliency.class_attention import attention_row
from ramstrans.models.saliency.rollout import rollout_of


def _saliency(features: Features, _encoder: Encoder, _rows: Rows) -> Tensor:
    assert features.pool_attention is not None, "a model that pools by attention"
    start = attention_row(features.pool_attention, 0)
    num_unread = features.num_prefix + features.grid[0] * features.grid[1] - start.shape[1]
    unread = start.new_zeros(start.shape[0], num_unread)  # prefix tokens that are not pooled
    return rollout_of(features, start=torch.cat([unread, start], dim=1))


def _unfit(encoder: Encoder, _rows: Rows) -> str | None:
    if not encoder.anatomy.pools_by_attention:
        return "no query pools its tokens"
    return None if encoder.anatomy.num_layers else "its layers are not all attention among all tokens"


SALIENCY = Saliency(_saliency, _unfit, uses="all layers")
