"""Which backbone a file of weights is for, as a hint when it does not fit the one that was asked for."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import timm
import torch
from torch import nn

from ramstrans.errors import WeightsError
from ramstrans.models.fit import Fit, fit, needed_names
from ramstrans.models.naming import Tensors, to_timm

FAMILIES: dict[str, tuple[str, ...]] = {
    r"^blocks\.0\.attn\.(q_bias|relative_position_bias_table)$|^rel_pos_bias\.": ("beit", "eva"),
    r"^blocks\.0\.(gamma_1|mlp\.w1\.weight|mlp\.fc1_g\.weight|attn\.q_proj\.weight|mlp\.norm\.weight)$": (
        "eva",
    ),
    r"^blocks\.0\.attn\.": ("vision_transformer", "deit", "eva", "beit", "naflexvit"),
    r"^layers\.0\.blocks\.0\.attn\.(logit_scale|cpb_mlp)": ("swin_transformer_v2",),
    r"^layers\.0\.blocks\.0\.attn\.": ("swin_transformer",),
    r"^stages\.0\.(blocks\.)?0\.(conv_dw|dwconv)\.": ("convnext",),
    r"^conv_stem\.": ("mobilenetv3", "efficientnet"),
    r"^layer1\.0\.conv1\.": ("resnet",),
    r"^stages\.0\.blocks\.": ("hiera", "fastvit", "metaformer", "maxxvit", "mobilenetv5"),
}
"""timm's modules by the names that tell them apart; the first that matches counts."""

WIDTHS = {
    **{192: "tiny", 384: "small", 512: "medium", 768: "base", 1024: "large", 1152: "so400m"},
    **{1280: "huge", 1408: "giant", 1536: "giant", 1664: "gigantic"},
}
"""Words for the width of a ViT in timm's names."""

MAX_CANDIDATES = 12
"""Models that are built, without memory for their weights, to compare with."""


def closest(tensors: Tensors, name: str) -> str:
    """Say which backbone a file is for, and what to do.

    Args:
        tensors: As they are in the file.
        name: The backbone that they do not fit.
    """
    empty = {key: torch.empty_like(tensor, device="meta") for key, tensor in tensors.items()}
    best, best_name, share = 0.0, "", 0.0
    for candidate in _candidates(empty):
        try:
            with torch.device("meta"):
                model = timm.create_model(candidate)
                result = fit(empty, model, candidate)
        except (WeightsError, RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError):
            continue
        share = _share(result, model)
        if share > best:
            best, best_name = share, candidate
        if result.is_complete:
            break
    if best < 0.5:
        return "no backbone of timm that was compared is like it; give weights of this backbone"
    if best_name == name.partition(".")[0]:
        return f"give --model.image_size {_size_of(best_name)} and leave out other options of this backbone"
    return f"the closest backbone is {best_name}: give --model.backbone {best_name}, or other --model.weights"


def _share(result: Fit, model: nn.Module) -> float:
    """Share of the tensors of both that are used."""
    needed = len(needed_names(model, model.state_dict()))
    return (needed - len(result.missing)) / max(needed + len(result.homeless), 1)


def _size_of(name: str) -> int:
    config: Any = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1])


def _candidates(tensors: Tensors) -> Iterator[str]:
    """Names of models that may be the file's, one of those that differ by numbers only, likely ones first."""
    named = to_timm(tensors, (), "the file").tensors
    text = "\n".join(named)
    modules = next((found for mark, found in FAMILIES.items() if re.search(mark, text, re.MULTILINE)), ())
    names = [name for module in modules for name in timm.list_models(module=module)]
    kernel = next((tensor for key, tensor in named.items() if key.endswith("patch_embed.proj.weight")), None)
    words: tuple[str, ...] = ()
    if kernel is not None:
        words = (WIDTHS.get(kernel.shape[0], ""), f"patch{kernel.shape[-1]}")
    ranked = sorted(names, key=lambda name: -sum(word in name for word in words))
    yield from list(_distinct(ranked))[:MAX_CANDIDATES]


def _distinct(names: Iterable[str]) -> Iterator[str]:
    """Names that differ by more than their last number, the image size.

    >>> list(_distinct(["vit_base_patch16_224", "vit_base_patch16_384", "vit_base_patch32_224"]))
    ['vit_base_patch16_224', 'vit_base_patch32_224']
    """
    seen = set()
    for name in names:
        short = re.sub(r"_\d{3}$", "", name)
        if short not in seen:
            seen.add(short)
            yield name
