"""TransFG (https://arxiv.org/abs/2103.07976), after its paper's description.

    z_l = layer_l(z_{l-1}), l = 1 ... L-1               of overlapping patches, stride 12 (Eq. 1)
    a_final = a_{L-1} ... a_2 a_1                       per head, weights a_l of layer l, (N, N) (Eq. 8)
    A_k = argmax_j a_final^k[class token, j]            per head k, over patches j
    z_local = [z^0_{L-1}; z^{A_1}_{L-1} ... z^{A_K}_{L-1}]      input of the last layer (Eq. 9)
    loss = cross-entropy + L_con, both of the class token       (Eq. 10, 11), margin 0.4

Not checked against the paper's text: the numbers of the equations, the order of the product (here that in
which the layers mix tokens, as in attention rollout), and whether a patch that several heads select counts
once (here once per head).
"""

import torch
from torch import Tensor

from ramstrans.models.attention import AttentionCall
from ramstrans.models.methods.tokens import TokenSelection, gather_tokens
from ramstrans.models.saliency.rollout import propagate_tiled


@torch.no_grad()
def part_attention(calls: list[AttentionCall]) -> Tensor:
    """(B, H, N) float32, the class token's row of `a_final` of each head; each row sums to 1.

    A row vector is pushed through the layers from the last to the first, in place of products of whole
    matrices (N, N): the same numbers at O(N^2) per layer instead of O(N^3).

    >>> zeros = torch.zeros(1, 2, 4, 3)  # uniform attention
    >>> part_attention([AttentionCall(zeros, zeros, 1.0)]).tolist()
    [[[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]]
    """
    batch, heads, num_tokens, _ = calls[0].query.shape
    rows = calls[0].query.new_zeros((batch * heads, num_tokens), dtype=torch.float32)
    rows[:, 0] = 1
    with torch.autocast(rows.device.type, enabled=False):
        for query, key, scale, _bias in reversed(calls):
            rows = propagate_tiled(rows, query.flatten(0, 1)[:, None], key.flatten(0, 1)[:, None], scale)
    return rows.view(batch, heads, num_tokens)


class TransFG(TokenSelection):
    """Each head selects the patch that the class token attends to most, through all layers but the last.

    Its saliency is the mean over heads of what the selection is made by.
    """

    own_saliency = "part_selection"
    contrastive = 1.0

    def describe(self) -> list[str]:
        """See `Method.describe`."""
        heads = self.encoder.model.blocks[0].attn.num_heads
        stride, patch = self.encoder.patch_stride, self.encoder.patch_size
        assert stride is not None
        assert patch is not None
        return [
            *super().describe(),
            f"patches of {patch[0]} pixels every {stride[0]}; the last layer sees {heads} of them, "
            "one per head",
        ]

    def after_layer(self, tokens: Tensor, call: AttentionCall) -> AttentionCall:  # noqa: ARG002 - the last counts
        """See `TokenSelection.after_layer`."""
        return call

    def select(self, tokens: Tensor, kept: list[AttentionCall]) -> tuple[Tensor, Tensor]:
        """See `TokenSelection.select`."""
        weights = part_attention(kept)[:, :, self.num_prefix :]
        indices = weights.argmax(dim=2) + self.num_prefix
        chosen = gather_tokens(tokens, indices)
        return torch.cat([tokens[:, : self.num_prefix], chosen], dim=1), weights.mean(dim=1)
