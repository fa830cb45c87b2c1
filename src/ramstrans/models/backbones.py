"""Build the timm image classifier that a config names, at sizes that it takes."""

import difflib
import inspect
import re
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models import _registry
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ramstrans.errors import ConfigError
from ramstrans.models.anatomy import Size, inspect_model
from ramstrans.models.config import ModelConfig

FIELDS = {
    "img_size": "image_size",
    "num_classes": "num_classes",
    "dynamic_img_size": "region_size",
    "global_pool": "global_pool",
    "drop_path_rate": "drop_path",
}
"""Arguments of `timm.create_model` that follow from a field of the config."""

OFFERED: dict[str, tuple[str, ...]] = {
    "img_size": (),
    "dynamic_img_size": (),
    "pos_drop_rate": (),
    "proj_drop_rate": ("drop_rate",),
}
"""Arguments that a model need not take, and what is offered in their place."""

UNBUILDABLE = (
    *(TypeError, ValueError, KeyError, AssertionError, RuntimeError, ZeroDivisionError, AttributeError),
    *(NotImplementedError, IndexError),
)
"""Exceptions of timm's constructors, and of forward passes at sizes that a model cannot take."""

MAX_TRIES = 8
"""Sizes that are tried to name one that a backbone takes."""


def current_name(backbone: str) -> str:
    """The present name of a model that timm once had under another.

    Raises:
        ConfigError: timm has removed it.

    >>> current_name("vit_base_patch16_224_in21k")
    'vit_base_patch16_224.augreg_in21k'
    """
    if backbone not in _registry._deprecated_models:
        return backbone
    current: str | None = _registry._deprecated_models[backbone]
    if current is None:
        raise ConfigError(f"model.backbone: timm has removed '{backbone}'; see timm.list_models()")
    return current


def check_name(name: str) -> None:
    """Raise ConfigError unless timm has a model of that name, and its tag, if it has one."""
    if not name or not timm.is_model(name):
        near = nearest_names(name)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ConfigError(f"model.backbone: '{name}' is not known to timm; {hint}")
    architecture, _, tag = name.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        allowed = f"give {', '.join(tags)}, or no tag for its default" if tags else "it has none at all"
        raise ConfigError(f"model.backbone: timm has no weights '{tag}' for {architecture}; {allowed}")


def nearest_names(name: str) -> list[str]:
    """Up to three names of timm's models that are most like one.

    >>> nearest_names("vit_bse_patch16_224")[0], nearest_names("resnet_50")[0], nearest_names("")
    ('vit_base_patch16_224', 'resnet50', [])
    """
    architecture = name.partition(".")[0].lower()
    names = timm.list_models()
    near = difflib.get_close_matches(architecture, names, n=3)
    words = [word for word in re.split(r"[_\W]+", architecture) if len(word) > 1]
    near += difflib.get_close_matches(architecture, [n for n in names if words and words[0] in n], 3, 0.3)
    beginnings = {known[: len(architecture)]: known for known in reversed(names)} if architecture else {}
    near += [beginnings[start] for start in difflib.get_close_matches(architecture, beginnings, 3, 0.7)]
    return list(dict.fromkeys(near))[:3]


def build_backbone(config: ModelConfig) -> nn.Module:
    """Build the timm model that a config asks for, with random weights.

    Raises:
        ConfigError: Unknown backbone, one that cannot work, or an image size that it does not take.
    """
    name = current_name(config.backbone)
    check_name(name)
    for option, field in FIELDS.items():
        if option in config.backbone_options:
            raise ConfigError(f"model.backbone_options has '{option}'; set model.{field} instead")
    if config.global_pool == "":
        raise ConfigError(
            "model.global_pool is empty; the classifier reads one vector: give avg, say, or leave it out"
        )
    sizes = tuple(dict.fromkeys(config.scale_sizes))
    try:
        model = _create(name, _options(config))
    except UNBUILDABLE as error:
        options = {key: value for key, value in _options(config).items() if value not in (0.0, False)}
        message = f"model.backbone: timm cannot build '{name}' with {options}: {_one_line(error)}"
        raise ConfigError(message + _advice(config, sizes)) from error
    check_backbone(model)
    if hasattr(model, "aux_head"):
        model.register_module("aux_head", None)  # of VOLO: it labels tokens, in training of its own
    is_refused = config.method == "transfg" and type(model) is not VisionTransformer  # by the method, later
    if config.patch_stride is not None and not is_refused:
        _set_patch_stride(model, config, config.patch_stride)
    for size in sizes:
        _check_size(model, config, size)
    return model


def _options(config: ModelConfig) -> dict[str, Any]:
    """Arguments of `timm.create_model` for a config."""
    options: dict[str, Any] = {"num_classes": config.num_classes, "img_size": config.input_size}
    if len(set(config.scale_sizes)) > 1:
        options["dynamic_img_size"] = True
    if config.dropout:
        options |= {"pos_drop_rate": config.dropout, "proj_drop_rate": config.dropout}
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    if config.global_pool is not None:
        options["global_pool"] = config.global_pool
    return options | config.backbone_options


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    """Call `timm.create_model`; arguments that are only offered are left out where the model has none."""
    options = dict(options)
    while True:
        try:
            model: nn.Module = timm.create_model(name, pretrained=False, **options)
            return model
        except TypeError as error:
            _, is_told, names = str(error).partition("unexpected keyword argument")
            unknown = [each for each in re.findall(r"'(\w+)'", names) if each in OFFERED and each in options]
            if not is_told or not unknown:
                raise
            for each in unknown:
                options |= dict.fromkeys(OFFERED[each], options.pop(each))


