"""The one call that all attention goes through: recorded, or answered by matrix products."""

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class AttentionCall(NamedTuple):
    """Queries and keys of one call of scaled dot-product attention, without their history.

    Attributes:
        query: (B, H, N, d), as it enters the softmax: after norms and rotary embedding.
        key: (B, H, N, d), as the queries.
        scale: Factor on q·k.
    """

    query: Tensor
    key: Tensor
    scale: float


class _AttentionMode(TorchFunctionMode):
    """Call `_attend` in place of every `F.scaled_dot_product_attention` called inside."""

    def _attend(self, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - those of torch's function
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - any function of torch
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        return (self._attend if func is F.scaled_dot_product_attention else func)(*args, **(kwargs or {}))


class RecordAttention(_AttentionMode):
    """Record the queries and keys of every `F.scaled_dot_product_attention` called inside.

    The outputs stay the same to the last bit. Modes are per thread, so that one model serves any number of
    threads. `torch.compile(fullgraph=True)` traces this only if the list is created by the caller.

    Args:
        calls: Filled in the order of the calls.
        copy: Whether queries and keys are copied. Queries, keys and values are views of one tensor, which a
            view would keep alive as a whole: copy unless autograd keeps that tensor anyway.

    >>> import torch
    >>> calls = []
    >>> with RecordAttention(calls):
    ...     _ = F.scaled_dot_product_attention(*torch.zeros(3, 1, 2, 5, 4))
    >>> calls[0].query.shape, calls[0].scale
    (torch.Size([1, 2, 5, 4]), 0.5)
    """

    def __init__(self, calls: list[AttentionCall], *, copy: bool = True) -> None:
        super().__init__()
        self.calls = calls
        self.copy = copy

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
        kept = (query.detach(), key.detach())
        if self.copy:
            kept = (kept[0].contiguous(), kept[1].contiguous())
        self.calls.append(AttentionCall(*kept, _scale(query, options.get("scale"))))
        return F.scaled_dot_product_attention(query, key, value, **options)


class ExplicitAttention(_AttentionMode):
    """Compute every `F.scaled_dot_product_attention` called inside by matrix products; the same function.

    In bfloat16 on CPUs forward and backward take about half the time of the fused kernel. Not for
    checkpointed blocks: the backward pass, which computes them again, is outside of any mode.
    """

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """`softmax(scale · q kᵀ) v` with the whole matrix of weights (B, H, N, N) in memory."""
        assert attn_mask is None, "a plain ViT"
        assert not is_causal, "no image model masks the future"
        scores = query * _scale(query, scale) @ key.transpose(-2, -1)
        return F.dropout(scores.softmax(dim=-1), dropout_p) @ value


def _scale(query: Tensor, given: float | None) -> float:
    return query.shape[-1] ** -0.5 if given is None else given
