"""Fit tensors to a timm model: its names, its image and patch size, its prefix tokens, its windows."""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from math import isqrt, prod
from typing import Any, NamedTuple

import timm
import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor, nn

from ramstrans.models.layouts import LAYOUTS
from ramstrans.models.naming import Named, Tensors, to_timm

PATCH, TABLE = "patch_embed.proj.weight", "relative_position_bias_table"

FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained", "_convert_torchvision")
"""What timm's modules call the function that converts published weights."""

MISFITS = (LookupError, AttributeError, RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError)
"""Exceptions of timm's functions on tensors that are not for them."""

STATISTICS = ("running_mean", "running_var")
"""Buffers that are learnt; all others follow from the model's sizes."""

ESSENTIAL = ("reg_token", "norm_pre.", "norm.", "fc_norm.")
"""Tensors outside the blocks without which a network computes something else."""

INCIDENTAL = re.compile(
    r"position_index|attn_mask|bias_mask|rope|inv_freq|periods|coords_table|num_batches|total_"
)
"""Tensors in published files that are computed from sizes, or by tools."""


class Fit(NamedTuple):
    """What of a file fits a model.

    Attributes:
        used: Values for the model, by its names.
        after: All tensors after they were resampled.
        named: The file's tensors by timm's names, before that.
        missing: Tensors that the model needs and the file lacks, or has in another shape.
        homeless: Tensors of the file that belong into the model's layers, where the model has no place.
    """

    used: Tensors
    after: Tensors
    named: Named
    missing: tuple[str, ...]
    homeless: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the model computes what the file's network does."""
        return not self.missing and not self.homeless


def fit(tensors: Tensors, model: nn.Module, source: str) -> Fit:
    """Fit tensors to a model as well as they do.

    Tried in turn until nothing is missing: names by `to_timm`, then timm's own filter after it, then, unless
    `LAYOUTS` has renames, that filter on the names as they are in the file.

    Args:
        tensors: As they are in the file.
        model: Built by timm; not changed.
        source: The file, for errors.

    Raises:
        WeightsError: The file holds several networks.
    """
    own = model.state_dict()
    named = to_timm(tensors, own, source)
    starts = [(named, False), (named, True)]
    if not (named.layout and LAYOUTS[named.layout].renames):
        starts.append((Named(tensors, {}, named.layout), True))
    best: Fit | None = None
    for start, filtered in starts:
        after = _resampled(dict(start.tensors), model, own)
        if filtered:
            after = _resampled(_filtered(after, model), model, own)
        attempt = _judged(start, after, model, own)
        if (
            best is None
            or len(attempt.used) > len(best.used)
            or (attempt.is_complete and not best.is_complete)
        ):
            best = attempt
        if best.is_complete:
            break
    assert best is not None
    return best


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the classifier's tensors, which may stay random: classes differ between data sets."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    names = {named} if isinstance(named, str) else set(named)
    if callable(getter := getattr(model, "get_classifier", None)):
        heads = getter()
        parts = heads if isinstance(heads, tuple | list) else (heads,)
        names |= {name for name, module in model.named_modules() if any(module is part for part in parts)}
    return tuple(sorted(f"{name}." for name in names | {"head_dist"} if name))