def check_backbone(model: Any) -> None:  # noqa: ANN401 - any timm model
    """Raise ConfigError, saying why, unless a timm model can serve as a backbone."""
    reason = None
    if not all(hasattr(model, method) for method in ("forward_features", "forward_head", "get_classifier")):
        reason = f"{type(model).__name__} has no head that classifies images"
    elif hasattr(model, "head_dist") and getattr(model, "num_prefix_tokens", 0) > 1:
        reason = "its two heads read two tokens (a distilled model); take the one without 'distilled'"
    elif not isinstance(getattr(model, "patch_drop", None), nn.Identity | None):
        reason = "it drops patches (patch_drop_rate); the saliency map needs all"
    elif _num_channels(model) != 3:
        reason = f"it reads {_num_channels(model)} channels; images have 3"
    elif len(getattr(model, "blocks", "some")) == 0:
        reason = "it has no blocks (depth 0)"
    if reason:
        raise ConfigError(f"this backbone cannot work: {reason}; take e.g. vit_base_patch16_224")


def _num_channels(model: Any) -> int:  # noqa: ANN401 - any timm model
    """Number of channels of a model's input."""
    published: int = getattr(model, "pretrained_cfg", {}).get("input_size", (3,))[0]
    number: int = getattr(model, "in_chans", published)
    return number


def _check_size(model: nn.Module, config: ModelConfig, size: Size) -> None:
    """Raise ConfigError unless a model takes images of a size."""
    height, width = size
    embed = getattr(model, "patch_embed", None)
    name = "image_size" if size == config.input_size else "region_size"
    if isinstance(embed, PatchEmbed) and not embed.dynamic_img_pad:
        down, across = embed.patch_size
        if height < down or width < across:
            raise ConfigError(
                f"model.{name} {height}x{width} is smaller than a patch of {down}x{across}; "
                f"give at least one patch, better {14 * down} or more"
            )
        if config.patch_stride is None and (height % down or width % across):
            raise ConfigError(
                f"model.{name} {height}x{width} is not a multiple of the patch {down}x{across}; "
                f"take {_nearest(height, down)}x{_nearest(width, across)}"
            )
    try:
        inspect_model(model, size)
    except ConfigError:
        raise
    except UNBUILDABLE as error:
        message = f"model.{name}: {config.backbone} does not take {height}x{width} pixels"
        raise ConfigError(f"{message} ({_one_line(error)}){_advice(config, (size,))}") from error


def _nearest(side: int, patch: int) -> int:
    """The multiple of a patch that is nearest to a side.

    >>> _nearest(223, 16), _nearest(230, 16), _nearest(3, 16)
    (224, 224, 16)
    """
    return max((side + patch // 2) // patch, 1) * patch


def _advice(config: ModelConfig, sizes: tuple[Size, ...]) -> str:
    """The nearest size that a backbone takes, as the end of a message; empty if none was found or all fit."""
    if len(config.scale_sizes) > 1 and len(set(config.scale_sizes)) > 1 and _takes(config, config.input_size):
        return "; leave model.region_size out, all scales of this backbone have one size"
    for size in sizes:
        if not _takes(config, size):
            near = _nearest_size(config, size)
            return f"; take {near[0]}x{near[1]}" if near else ""
    return ""


def _nearest_size(config: ModelConfig, size: Size) -> Size | None:
    """The size nearest to one that a backbone takes, among multiples of 32, 28 and 24 and its own."""
    own = tuple(timm.get_pretrained_cfg(current_name(config.backbone)).input_size[1:])
    near = {tuple(max(round(side / step), 1) * step for side in size) for step in (32, 28, 24, 64, 16, 14)}
    near |= {(max(each),) * 2 for each in near}  # some models take only squares
    by_distance = sorted(near, key=lambda each: sum(abs(a - b) for a, b in zip(each, size, strict=True)))
    for height, width in (*by_distance[:MAX_TRIES], own):
        if _takes(config, (height, width)):
            return height, width
    return None


def _takes(config: ModelConfig, size: Size) -> bool:
    """Whether a backbone can be built, and run, at a size."""
    options = _options(config) | {"img_size": size}
    options.pop("dynamic_img_size", None)
    try:
        with torch.device("meta"):
            inspect_model(_create(current_name(config.backbone), options), size)
    except UNBUILDABLE:
        return False
    return True


def _set_patch_stride(model: Any, config: ModelConfig, stride: int) -> None:  # noqa: ANN401
    """Make the patches of a ViT overlap."""
    embed = getattr(model, "patch_embed", None)
    has_positions = type(model) is VisionTransformer and model.pos_embed is not None
    if not has_positions or not isinstance(getattr(embed, "proj", None), nn.Conv2d):
        raise ConfigError(
            f"model.patch_stride is only for ViTs whose patches are convolved from pixels and have learnt "
            f"positions, not for a {type(model).__name__}; leave it out"
        )
    assert embed is not None, "it has a proj"
    down, across = embed.patch_size
    if not 1 <= stride <= min(down, across):
        raise ConfigError(
            f"model.patch_stride is {stride}; give 1 to {min(down, across)} (the patch size: no overlap)"
        )
    height, width = config.input_size
    if height < down or width < across:
        return  # told by `_check_size`
    embed.proj.stride = (stride, stride)
    embed.img_size = None  # unchecked: there may be pixels left over
    embed.grid_size = ((height - down) // stride + 1, (width - across) // stride + 1)
    embed.num_patches = embed.grid_size[0] * embed.grid_size[1]
    num_prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    model.pos_embed = nn.Parameter(torch.empty(1, num_prefix + embed.num_patches, model.embed_dim))
    nn.init.trunc_normal_(model.pos_embed, std=0.02)


def _one_line(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(inspect.cleandoc(str(error)).split()) or type(error).__name__
