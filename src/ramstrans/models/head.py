"""What a timm model does with its features: how it pools them, and which layers read the pooled vector."""

from typing import Any, Literal

import torch
from timm.layers import ClassifierHead
from torch import Tensor, nn

from ramstrans.models.anatomy import Anatomy


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


@torch.no_grad()
def sums_locations(model: Any, anatomy: Anatomy) -> bool:  # noqa: ANN401 - any timm model
    """Whether the pooled vector is the mean of the locations and one linear layer reads it, by trying it."""
    head = get_classifier(model)
    parameter = next(model.parameters())
    if not isinstance(head, nn.Linear | nn.Conv2d) or parameter.is_meta:
        return False
    (rows, columns), channels = anatomy.grid, anatomy.num_channels
    count = (rows * columns + anatomy.num_prefix) * channels
    values = torch.linspace(0, count, count, dtype=torch.float64).cos()  # of both signs, not symmetric
    values = (values + torch.linspace(-1, 1, channels, dtype=torch.float64).repeat(count // channels)).to(
        parameter
    )
    shape = {
        "tokens": (1, anatomy.num_prefix + rows * columns, channels),
        "NHWC": (1, rows, columns, channels),
        "NCHW": (1, channels, rows, columns),
    }[anatomy.layout]
    features = values.view(shape)
    was_training = model.training
    model.eval()
    try:
        pooled = model.forward_head(features, pre_logits=True).flatten(1)
        logits = model.forward_head(features).flatten(1)
    finally:
        model.train(was_training)
    mean = flat_locations(features, anatomy.layout, anatomy.num_prefix).mean(dim=1)
    weight = head.weight.flatten(1)
    if pooled.shape != mean.shape or weight.shape[1] != mean.shape[1]:
        return False
    expected = nn.functional.linear(mean, weight, head.bias)
    return torch.allclose(pooled, mean, rtol=1e-6, atol=1e-6) and torch.allclose(
        logits, expected, rtol=1e-5, atol=1e-5
    )
