"""What a forward pass of a timm model gives: where its features lie, and which attention is global."""

import math
from typing import Any, Literal, NamedTuple

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from ramstrans.errors import ConfigError
from ramstrans.models.attention import AttentionCall, RecordAttention
from ramstrans.models.substitute import call_with

Size = tuple[int, int]
"""`(height, width)`."""

NOT_STOCHASTIC = {"DiffAttention", "DiffParallelScalingBlock"}
"""Attention whose weights are no averages of the tokens: their rows do not sum to 1, or are negative."""


class Anatomy(NamedTuple):
    """How a model computes an image of one size.

    Attributes:
        size: `(height, width)` of the image in pixels.
        layout: Of the features: tokens (B, N, C), or a map (B, C, h, w) or (B, h, w, C).
        grid: `(rows, columns)` of locations in the features.
        num_prefix: Tokens before those of the locations.
        num_channels: C.
        num_pooled: D, width of the vector that the classifier reads.
        is_patches: Whether each location is a patch that the model's `patch_embed` convolves from pixels.
        num_layers: Layers of attention among all tokens, if every block is one, so that a rollout is defined;
            else 0.
        num_parallel: Attentions of each layer that read the same tokens, and are summed; 1 but in few models.
        pools_by_attention: Whether a query of its own pools the tokens.
    """

    size: Size
    layout: Literal["tokens", "NCHW", "NHWC"]
    grid: Size
    num_prefix: int
    num_channels: int
    num_pooled: int
    is_patches: bool
    num_layers: int
    num_parallel: int
    pools_by_attention: bool


def inspect_model(model: nn.Module, size: Size) -> Anatomy:
    """Follow an image through a model without computing anything; no random number is drawn.

    Not for a model that another thread uses: for a moment it has weights without values.

    Args:
        model: A timm image classifier.
        size: `(height, width)` of the image in pixels.

    Raises:
        RuntimeError, AssertionError, ...: The model does not take this size.
        ConfigError: Its features are neither tokens nor one map.
    """
    calls: list[AttentionCall] = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), RecordAttention(calls, copy=False):
            image = torch.empty(1, 3, *size, device="meta")
            features, pooled, num_before_pooling = call_with(_Parts(model), _without_values, image, calls)
    finally:
        model.train(was_training)
    layout, grid, num_prefix = locate(model, features, size)
    channels = features.shape[1] if layout == "NCHW" else features.shape[-1]
    num_tokens = features.shape[1] if layout == "tokens" else 0
    layers, pools = calls[:num_before_pooling], calls[num_before_pooling:]
    num_parallel = getattr(next(iter(getattr(model, "blocks", ())), None), "num_parallel", 1)
    return Anatomy(
        size=size,
        layout=layout,
        grid=grid,
        num_prefix=num_prefix,
        num_channels=channels,
        num_pooled=pooled.shape[-1],
        is_patches=layout == "tokens" and grid == patch_grid(model, size),
        num_layers=len(layers) // num_parallel if _is_global(model, layers, num_tokens, num_parallel) else 0,
        num_parallel=num_parallel,
        pools_by_attention=len(pools) == 1 and pools[0].query.shape[-2] == 1,
    )


def _without_values(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


class _Parts(nn.Module):
    """Features, the pooled vector, and the number of attention calls before the pooling."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any
        self.model = model

    def forward(self, image: Tensor, calls: list[AttentionCall]) -> tuple[Tensor, Tensor, int]:
        features = self.model.forward_features(image)
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            kind = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ConfigError(
                f"this backbone cannot work: its features are {kind}, neither tokens nor one map"
            )
        num_before_pooling = len(calls)
        return features, self.model.forward_head(features, pre_logits=True), num_before_pooling


def _is_global(model: nn.Module, layers: list[AttentionCall], num_tokens: int, num_parallel: int) -> bool:
    """Whether each block is one layer of attention among all tokens."""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or len(layers) != num_parallel * len(blocks):
        return False
    if any(type(module).__name__ in NOT_STOCHASTIC for module in model.modules()):
        return False
    return all(
        call.query.ndim == 4 and call.query.shape[-2] == call.key.shape[-2] == num_tokens for call in layers
    )


def locate(
    model: nn.Module, features: Tensor, size: Size
) -> tuple[Literal["tokens", "NCHW", "NHWC"], Size, int]:
    """Where the locations lie in features: their layout, `(rows, columns)`, and the tokens before them.

    Raises:
        ConfigError: The number of tokens is not that of a grid, or they are class tokens alone.
    """
    if features.ndim == 4:
        width = getattr(model, "num_features", None)
        is_last = getattr(model, "output_fmt", "NCHW") == "NHWC" or (
            features.shape[-1] == width and features.shape[1] != width
        )
        rows, columns = features.shape[1:3] if is_last else features.shape[2:]
        return ("NHWC" if is_last else "NCHW"), (rows, columns), 0
    num_tokens = features.shape[1]
    class_tokens = getattr(model, "cls_token", None)
    if num_tokens > 1 and isinstance(class_tokens, Tensor) and class_tokens.shape[-2] == num_tokens:
        raise ConfigError(
            f"this backbone cannot work: its features are its {num_tokens} class tokens alone, without "
            "locations"
        )
    rows, columns = patch_grid(model, size) or (0, 0)
    if 0 <= num_tokens - rows * columns <= getattr(model, "num_prefix_tokens", 0):
        return "tokens", (rows, columns), num_tokens - rows * columns
    for num_prefix in (getattr(model, "num_prefix_tokens", 0), 0, 1, 2):
        rows, columns = _grid_like(num_tokens - num_prefix, size)
        if rows * columns == num_tokens - num_prefix:
            return "tokens", (rows, columns), num_prefix
    raise ConfigError(
        f"this backbone cannot work: its {num_tokens} tokens at {size[0]}x{size[1]} are no grid"
    )


def patch_grid(model: nn.Module, size: Size) -> Size | None:
    """`(rows, columns)` of the patches that a ViT convolves from pixels; None for other models."""
    embed = getattr(model, "patch_embed", None)
    if not isinstance(embed, PatchEmbed) or not isinstance(embed.proj, nn.Conv2d):
        return None
    sides = zip(size, embed.proj.kernel_size, embed.proj.stride, strict=True)
    rows, columns = ((side - int(patch)) // stride + 1 for side, patch, stride in sides)
    return rows, columns


def _grid_like(count: int, size: Size) -> Size:
    """The grid of a number of locations with about the proportions of an image; (0, 0) if there is none.

    >>> _grid_like(15, (48, 80)), _grid_like(14, (48, 80))
    ((3, 5), (0, 0))
    """
    rows = round(math.sqrt(max(count, 0) * size[0] / size[1]))
    return (rows, count // rows) if rows and count % rows == 0 else (0, 0)
