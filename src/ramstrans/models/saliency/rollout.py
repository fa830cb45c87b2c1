"""Attention rollout: one saliency value per patch, from the queries and keys of all layers, or of the last.

With `A_l` the head mean of layer l's attention weights, `G_l = (A_l + I) / 2` and
`g = G_L ... G_1` (Eq. 4-9 of https://arxiv.org/abs/2107.08192), the saliency of a patch is the mean of
its column of g, or its entry in the class token's row. Either is a row vector times g, so it is propagated
through the layers from the last to the first, `r <- (r + r A_l) / 2`, without a product of two matrices.

Where the network's pass gives each layer's weights (small ones on CPUs), they are used (`rollout_weights`).
Else two implementations of the same function, neither with a whole layer's attention matrix in memory:

    tiles   softmax of one tile of rows at a time, small enough to stay in the processor's cache
    flex    FlexAttention with queries and keys swapped: with lse_i the log-sum-exp of row i,
            (r P)_j = exp(logsumexp_i(s k_j q_i + log r_i - lse_i)), a log-sum-exp that the kernel returns
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ramstrans.models.encoder import Encoder, Features, reads_class_token
from ramstrans.models.saliency.base import Rows, Saliency
from ramstrans.options import check_name

Method = Literal["tiles", "flex"]

CPU_TILE = 640_000
"""Attention weights in the tile of one CPU thread: 2.5 MB in float32, one head of 800 tokens."""
DEVICE_TILE = 2**26
"""Attention weights in a tile on other devices, where launches cost more than memory: 256 MB in float32."""


@torch.no_grad()
def rollout(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    *,
    scale: float,
    num_prefix: int,
    grid: tuple[int, int],
    rows: Rows = "all",
    class_index: int = 0,
    biases: Sequence[Tensor | None] | None = None,
    start: Tensor | None = None,
    method: Method | None = None,
) -> Tensor:
    """Roll out the attention of all layers to one saliency value per patch.

    Args:
        queries: L tensors (B, H, N, d), first layer first; N = num_prefix + h * w tokens.
        keys: L tensors (B, H, N, d).
        scale: Factor on q·k before the softmax, usually `d ** -0.5`.
        num_prefix: Number of tokens before the patches (class and register tokens).
        grid: `(h, w)`, rows and columns of patches.
        rows: `all`: mean over all N query rows; `class`: only the row of token `class_index`.
        class_index: Index of the class token that `rows="class"` reads.
        biases: Per layer, what is added to `scale · q kᵀ`, broadcastable to (B, H, N, N), e.g. relative
            positions; None: nothing.
        start: (B, N) float32, the row vector to begin with, in place of `rows`.
        method: Implementation that propagates a row vector through a layer; None: `choose_implementation`.

    Returns:
        (B, h, w) float32, non-negative; with the values of the prefix tokens it sums to 1.

    >>> q = [torch.zeros(1, 1, 5, 3)]  # uniform attention: every patch gets 1/5
    >>> rollout(q, q, scale=1.0, num_prefix=1, grid=(2, 2))
    tensor([[[0.2000, 0.2000],
             [0.2000, 0.2000]]])
    """
    num_tokens = num_prefix + grid[0] * grid[1]
    assert queries[0].shape[2] == num_tokens, "tokens and grid disagree"
    relevance = _first(queries[0], num_tokens, rows, class_index) if start is None else start
    compiled = torch.compiler.is_compiling() and not torch.compiler.is_exporting()  # an export stays portable
    propagate = IMPLEMENTATIONS[method or choose_implementation(queries[0].device, compiled=compiled)]
    with torch.autocast(queries[0].device.type, enabled=False):
        for layer in reversed(range(len(queries))):
            query, key, bias = queries[layer], keys[layer], biases[layer] if biases else None
            propagated = (
                propagate(relevance, query, key, scale)
                if bias is None
                else propagate_tiled(relevance, query, key, scale, bias)
            )
            relevance = (relevance + propagated) / 2
    return relevance[:, num_prefix:].reshape(-1, *grid)


@torch.no_grad()
def rollout_weights(
    weights: Sequence[Tensor],
    *,
    num_prefix: int,
    grid: tuple[int, int],
    rows: Rows = "all",
    class_index: int = 0,
    start: Tensor | None = None,
) -> Tensor:
    """`rollout` of L matrices of weights (B, N, N) float32, averaged over heads, first layer first."""
    num_tokens = num_prefix + grid[0] * grid[1]
    relevance = _first(weights[0], num_tokens, rows, class_index) if start is None else start
    with torch.autocast(relevance.device.type, enabled=False):
        for layer in reversed(weights):
            relevance = (relevance + torch.bmm(relevance[:, None], layer)[:, 0]) / 2
    return relevance[:, num_prefix:].reshape(-1, *grid)


def _first(like: Tensor, num_tokens: int, rows: Rows, class_index: int) -> Tensor:
    """(B, N) float32 row vector that the last layer is propagated from."""
    check_name("rows", rows, Rows)
    if rows == "all":
        return like.new_full((like.shape[0], num_tokens), 1 / num_tokens, dtype=torch.float32)
    relevance = like.new_zeros((like.shape[0], num_tokens), dtype=torch.float32)
    relevance[:, class_index] = 1
    return relevance


def choose_implementation(device: torch.device, *, compiled: bool) -> Method:
    """Choose the implementation: `flex` in a compiled graph on a GPU of capability 8 or more, else `tiles`.

    Outside of a compiled graph FlexAttention would form whole matrices.

    Args:
        device: Device of queries and keys.
        compiled: Whether the rollout becomes part of a graph of `torch.compile`.

    >>> choose_implementation(torch.device("cpu"), compiled=True)
    'tiles'
    """
    if compiled and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return "flex"
    return "tiles"


def propagate_tiled(
    relevance: Tensor, query: Tensor, key: Tensor, scale: float, bias: Tensor | None = None
) -> Tensor:
    """Propagate a row vector through one layer: `r A`, with A the head mean of softmax(scale · q kᵀ + bias).

    Args:
        relevance: (B, N) float32, the row vector r.
        query: (B, H, N, d).
        key: (B, H, N, d).
        scale: Factor on q·k.
        bias: Broadcastable to (B, H, N, N), or None.

    Returns:
        (B, N) float32.

    >>> zeros = torch.zeros(1, 1, 2, 3)
    >>> propagate_tiled(torch.tensor([[1.0, 0.0]]), zeros, zeros, 1.0)
    tensor([[0.5000, 0.5000]])
    """
    batch, heads, num_tokens, _ = query.shape
    if torch.compiler.is_compiling():  # the batch may be symbolic, and memory is the compiler's concern
        scores = (query * scale) @ key.transpose(-2, -1)
        weights = (scores if bias is None else scores + bias).softmax(dim=-1, dtype=torch.float32)
        return (relevance[:, None, None] @ weights).mean(dim=1).squeeze(1)
    rows = (relevance / heads)[:, None].expand(-1, heads, -1).reshape(batch * heads, 1, num_tokens)
    query, key = (query * scale).flatten(0, 1), key.flatten(0, 1).transpose(-2, -1)
    propagated = torch.zeros_like(rows)
    if bias is not None:
        bias = bias.expand(bias.shape[0], bias.shape[1], num_tokens, num_tokens)
    for matrices, tile in _tiles(batch * heads, num_tokens, query.device):
        scores = torch.bmm(query[matrices, tile], key[matrices])
        if bias is not None:
            index = torch.arange(batch * heads, device=query.device)[matrices]
            image, head = index // heads % bias.shape[0], index % heads % bias.shape[1]
            scores = scores + bias[image, head, tile]
        weights = scores.softmax(dim=-1, dtype=torch.float32)
        propagated[matrices].baddbmm_(rows[matrices, :, tile], weights)
    return propagated.view(batch, heads, num_tokens).sum(dim=1)


def _tiles(num_matrices: int, num_rows: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Yield slices of matrices and of their rows: even tiles of at most the largest size.

    On a CPU each thread has its own matrices: shared ones would travel between the cores' caches.
    """
    largest, num_threads = (CPU_TILE, torch.get_num_threads()) if device.type == "cpu" else (DEVICE_TILE, 1)
    matrices = num_threads * max(1, largest // num_rows**2)
    num_tiles = -(-num_rows // max(1, largest // num_rows))
    rows = -(-num_rows // num_tiles)
    for first in range(0, num_matrices, matrices):
        for row in range(0, num_rows, rows):
            yield slice(first, first + matrices), slice(row, row + rows)


def propagate_flex(relevance: Tensor, query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Compute `propagate_tiled` by FlexAttention, which must be compiled to be fast."""
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    with_lse = AuxRequest(lse=True)
    _, row = flex_attention(query, key, key, scale=scale, return_aux=with_lse)
    assert row.lse is not None, "it was asked for"
    bias = relevance.log()[:, None] - row.lse  # (B, H, N)

    def biased(score: Tensor, image: Tensor, head: Tensor, _row: Tensor, column: Tensor) -> Tensor:
        return score + bias[image, head, column]

    _, column = flex_attention(key, query, query, biased, scale=scale, return_aux=with_lse)
    assert column.lse is not None, "it was asked for"
    return column.lse.exp().mean(dim=1)


IMPLEMENTATIONS = {"tiles": propagate_tiled, "flex": propagate_flex}


def _saliency(features: Features, _encoder: Encoder, rows: Rows) -> Tensor:
    return rollout_of(features, rows=rows)


def rollout_of(features: Features, rows: Rows = "all", start: Tensor | None = None) -> Tensor:
    """(B, h, w) rollout of the layers that were recorded in a forward pass; see `rollout`."""
    options: dict[str, Any] = {"num_prefix": features.num_prefix, "grid": features.grid, "rows": rows}
    options |= {"class_index": features.class_index or 0, "start": start}
    weights = [layer for layer in features.attention if isinstance(layer, Tensor)]
    if weights:
        return rollout_weights(weights, **options)
    calls = [layer for layer in features.attention if not isinstance(layer, Tensor)]
    return rollout(
        [call.query for call in calls],
        [call.key for call in calls],
        scale=calls[0].scale,
        biases=[call.bias for call in calls],
        **options,
    )


def _unfit(encoder: Encoder, rows: Rows) -> str | None:
    if not encoder.anatomy.num_layers:
        return "its layers are not all attention among all tokens, so that rollouts are undefined"
    if rows == "class" and not reads_class_token(encoder.model):
        return "model.saliency_rows is class, and it is not read at a class token"
    return None


SALIENCY = Saliency(_saliency, _unfit, uses="all layers")
