"""Start from a model that ramstrans saved: of the same classes or others, with any number of scales."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from ramstrans.errors import WeightsError
from ramstrans.models.backbones import build_backbone, current_name
from ramstrans.models.config import ModelConfig
from ramstrans.models.convert import reader_of
from ramstrans.models.methods.build import build_method, build_model
from ramstrans.models.methods.method import Method
from ramstrans.models.pretrained import check_published
from ramstrans.saved.metadata import WEIGHTS_FILE, load_metadata, member, saved_folder
from ramstrans.saved.model import load_into, load_state

logger = logging.getLogger(__name__)

VIT = "encoder.model."
"""Prefix of the ViT's tensors in a saved model."""


def build_started(config: ModelConfig, class_names: Sequence[str]) -> Method:
    """Build a model with its first weights, where `config.weights` may be a saved model too.

    Args:
        config: Of the model.
        class_names: In label order. Of a saved model's head, the rows of classes with these names are kept.

    Raises:
        ConfigError: The model cannot be built.
        WeightsError: The weights are missing or damaged, or do not fit.
    """
    folder = saved_folder(config.weights)
    if folder is None:
        return build_model(config)
    model = build_model(replace(config, weights=None))
    start_from(model, folder, config, class_names)
    return model


def check_model(config: ModelConfig) -> None:
    """Raise, before any image is read, if the model cannot be built or its first weights are not there.

    Raises:
        ConfigError: The backbone or a size cannot work.
        WeightsError: There are no such weights.
    """
    with torch.device("meta"):  # nothing is allocated
        backbone = build_backbone(replace(config, num_classes=config.num_classes or 2))
        build_method(backbone, config)
    folder = saved_folder(config.weights)
    if folder is not None:
        member(folder, WEIGHTS_FILE)
        check_backbone(folder, load_metadata(folder).model, config)
    elif config.weights == "timm":
        check_published(current_name(config.backbone))
    elif config.weights is not None:
        reader_of(Path(config.weights))


def check_backbone(folder: Path, saved: ModelConfig, config: ModelConfig) -> None:
    """Raise WeightsError unless a saved model has the backbone of a config."""
    theirs, ours = (backbone.partition(".")[0] for backbone in (saved.backbone, config.backbone))
    if theirs != ours:
        raise WeightsError(
            f"{folder} is a {theirs}, not a {ours}; give --model.backbone {theirs}, or other --model.weights"
        )


def start_from(model: Method, folder: Path, config: ModelConfig, class_names: Sequence[str]) -> None:
    """Fill a model with the weights of a saved one, and log what was taken and what starts new.

    Further scales start with the class token of the last one, positions are resampled to another grid, and
    head rows of classes without a namesake stay random.

    Raises:
        WeightsError: It is another backbone, or its weights do not fit.
    """
    metadata, tensors = load_metadata(folder), load_state(folder)
    check_backbone(folder, metadata.model, config)
    notes = _fit_scales(tensors, model, metadata.model) + _fit_grid(tensors, model, metadata.model)
    notes += _fit_head(tensors, model.state_dict(), head_names(model), metadata.class_names, class_names)
    notes += _fit_method(tensors, model)
    load_into(model, tensors, f"{folder} does not fit this model", "leave out other --model options")
    logger.info("weights from %s: %s", folder, "; ".join(notes))


def _fit_scales(tensors: dict[str, Tensor], model: Method, saved: ModelConfig) -> list[str]:
    """Take as many class tokens as the model has scales, with their positions; the last one is repeated."""
    before, after = saved.num_scales, model.num_scales
    if before == after:
        return []
    told = f"{before} scales, now {after}"
    if model.encoder.class_tokens == "shared" or VIT + "cls_token" not in tensors:
        return [told]
    rows = [min(scale, before - 1) for scale in range(after)]
    tensors[VIT + "cls_token"] = tensors[VIT + "cls_token"][:, rows]
    if VIT + "pos_embed" in tensors and not model.encoder.model.no_embed_class:
        position = tensors[VIT + "pos_embed"]
        tensors[VIT + "pos_embed"] = torch.cat([position[:, rows], position[:, before:]], dim=1)
    new = f", new ones as copies of scale {before}'s" if after > before else ""
    return [told + new]


def _fit_method(tensors: dict[str, Tensor], model: Method) -> list[str]:
    """Keep the model's own parts of its method, outside of the encoder, and leave out those of another."""
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("encoder.")}
    gone = [name for name in tensors if not name.startswith("encoder.") and name not in own]
    for name in gone:
        del tensors[name]
    new = [name for name in own if name not in tensors]
    tensors |= {name: own[name] for name in new}
    notes = [f"{name} left out" for name in dict.fromkeys(name.partition(".")[0] for name in gone)]
    return notes + [f"{name} starts new" for name in dict.fromkeys(name.partition(".")[0] for name in new)]


def _fit_grid(tensors: dict[str, Tensor], model: Method, saved: ModelConfig) -> list[str]:
    """Resample the positions of a ViT's patches to the model's grid."""
    vit, patch = model.encoder.model, model.encoder.patch_size
    if patch is None or VIT + "pos_embed" not in tensors:
        return []
    grid = tuple(vit.patch_embed.grid_size)
    strides = patch if saved.patch_stride is None else (saved.patch_stride,) * 2
    sides = zip(saved.input_size, patch, strides, strict=True)
    before = tuple((side - size) // stride + 1 for side, size, stride in sides)
    if before == grid:
        return []
    num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    tensors[VIT + "pos_embed"] = resample_abs_pos_embed(
        tensors[VIT + "pos_embed"], list(grid), old_size=list(before), num_prefix_tokens=num_prefix
    )
    return [f"positions of {before[0]}x{before[1]} patches resampled to {grid[0]}x{grid[1]}"]


def head_names(model: Method) -> list[str]:
    """Names of the classifier's tensors in the model's state dict."""
    head = {id(tensor) for tensor in model.encoder.get_classifier().state_dict(keep_vars=True).values()}
    return [name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in head]


def _fit_head(
    tensors: dict[str, Tensor],
    own: dict[str, Tensor],
    names: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
) -> list[str]:
    """Sort the head's rows by the names of the classes; those without a namesake are the model's own."""
    if list(before) == list(after):
        return [f"all, for the same {len(after)} classes"]
    row_of = {name: row for row, name in enumerate(before)}
    kept = [(row, row_of[name]) for row, name in enumerate(after) if name in row_of]
    for key in names:
        sized = (len(before), len(after)) == (len(tensors.get(key, ())), len(own[key])) and own[key].ndim
        if sized and tensors[key].shape[1:] == own[key].shape[1:]:
            head = own[key].clone()
            head[[new for new, _ in kept]] = tensors[key][[old for _, old in kept]]
            tensors[key] = head
    new_names = [name for name in after if name not in row_of]
    named = f" ({', '.join(new_names[:3])}{', ...' if len(new_names) > 3 else ''})"
    rest = f", {len(new_names)} start new{named}" if new_names else ""
    dropped = len(before) - len(kept)
    gone = f", {dropped} of its {len(before)} are not in this data set" if dropped else ""
    return [f"head rows of {len(kept)} of {len(after)} classes kept by name{rest}{gone}"]
