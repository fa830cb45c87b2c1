"""The one call that all attention goes through: recorded, or answered by matrix products."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ramstrans.models.function_mode import FunctionMode

TILE = 320_000
"""Attention weights in a tile: 1.3 MB in float32."""


class AttentionCall(NamedTuple):
    """Queries and keys of one call of scaled dot-product attention, without their history.

    Attributes:
        query: (B, H, N, d), as it enters the softmax: after norms and rotary embedding.
        key: (B, H, N, d), as the queries; of grouped queries (H a multiple of the number of keys' heads)
            repeated.
        scale: Factor on q·k.
        bias: Added to `scale · q kᵀ`, e.g. of relative positions, broadcastable to (B, H, N, N); or None.
    """

    query: Tensor
    key: Tensor
    scale: float
    bias: Tensor | None = None


def join_heads(layers: Sequence[AttentionCall | Tensor]) -> AttentionCall | Tensor:
    """Attentions that read the same tokens, and whose outputs are summed, as one with all their heads."""
    if len(layers) == 1:
        return layers[0]
    means = [layer for layer in layers if isinstance(layer, Tensor)]
    if means:
        return torch.stack(means).mean(dim=0)
    calls = [layer for layer in layers if isinstance(layer, AttentionCall)]
    assert all(call.scale == calls[0].scale and call.bias is None for call in calls), (
        "alike, without positions"
    )
    query, key = (torch.cat(tensors, dim=1) for tensors in zip(*(call[:2] for call in calls), strict=True))
    return AttentionCall(query, key, calls[0].scale)


class _AttentionMode(FunctionMode):
    """Compute `_replacement` in place of every `F.scaled_dot_product_attention` called inside."""

    function = staticmethod(F.scaled_dot_product_attention)


class RecordAttention(_AttentionMode):
    """Record the queries and keys of every `F.scaled_dot_product_attention` called inside.

    The outputs stay the same to the last bit. Modes are per thread, so that one model serves any number of
    threads. `torch.compile(fullgraph=True)` traces this only if the list is created by the caller.

    Args:
        calls: Filled in the order of the calls.
        skip: How many of the first calls are not recorded.
        copy: Whether queries and keys are copied. Queries, keys and values are views of one tensor, which a
            view would keep alive as a whole: copy unless autograd keeps that tensor anyway.

    >>> import torch
    >>> calls = []
    >>> with RecordAttention(calls):
    ...     _ = F.scaled_dot_product_attention(*torch.zeros(3, 1, 2, 5, 4))
    >>> calls[0].query.shape, calls[0].scale
    (torch.Size([1, 2, 5, 4]), 0.5)
    """

    def __init__(self, calls: list[AttentionCall], *, skip: int = 0, copy: bool = True) -> None:
        super().__init__()
        self.calls = calls
        self.skip = skip
        self.copy = copy

    def _replacement(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> Tensor:
        if self.skip:
            self.skip -= 1
        else:
            assert not is_causal, "no image model masks the future"
            kept_query, kept_key = query.detach(), key.detach()
            if self.copy:
                kept_query, kept_key = kept_query.contiguous(), kept_key.contiguous()
            scale, bias = _scale(query, options.get("scale")), _bias(attn_mask)
            bias = None if bias is None else bias.detach()
            self.calls.append(AttentionCall(kept_query, _for_each_head(kept_key, query), scale, bias))
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **options)


class KeepValues(_AttentionMode):
    """Keep the values of every attention called inside, and let no gradient flow through its weights.

    Args:
        values: Filled in the order of the calls with the values (B, H, N, d), with their history; once, where
            several calls have the same.
    """

    def __init__(self, values: list[Tensor]) -> None:
        super().__init__()
        self.values = values

    def _replacement(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:  # noqa: ANN401
        if all(value is not known for known in self.values):  # differential attention has two calls for one
            self.values.append(value)
        return F.scaled_dot_product_attention(query.detach(), key.detach(), value, *args, **options)


class ExplicitAttention(_AttentionMode):
    """Compute every `F.scaled_dot_product_attention` called inside by matrix products; the same function.

    On CPUs forward and backward in bfloat16 take about half the time of the fused kernel, and the weights,
    which rollouts need, come with the output. Not for checkpointed blocks: the backward pass, which computes
    them again, is outside of any mode.

    Args:
        weights: Filled in the order of the calls with the mean over heads (B, N, N) float32 of their weights,
            without history; None: not recorded.
        skip: How many of the first calls are not recorded.
        only_biased: Whether calls without a mask stay as they are.
    """

    def __init__(
        self, weights: list[Tensor] | None = None, *, skip: int = 0, only_biased: bool = False
    ) -> None:
        super().__init__()
        self.weights = weights
        self.skip = skip
        self.only_biased = only_biased

    def _replacement(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **options: Any,  # noqa: ANN401 - of grouped queries
    ) -> Tensor:
        """`softmax(scale · q kᵀ + bias) v`; in training with the whole matrix (B, H, N, N) in memory."""
        assert not is_causal, "no image model masks the future"
        is_skipped, has_gradient = self.skip > 0, torch.is_grad_enabled()
        self.skip = max(self.skip - 1, 0)
        if (is_skipped and not has_gradient) or (self.only_biased and attn_mask is None):
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **options
            )
        key, value = (_for_each_head(tensor, query) for tensor in (key, value))
        query, bias = query * _scale(query, scale), _bias(attn_mask)
        records = None if is_skipped else self.weights
        if records is not None and not has_gradient and query.ndim == 4 and bias is None:
            with torch.autocast(query.device.type, enabled=False):
                output, mean = attend_in_tiles(query, key, value)
            records.append(mean)
            return output
        scores = query @ key.transpose(-2, -1)
        weights = (scores if bias is None else scores + bias).softmax(dim=-1)
        if records is not None:
            records.append(weights.detach().mean(dim=-3, dtype=torch.float32))
        return F.dropout(weights, dropout_p) @ value


def attend_in_tiles(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and the mean over heads of its weights, a tile that fits into a processor's cache at a time.

    In bfloat16 the weights are rounded to it, as the product with the values takes them; sums are in float32.

    Args:
        query: (B, H, M, d), times the scale.
        key: (B, H, N, d).
        value: (B, H, N, d).

    Returns:
        (B, H, M, d) `softmax(q kᵀ) v`, and (B, M, N) float32 means of its softmax.
    """
    batch, heads, num_rows, width = query.shape
    num_tokens = key.shape[2]
    output = query.new_empty(batch, num_rows, heads, width).transpose(1, 2)  # as the fused kernel lays it out
    mean = query.new_empty(batch, num_rows, num_tokens, dtype=torch.float32)
    images = max(1, TILE // (heads * num_rows * num_tokens))
    num_tiles = -(-num_rows // max(1, TILE // (heads * num_tokens)))
    rows = -(-num_rows // num_tiles)
    for first in range(0, batch, images):
        group = slice(first, first + images)
        queries, keys, values = (tensor[group].flatten(0, 1) for tensor in (query, key, value))
        for row in range(0, num_rows, rows):
            tile = slice(row, row + rows)
            weights = torch.bmm(queries[:, tile], keys.transpose(1, 2)).softmax(dim=-1)
            output[group, :, tile] = torch.bmm(weights, values).view_as(output[group, :, tile])
            mean[group, tile] = weights.view(-1, heads, *weights.shape[1:]).mean(dim=1)
    return output, mean


def _for_each_head(tensor: Tensor, query: Tensor) -> Tensor:
    """Keys or values, repeated if several heads of the queries share one of theirs."""
    groups = query.shape[-3] // tensor.shape[-3]
    return tensor.repeat_interleave(groups, dim=-3) if groups > 1 else tensor


def _bias(mask: Tensor | None) -> Tensor | None:
    """What a mask adds to the scores: itself, or minus infinity where a boolean one is False."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))


def _scale(query: Tensor, given: float | None) -> float:
    return query.shape[-1] ** -0.5 if given is None else given
