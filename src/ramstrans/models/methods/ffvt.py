"""FFVT, feature fusion ViT (https://arxiv.org/abs/2107.02341), after its paper's description.

With a_ij the attention score of token i as query and token j as key in one layer, and 0 the class token:

    a'_0i = exp(a_0i) / sum_j exp(a_0j)         what the class token gives to token i
    b'_i0 = exp(a_i0) / sum_j exp(a_j0)         what token i gives to the class token, among all tokens
    ma_i = a'_0i b'_i0                          mutual attention weight: the K largest are selected
    z_ff = [z^0_{L-1}; z_1^local; ...; z_{L-1}^local]   input of the last layer, z_l^local: K tokens of z_l

The loss is the cross-entropy. Not checked against the paper's text: that K is 12, the mean over heads (here
of ma), and whether the tokens are a layer's output (here so).
"""

import torch
from torch import Tensor

from ramstrans.models.attention import AttentionCall
from ramstrans.models.methods.tokens import TokenSelection, gather_tokens, largest

NUM_TOKENS = 12
"""K of the paper."""


@torch.no_grad()
def mutual_attention(call: AttentionCall) -> Tensor:
    """(B, N) float32 mutual attention weights of the class token and each token, averaged over heads.

    Only one row and one column of the scores are formed.

    >>> query, key = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1)
    >>> mutual_attention(AttentionCall(query, key, 1.0))  # both softmaxes of two equal scores
    tensor([[0.2500, 0.2500]])
    """
    query, key, scale, _bias = call
    with torch.autocast(query.device.type, enabled=False):
        query = query.float() * scale
        given = query[:, :, :1] @ key.float().transpose(-2, -1)
        received = query @ key[:, :, :1].float().transpose(-2, -1)
        weights = given.squeeze(2).softmax(dim=-1) * received.squeeze(3).softmax(dim=-1)
    return weights.mean(dim=1)


class FeatureFusion(TokenSelection):
    """In each layer but the last, tokens with the largest mutual attention are kept; the last layer sees all.

    Its saliency is the mean over layers of the weights that the selection is made by.
    """

    own_saliency = "mutual_attention"

    @property
    def num_selected(self) -> int:
        """K, the number of tokens that each layer keeps, if there are as many patches."""
        return self.num_tokens or NUM_TOKENS

    def describe(self) -> list[str]:
        """See `Method.describe`."""
        tokens = f"{self.num_selected} tokens of each of {self.num_recorded} layers"
        return [*super().describe(), f"the last layer sees {tokens}, by mutual attention"]

    def after_layer(self, tokens: Tensor, call: AttentionCall) -> tuple[Tensor, Tensor]:
        """See `TokenSelection.after_layer`: the selected tokens, and all weights."""
        weights = mutual_attention(call)[:, self.num_prefix :]
        return gather_tokens(tokens, largest(weights, self.num_selected) + self.num_prefix), weights

    def select(self, tokens: Tensor, kept: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """See `TokenSelection.select`."""
        chosen = [selected for selected, _ in kept]
        saliency = torch.stack([weights for _, weights in kept]).mean(dim=0)
        return torch.cat([tokens[:, : self.num_prefix], *chosen], dim=1), saliency
