"""What weights were pretrained for, read off their name, and what follows from it; families of models."""

import re
from pathlib import Path
from typing import Any, Literal

import timm
from timm.data import constants
from timm.models import group_parameters
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ramstrans.saved.metadata import saved_folder

Kind = Literal[
    "random", "supervised", "image-text", "self-distillation", "masked images", "masked images, then labels"
]
"""What weights were trained to do."""

Family = Literal["ViT", "hierarchical", "CNN"]
"""ViT: one width, attention among all tokens. CNN: with batch norms. Hierarchical: stages, other norms."""

MASKED = r"(?<![a-z])(?:fc)?mae(?![a-z])|(?<![a-z])mim(?![a-z])|beit|simmim|jepa|eva(?:02)?_|sapiens"

KINDS: tuple[tuple[Kind, str], ...] = (
    (
        "image-text",
        r"clip|siglip|openai|laion|datacomp|dfn\d|webli|merged2b|tipsv?2|vit_pe|pali|florence|aimv2|cc12m"
        r"|yfcc15m|intern|qwen|gemma|deepseek",
    ),
    ("self-distillation", r"dino|ibot|lvd142m|lvd1689m|sat493m|eupe|radio|lingbot"),
    ("masked images, then labels", rf"(?:{MASKED}).*(?<![a-z])ft(?![a-z])"),
    ("masked images", MASKED),
    ("supervised", r"in1k|in12k|in21k|in22k|imagenet|jft|augreg|deit|ig1b|inat|supervised"),
)
"""The kind of pretraining by what stands in the name of weights; the first that is found counts. Weights that
were fine-tuned on labels afterwards (`laion2b_ft_in12k_in1k`) count as what they began with, but for masked
images."""

STATISTICS: tuple[tuple[str, tuple[Any, Any]], ...] = (
    (
        r"siglip|webli|vit_pe|augreg|beit(?!v2)|\.npz$",
        (constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD),
    ),
    (r"clip|openai|laion|datacomp|eva(02)?_", (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD)),
    (
        r"dino|ibot|(?<![a-z])(?:fc)?mae(?![a-z])|deit|beitv2",
        (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
    ),
)
"""Mean and standard deviation that the weights in a file expect, by what stands in its name."""

DINOV2_SIZE = 224
"""Side in pixels for DINOv2, which timm offers at 518: evaluated at 224 too (https://arxiv.org/abs/2304.07193)."""


def kind_of(name: str, weights: str | Path | None) -> tuple[Kind, str]:
    """The kind of pretraining, and where it was read.

    Args:
        name: Of the backbone in timm, with or without a tag.
        weights: As `model.weights`. The name of a file counts more than that of the backbone.

    >>> kind_of("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", "timm")
    ('image-text', 'vit_base_patch16_clip_224.laion2b_ft_in12k_in1k')
    >>> kind_of("vit_base_patch16_224", "mae_pretrain_vit_base.pth")[0]
    'masked images'
    """
    if weights is None:
        return "random", "weights null"
    names = [full_name(name)]
    if weights != "timm" and saved_folder(weights) is None:
        names = [Path(weights).name, name.partition(".")[0]]
    for text in names:
        for kind, pattern in KINDS:
            if re.search(pattern, text.lower()):
                return kind, text
    return "supervised", f"default: {' and '.join(names)} do not say"


def full_name(name: str) -> str:
    """The name of timm's model with the tag of its default weights, if it has any."""
    published = timm.get_pretrained_cfg(name)
    tag = None if published is None else published.tag
    return f"{name.partition('.')[0]}.{tag}" if tag else name


def image_size_of(name: str) -> int | tuple[int, int] | None:
    """The size in pixels that weights were trained at; None if timm does not know the model's weights."""
    published = timm.get_pretrained_cfg(name)
    if published is None:
        return None
    height, width = published.input_size[1:]
    if "dinov2" in name and height == width:
        return DINOV2_SIZE
    return height if height == width else (height, width)


def statistics_of(name: str, weights: str | Path | None) -> tuple[Any, Any] | None:
    """Mean and standard deviation that a file's weights expect; None: those of the backbone in timm."""
    if weights in (None, "timm") or saved_folder(weights) is not None:
        return None
    file = Path(str(weights)).name.lower()
    if file.startswith(name.partition(".")[0]):
        return None
    return next((statistics for pattern, statistics in STATISTICS if re.search(pattern, file)), None)


def family_of(network: Any) -> Family:  # noqa: ANN401 - any timm model
    """The family of a timm model, by its widths and norms."""
    widths = {entry["num_chs"] for entry in getattr(network, "feature_info", ())}
    if isinstance(network, VisionTransformer | Eva | Beit | NaFlexVit) or len(widths) == 1:
        return "ViT"
    has_batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    return "CNN" if has_batch_norm else "hierarchical"


def num_layers_of(network: Any) -> int | None:  # noqa: ANN401 - any timm model
    """The layers that timm counts for layer decay, embedding and head included; None if it counts none."""
    if not hasattr(network, "group_matcher"):
        return None
    return int(max(group_parameters(network, network.group_matcher(coarse=False), reverse=True).values())) + 1
