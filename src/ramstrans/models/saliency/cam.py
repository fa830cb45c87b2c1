"""Class activation map of the highest logit (https://arxiv.org/abs/1512.04150).

Where the head is average pooling and a linear layer, the logit of class c is
`b_c + sum_i w_c · f_i / n` over n locations: each location's summand is its part in it.
"""

import torch
from torch import Tensor, nn

from ramstrans.models.encoder import Encoder, Features
from ramstrans.models.saliency.base import Rows, Saliency

PRESENT = 0.5
"""Probability from which a class counts as present in an image that may have several.

Thresholds that are chosen on validation images do not count here: they would change the regions, and with
them the probabilities that they were chosen for.
"""

CLASSES_AT_ONCE = 256
"""Maps held in memory at a time."""


@torch.no_grad()
def class_map(features: Features, encoder: Encoder, classes: Tensor | None = None) -> Tensor:
    """(B, h, w) float32 parts of a logit by location: their sum plus the bias is the logit.

    Args:
        features: Of B images.
        encoder: Whose head is average pooling and a linear layer.
        classes: (B,) int64; None: the one with the highest logit.
    """
    head = encoder.get_classifier()
    assert isinstance(head, nn.Linear | nn.Conv2d), "a linear head"
    with torch.autocast(features.pooled.device.type, enabled=False):
        if classes is None:
            classes = encoder.forward_head(features.pooled.to(head.weight.dtype)).argmax(dim=1)
        weights = head.weight.flatten(1)[classes].float()
        parts = (features.locations.float() @ weights[:, :, None]).squeeze(2) / features.locations.shape[1]
    return parts.reshape(-1, *features.grid)


@torch.no_grad()
def union_map(features: Features, encoder: Encoder) -> Tensor:
    """(B, h, w) float32 in [0, 1]: the union of the maps of all classes that are predicted.

    For image i and location x, with the parts p of `class_map` and the classes P that have a probability of
    at least `PRESENT`, or else the most probable one alone:

        u(x) = max over c in P of max(p_c(x), 0) / max over y of max(p_c(y), 0)

    Each map is divided by its maximum, so that a class with a high logit does not hide the others.

    Args:
        features: Of B images.
        encoder: Whose head is average pooling and a linear layer.
    """
    head = encoder.get_classifier()
    assert isinstance(head, nn.Linear | nn.Conv2d), "a linear head"
    with torch.autocast(features.pooled.device.type, enabled=False):
        logits = encoder.forward_head(features.pooled.to(head.weight.dtype))
        is_best = logits == logits.amax(dim=1, keepdim=True)
        is_present = is_best | (logits.sigmoid() >= PRESENT)
        locations, weights = features.locations.float(), head.weight.flatten(1).float()
        union = locations.new_zeros(locations.shape[:2])
        for some, present in zip(
            torch.split(weights, CLASSES_AT_ONCE),
            torch.split(is_present, CLASSES_AT_ONCE, dim=1),
            strict=True,
        ):
            maps = (locations @ some.T).clamp(min=0)  # (B, n, classes)
            maps = maps / maps.amax(dim=1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
            union = torch.maximum(union, (maps * present[:, None]).amax(dim=2))
    return union.reshape(-1, *features.grid)


def _saliency(features: Features, encoder: Encoder, _rows: Rows) -> Tensor:
    return class_map(features, encoder).clamp(min=0)


def _unfit(encoder: Encoder, _rows: Rows) -> str | None:
    if encoder.sums_locations:
        return None
    return "its head is not average pooling and a linear layer, so that the map would not be exact"


SALIENCY = Saliency(_saliency, _unfit, of_present=union_map)
