"""What a timm model does with its features: how it pools them, and which layers read the pooled vector."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from timm.layers import ClassifierHead
from torch import Tensor, nn

from ramstrans.models.anatomy import Anatomy
from ramstrans.models.substitute import call_with


def get_classifier(model: Any) -> nn.Module:  # noqa: ANN401 - any timm model
    """What reads the pooled vector; a list of modules if several do, whose logits are averaged."""
    heads = model.get_classifier()
    if isinstance(heads, ClassifierHead):  # Sequencer2D's, which pools too
        heads = heads.fc
    whole: Any = getattr(model, "head", None)
    if type(whole).__name__ == "NormLinear" and any(heads is part for part in whole.children()):
        heads = whole  # a batch norm first
    return heads if isinstance(heads, nn.Module) else nn.ModuleList(heads)


def flat_locations(features: Tensor, layout: Literal["tokens", "NCHW", "NHWC"], num_prefix: int) -> Tensor:
    """(B, h * w, C) of features in any layout."""
    if layout == "tokens":
        return features[:, num_prefix:]
    return features.flatten(1, 2) if layout == "NHWC" else features.flatten(2).transpose(1, 2)


class _Head(nn.Module):
    """The part of a timm model after its features."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - any timm model
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) pooled vectors and (B, num_classes) logits."""
        pooled = self.model.forward_head(features, pre_logits=True).flatten(1)
        return pooled, self.model.forward_head(features).flatten(1)


@torch.no_grad()
def sums_locations(model: Any, anatomy: Anatomy) -> bool:  # noqa: ANN401 - any timm model
    """Whether the pooled vector is the mean of the locations and one linear layer reads it, by trying it.

    It is tried with other weights, so that a model on the meta device tells it too: the classifier's are of
    both signs, and all others 0.5, with which no norm or scale returns what it is given.
    """
    head = get_classifier(model)
    if not isinstance(head, nn.Linear | nn.Conv2d):
        return False
    own = [id(tensor) for tensor in (head.weight, head.bias)]
    (rows, columns), channels = anatomy.grid, anatomy.num_channels
    shape = {
        "tokens": (1, anatomy.num_prefix + rows * columns, channels),
        "NHWC": (1, rows, columns, channels),
        "NCHW": (1, channels, rows, columns),
    }[anatomy.layout]
    was_training = model.training
    model.eval()
    try:
        with torch.device("cpu"):
            features = _waves(shape)
            pooled, logits = call_with(
                _Head(model).eval(),
                lambda tensor: _waves(tensor.shape) if id(tensor) in own else _halves(tensor),
                features,
            )
            weight = _waves(head.weight.shape).flatten(1)
            bias = None if head.bias is None else _waves(head.bias.shape)
    finally:
        model.train(was_training)
    mean = flat_locations(features, anatomy.layout, anatomy.num_prefix).mean(dim=1)
    if pooled.shape != mean.shape or weight.shape[1] != mean.shape[1]:
        return False
    expected = nn.functional.linear(mean, weight, bias)
    return torch.allclose(pooled, mean, rtol=1e-6, atol=1e-6) and torch.allclose(
        logits, expected, rtol=1e-5, atol=1e-5
    )


def _waves(shape: Sequence[int]) -> Tensor:
    """Float32 values of both signs, not symmetric, the same every time."""
    count = math.prod(shape)
    phase = torch.arange(count, dtype=torch.float64).view(*shape)
    return (phase.cos() + 0.5 * (0.37 * phase).sin() + 0.1).float()


def _halves(tensor: Tensor) -> Tensor:
    """0.5 in the shape of a tensor, which takes no memory; of integers 0."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.full((), 0.5, dtype=torch.float32).to(dtype).expand(tensor.shape)
