"""Attention rollout: one saliency value a patch, from the queries and keys of all layers.

With `A_l` the head mean of layer l's attention weights, `G_l = (A_l + I) / 2` and
`g = G_L ... G_1` (Eq. 4-9 of https://arxiv.org/abs/2107.08192), the saliency of a patch is the mean of
its column of g, or its entry in the class token's row. Either is a row vector times g, so it is pushed
through the layers from the last to the first, `r <- (r + r A_l) / 2`, and no product of matrices is formed.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


@torch.no_grad()
def rollout(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    *,
    scale: float,
    num_prefix: int,
    grid: tuple[int, int],
    rows: Literal["all", "class"] = "all",
    class_index: int = 0,
) -> Tensor:
    """Roll the attention of all layers out to one saliency value a patch.

    Args:
        queries: L tensors (B, H, N, d), first layer first; N = num_prefix + h * w tokens.
        keys: L tensors (B, H, N, d).
        scale: Factor on q·k before the softmax, usually `d ** -0.5`.
        num_prefix: Number of tokens before the patches (class and register tokens).
        grid: `(h, w)`, rows and columns of patches.
        rows: `all`: mean over all N query rows; `class`: the row of token `class_index` alone.
        class_index: Position of the class token that `rows="class"` reads.

    Returns:
        (B, h, w) float32, non-negative; with the prefix tokens' shares it sums to 1.

    >>> q = [torch.zeros(1, 1, 5, 3)]  # uniform attention: every patch gets 1/5
    >>> rollout(q, q, scale=1.0, num_prefix=1, grid=(2, 2))
    tensor([[[0.2000, 0.2000],
             [0.2000, 0.2000]]])
    """
    batch, _, num_tokens, _ = queries[0].shape
    assert num_tokens == num_prefix + grid[0] * grid[1], "tokens and grid disagree"
    if rows == "all":
        shares = queries[0].new_full((batch, num_tokens), 1 / num_tokens, dtype=torch.float32)
    else:
        shares = queries[0].new_zeros((batch, num_tokens), dtype=torch.float32)
        shares[:, class_index] = 1
    with torch.autocast(queries[0].device.type, enabled=False):
        for query, key in zip(reversed(queries), reversed(keys), strict=True):
            shares = (shares + push_back(shares, query, key, scale)) / 2
    return shares[:, num_prefix:].reshape(batch, *grid)


def push_back(shares: Tensor, query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Push a row vector through one layer: `r A`, with A the head mean of softmax(scale · q kᵀ).

    Args:
        shares: (B, N) float32, the row vector r.
        query: (B, H, N, d).
        key: (B, H, N, d).
        scale: Factor on q·k.

    Returns:
        (B, N) float32.

    >>> zeros = torch.zeros(1, 1, 2, 3)
    >>> push_back(torch.tensor([[1.0, 0.0]]), zeros, zeros, 1.0)
    tensor([[0.5000, 0.5000]])
    """
    scores = (query * scale) @ key.transpose(-2, -1)
    exponentials = (scores - scores.amax(dim=-1, keepdim=True)).float().exp_()
    # the softmax's denominators go into the row vector: one pass less over (B, H, N, N)
    rows = shares[:, None] / exponentials.sum(dim=-1) / query.shape[1]
    return torch.bmm(rows.flatten(1)[:, None], exponentials.flatten(1, 2)).squeeze(1)
