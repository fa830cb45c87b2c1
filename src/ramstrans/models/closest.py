"""Which backbone a file of weights is for, as a hint when it does not fit the one that was asked for."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ramstrans.errors import WeightsError
from ramstrans.models.fit import Fit, fit, needed_names
from ramstrans.models.naming import Tensors, to_timm

FAMILIES: dict[str, tuple[str, ...]] = {
    r"^embeds\.proj\.": ("naflexvit",),
    r"^rel_pos_bias\.|^blocks\.0\.attn\.relative_position_bias_table": ("beit",),
    r"^blocks\.0\.(gamma_1|mlp\.w1\.weight|mlp\.fc1_g\.weight|attn\.q_proj\.weight|attn\.q_bias) ": ("eva",),
    r"^blocks\.0\.attn\.(qkv|proj)\.": ("vision_transformer", "deit", "eva"),
    r"^layers\.0\.blocks\.0\.attn\.(logit_scale|cpb_mlp)": ("swin_transformer_v2",),
    r"^layers\.0\.blocks\.0\.attn\.": ("swin_transformer",),
    r"^stages\.0\.(blocks\.)?0\.(conv_dw|dwconv)\.": ("convnext",),
    r"^conv_stem\.": ("efficientnet", "mobilenetv3"),
    r"^layer1\.0\.conv1\.": ("resnet",),
}
"""timm's modules by names that tell them apart; the first that matches counts."""

VIT, CONVNEXT = r"^patch_embed\.proj\.weight ", r"^(stem|downsample_layers\.0)\.0\.weight "

EFFICIENTNETS = ((1, 1280), (2, 1408), (3, 1536), (4, 1792), (5, 2048), (6, 2304), (7, 2560))
LITES, NO_SE = ((0, 320), (2, 352), (3, 384), (4, 448)), r"\A(?![\s\S]*\.se\.)"

WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "tiny": ((f"{VIT}(192x3x[13]|96x3x4)",), (f"{CONVNEXT}96x",)),
    "small": (
        (f"{VIT}384x",),
        (f"{VIT}96x3x4", r"^layers\.2\.blocks\.17\."),
        (f"{CONVNEXT}96x", r"^stages\.2\.(blocks\.)?9\."),
    ),
    "medium": ((f"{VIT}512x",),),
    "base": ((f"{VIT}(768x|128x3x4)",), (f"{CONVNEXT}128x",)),
    "large": ((f"{VIT}(1024x|192x3x4)",), (f"{CONVNEXT}192x",)),
    "so400m": ((f"{VIT}1152x",),),
    "huge": ((f"{VIT}1280x",),),
    "giant": ((f"{VIT}1(408|536)x",),),
    "gigantic": ((f"{VIT}1664x",),),
    **{f"patch{size}_": ((rf"{VIT}\d+x3x{size}x",),) for size in (4, 8, 14, 16, 32)},
    "reg": ((r"^(reg|register|storage)_token",),),
    "dinov2": ((r"^blocks\.0\.ls1\.gamma", "^mask_token|^reg_token"),),
    "deit3": ((r"^blocks\.0\.ls1\.gamma",),),
    "dinov3": ((r"^(reg|storage)_token", r"^blocks\.0\.(gamma_1|attn\.qkv\.bias_mask)"),),
    "qkvb": ((r"^blocks\.0\.attn\.q_bias ", r"^reg_token"),),
    "siglip_": ((r"^attn_pool\.latent",),),
    "clip_": ((r"^norm_pre\.",),),
    "v2_": ((r"\.grn\.",),),
    **{f"efficientnet_b{size}": ((rf"^conv_head\.weight {width}x",),) for size, width in EFFICIENTNETS},
    "efficientnet_b0": ((r"^conv_head\.weight 1280x320x", r"\A(?![\s\S]*^blocks\.0\.1\.)"),),
    **{f"efficientnet_lite{size}": ((rf"^conv_head\.weight 1280x{width}x", NO_SE),) for size, width in LITES},
    "mobilenetv3_large": ((r"^conv_head\.weight 1280x960x",),),
    "resnet18": ((r"^layer3\.1\.", r"^layer4\.0\.conv2\.weight 512x512x"),),
    "resnet50": ((r"^layer3\.5\.", r"^layer1\.0\.conv3\."),),
    "resnet101": ((r"^layer3\.22\.",),),
}
"""Words in the names of models, and what such models have: all patterns of one of the tuples.

A line is a tensor's name and shape, e.g. `cls_token 1x1x768`.
"""

ALIKE = 0.9
"""Least share of tensors that fit a backbone which is named."""

MAX_CANDIDATES = 8
"""Models that are built, without memory for their weights, to compare with."""


def closest(tensors: Tensors, name: str, source: str) -> str:
    """Say which backbone a file is for, and what to do.

    Args:
        tensors: As they are in the file.
        name: The backbone that they do not fit.
        source: The file, whose name may be a backbone's.
    """
    best, best_name = 0.0, ""
    empty = {key: torch.empty_like(tensor, device="meta") for key, tensor in tensors.items()}
    text = _described(empty)
    family = next((found for mark, found in FAMILIES.items() if re.search(mark, text, re.MULTILINE)), ())
    for candidate in _candidates(family, text, source):
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
    if best < ALIKE:
        known = (
            f"they look like one of timm.list_models(module='{family[0]}')"
            if family
            else "its kind is unknown"
        )
        return f"{known}; give weights of {name}"
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


def _described(tensors: Tensors) -> str:
    """A line for each tensor, by timm's names where they are known: name and shape."""
    try:
        named = to_timm(tensors, (), "the file").tensors
    except WeightsError:
        named = tensors
    return "\n".join(sorted(f"{key} {'x'.join(map(str, tensor.shape))}" for key, tensor in named.items()))


def _candidates(modules: Iterable[str], text: str, source: str) -> list[str]:
    """Names of models of these modules, of those that differ by image size one, the likely ones first."""
    said = [name for name in timm.list_models() if name in Path(source).name]
    words = [
        word
        for word, rules in WORDS.items()
        if any(all(re.search(pattern, text, re.MULTILINE) for pattern in rule) for rule in rules)
    ]
    names = [name for module in modules for name in timm.list_models(module=module)]
    ranked = sorted(names, key=lambda name: (-sum(word in name for word in words), len(name)))
    return [*sorted(said, key=len)[-1:], *_distinct(ranked)][:MAX_CANDIDATES]


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