def needed_names(model: nn.Module, own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the tensors that weights must bring: all but the classifier's and what follows from sizes."""
    learnt = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    heads = head_names(model)
    return tuple(
        key for key in own if (key in learnt or key.endswith(STATISTICS)) and not key.startswith(heads)
    )


def _judged(named: Named, after: Tensors, model: nn.Module, own: Tensors) -> Fit:
    """Sort fitted tensors into those that the model takes, and those that it lacks or has no place for."""
    heads = head_names(model)
    used = {key: after[key] for key in own if key in after and after[key].shape == own[key].shape}
    missing = tuple(key for key in needed_names(model, own) if key not in used)
    layers = {match[1] for key in own if (match := re.match(r"(.+\.\d+)\.", key))}
    homeless = tuple(
        key
        for key, tensor in after.items()
        if key not in own and not key.startswith(heads) and _matters(key, tensor, layers)
    )
    return Fit(used, after, named, missing, homeless)


def _matters(key: str, tensor: Tensor, layers: set[str]) -> bool:
    """Whether a network without this tensor, which is not one of the model's, computes something else."""
    match = re.match(r"(.+\.\d+)\.", key)
    inside = match is not None and match[1] in layers
    if not (inside or key.startswith(ESSENTIAL)) or INCIDENTAL.search(key):
        return False
    return tensor.is_meta or bool(tensor.is_floating_point() and tensor.count_nonzero())


def _filtered(tensors: Tensors, model: nn.Module) -> Tensors:
    """Apply the function by which timm converts published weights of this model, if it has one."""
    function = _filter_of(model)
    if function is None:
        return tensors
    given = inspect.signature(function).parameters
    try:
        with torch.no_grad(), redirect_stdout(None):  # one of them prints
            copies = {  # one of them adds to tokens in place
                key: tensor.clone() if key.endswith("_token") else tensor for key, tensor in tensors.items()
            }
            return dict(function(copies, model) if len(given) > 1 else function(copies))
    except MISFITS:
        return tensors


def _filter_of(model: nn.Module) -> Callable[..., Any] | None:
    """Find timm's filter, of the module that defines the model's name, else of its class."""
    architecture = getattr(model, "pretrained_cfg", {}).get("architecture")
    modules = [type(model).__module__]
    if architecture and timm.is_model(architecture):
        modules.insert(0, timm.model_entrypoint(architecture).__module__)
    found = (getattr(sys.modules[module], name, None) for module in modules for name in FILTERS)
    return next((function for function in found if function is not None), None)


def _resampled(tensors: Tensors, model: nn.Module, own: Tensors) -> Tensors:
    """Fit patch kernels, positions and tables of relative positions to the model's sizes.

    What does not fit stays as it is.
    """
    _fit_norm(tensors, own)
    _fit_position_rows(tensors, model, own)
    _spread_table(tensors, own)
    for key, tensor in list(tensors.items()):
        if key not in own:
            continue
        try:
            tensors[key] = _resized(key, tensor, model, own[key])
        except MISFITS:
            continue
    return tensors


def _fit_norm(tensors: Tensors, own: Tensors) -> None:
    """Take the norm before the pooling for the one after it, or the reverse, if the model has only that."""
    for theirs, ours in (("norm", "fc_norm"), ("fc_norm", "norm")):
        if f"{ours}.weight" in own and f"{theirs}.weight" not in own and f"{ours}.weight" not in tensors:
            for kind in ("weight", "bias"):
                if f"{theirs}.{kind}" in tensors and f"{ours}.{kind}" in own:
                    tensors[f"{ours}.{kind}"] = tensors.pop(f"{theirs}.{kind}")


def _num_prefix(model: nn.Module, own: Tensors) -> int:
    """Number of rows of the model's `pos_embed` that are not patches'."""
    grid = _grid_of(model)
    length = own["pos_embed"].shape[1]
    return length - prod(grid) if grid else length - isqrt(length) ** 2


def _grid_of(model: nn.Module) -> tuple[int, int] | None:
    """`(rows, columns)` of patches."""
    grid: Any = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return tuple(grid) if grid is not None else None


def _fit_position_rows(tensors: Tensors, model: nn.Module, own: Tensors) -> None:
    """Give positions the rows of the model's tokens before the patches, without a change of the function.

    The row of a distillation token goes with the token. A class token's row is added to the token if the
    model adds positions only to patches; it is zero if the source does. The source's grid is assumed to be
    square, as in every published ViT.
    """
    position, ours = tensors.get("pos_embed"), own.get("pos_embed")
    if position is None or ours is None or position.ndim != 3 or ours.ndim != 3:
        return
    if "dist_token" in tensors and "dist_token" not in own:
        position = torch.cat([position[:, :1], position[:, 2:]], dim=1)
    num_prefix, num_rows = _num_prefix(model, own), position.shape[1]
    if num_prefix == 0 and "cls_token" in tensors and isqrt(num_rows - 1) ** 2 == num_rows - 1:
        if "cls_token" in own:
            tensors["cls_token"] = tensors["cls_token"] + position[:, :1]
        position = position[:, 1:]
    elif num_prefix == 1 and num_rows != ours.shape[1] and isqrt(num_rows) ** 2 == num_rows:
        position = torch.cat([torch.zeros_like(position[:, :1]), position], dim=1)
    tensors["pos_embed"] = position


def _spread_table(tensors: Tensors, own: Tensors) -> None:
    """Give each block BEiT's table of relative positions, which all share while it is pretrained."""
    shared = tensors.get(f"rel_pos_bias.{TABLE}")
    if shared is None or f"rel_pos_bias.{TABLE}" in own:
        return
    places = [key for key in own if re.fullmatch(rf"blocks\.\d+\.attn\.{TABLE}", key) and key not in tensors]
    if places:
        del tensors[f"rel_pos_bias.{TABLE}"]
        tensors.update(dict.fromkeys(places, shared))


def _resized(key: str, tensor: Tensor, model: nn.Module, ours: Tensor) -> Tensor:
    """One tensor in the model's size, if it can be resampled; else itself."""
    resized = tensor
    if key == "pos_embed" and tensor.ndim == ours.ndim == 3:
        resized = _resized_positions(tensor, model, ours)
    elif key.endswith(TABLE):
        window = getattr(model.get_submodule(key.rpartition(".")[0]), "window_size", None)
        if window is not None and (tensor.shape != ours.shape or window[0] != window[1]):
            resized = resize_rel_pos_bias_table(tensor, window, tuple(ours.shape))
    elif tensor.shape == ours.shape:
        pass
    elif key.endswith(PATCH) and tensor.ndim == 4 and tensor.shape[:2] == ours.shape[:2]:
        resized = resample_patch_embed(tensor, list(ours.shape[2:]))
    elif "pos_embed" in key:
        resized = _resized_map(tensor, ours)
    elif (
        tensor.squeeze().shape == ours.squeeze().shape
    ):  # a linear layer as a 1x1 convolution, or the reverse
        resized = tensor.reshape(ours.shape)
    return resized


def _resized_positions(position: Tensor, model: nn.Module, ours: Tensor) -> Tensor:
    """(1, P + N, D) positions, the grid of patches resampled to the model's."""
    grid, length = _grid_of(model), position.shape[1]
    num_prefix = ours.shape[1] - prod(grid) if grid else length - isqrt(length) ** 2
    if grid is None:
        grid = (isqrt(ours.shape[1] - num_prefix),) * 2
    side = isqrt(max(length - num_prefix, 0))
    if num_prefix + side**2 != length or (side, side) == grid:
        return position
    resized: Tensor = resample_abs_pos_embed(
        position, list(grid), old_size=[side, side], num_prefix_tokens=num_prefix
    )
    return resized


def _resized_map(tensor: Tensor, ours: Tensor) -> Tensor:
    """Positions as a map, (1, H, W, D) or (1, D, H, W), or as rows of a class token and patches."""
    resized: Tensor
    if tensor.ndim == ours.ndim == 4 and tensor.shape[3] == ours.shape[3]:
        resized = resample_abs_pos_embed_nhwc(tensor, list(ours.shape[1:3]))
    elif tensor.ndim == ours.ndim == 4:
        resized = resample_abs_pos_embed_nhwc(tensor.permute(0, 2, 3, 1), list(ours.shape[2:]))
        resized = resized.permute(0, 3, 1, 2)
    else:
        rows, goal = tensor.reshape(1, -1, tensor.shape[-1]), prod(ours.shape[:-1])
        num_prefix = goal - isqrt(goal) ** 2
        resized = resample_abs_pos_embed(rows, [isqrt(goal)] * 2, num_prefix_tokens=num_prefix)
    return resized.reshape(ours.shape)
