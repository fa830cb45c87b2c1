"""Read weight files of several formats as named float32 tensors, without what a trainer wraps around them."""

import argparse
import copy
import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ramstrans.errors import WeightsError

Tensors = dict[str, Tensor]

WRAPPERS = (
    *("model_ema", "state_dict_ema", "ema_state_dict", "ema", "teacher", "target_encoder"),
    *("state_dict", "model", "module", "network", "net", "backbone", "encoder"),
)
"""Keys that a state dict is nested under; averaged weights first, then teachers."""

INNER_WRAPPERS = re.compile(
    r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_model\.model)\."
)
"""What compilation, FSDP, gradient checkpointing and PEFT write into names, at any depth."""

FORMATS = ".safetensors, .safetensors.index.json, .pth, .pt, .bin, .ckpt, .pth.tar or .npz"

HUB_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Names of weights on the hub."""

UNREADABLE = (
    *(OSError, RuntimeError, ValueError, LookupError, EOFError, AssertionError, AttributeError, TypeError),
    *(ArithmeticError, MemoryError, SafetensorError, pickle.UnpicklingError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)
"""Exceptions that the readers raise on truncated or foreign files (found by fuzzing)."""

GOOGLE_PREFIXES = ("", "opt/target/", "params/", "params/img/")
"""What stands before the ViT's names in archives of vision_transformer and big_vision."""

Reader = Callable[[Path, nn.Module], Any]


def read_weights(path: Path, model: nn.Module) -> tuple[str, Tensors]:
    """Read the tensors of a file, floating-point ones as float32.

    Args:
        path: The file, or a folder of the hub with one.
        model: Into which timm reads an `.npz` archive that is not a plain ViT's; not changed.

    Returns:
        The path, followed by the keys that the tensors were nested under, if any, and the tensors. An
        `.npz` archive's have timm's names, and what is in it besides is given as empty tensors.

    Raises:
        WeightsError: The file is missing or damaged, or its format is unknown.
    """
    read = reader_of(path)
    path = file_of(path)
    try:
        content = read(path, model)
    except WeightsError:
        raise
    except UNREADABLE as error:
        raise WeightsError(_unreadable(path, error)) from error
    source, content = _unwrapped(content, str(path))
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {
        INNER_WRAPPERS.sub("", str(key)): value.detach().float() if value.is_floating_point() else value
        for key, value in items
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise WeightsError(f"{source} holds no named tensors; give a state dict")
    if any(".lora_A." in key for key in tensors):
        raise WeightsError(
            f"{source} holds LoRA adapters that are not merged; save `merge_and_unload()`'s model"
        )
    return source, tensors


def reader_of(path: Path) -> Reader:
    """The function that reads a file of weights, by its suffix; nothing is read.

    Raises:
        WeightsError: The file is missing, or its format is unknown.
    """
    path = file_of(path)
    if not path.is_file():
        reason = "is a folder without weights" if path.is_dir() else "does not exist"
        raise WeightsError(f"model.weights: {path} {reason}; give 'timm', a run folder, or a {FORMATS} file")
    suffix, name = path.suffix.lower(), path.name.lower()
    if suffix in (".pth", ".pt", ".bin", ".ckpt") or name.endswith((".pth.tar", ".pt.tar")):
        return _read_torch
    if name.endswith(".safetensors.index.json"):
        return _read_shards
    readers: dict[str, Reader] = {".safetensors": lambda file, _: load_file(file), ".npz": _read_numpy}
    if suffix not in readers:
        raise WeightsError(f"model.weights: {path} has an unknown format; give a {FORMATS} file")
    return readers[suffix]


def file_of(path: Path) -> Path:
    """The file of weights in a folder of the hub; any other path is itself."""
    files = (path / name for name in HUB_FILES)
    return next((file for file in files if file.is_file()), path) if path.is_dir() else path


def _unwrapped(content: object, source: str) -> tuple[str, object]:
    """Descend to the state dict of a checkpoint, which may hold an optimiser and more beside it."""
    while isinstance(content, Mapping):
        nested = {key: value for key, value in content.items() if _holds_tensors(value)}
        key = next((key for key in WRAPPERS if key in nested), None)
        if key is None and not _has_tensors(content):
            holders = [key for key, value in nested.items() if _has_tensors(value)]
            key = holders[0] if len(holders) == 1 else None
        if key is None:
            break
        content, source = nested[key], f"{source} [{key}]"
    return source, content


def _holds_tensors(value: object) -> bool:
    """Whether it is a mapping that has tensors, or mappings that have."""
    return isinstance(value, Mapping) and (_has_tensors(value) or any(map(_holds_tensors, value.values())))


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _unreadable(path: Path, error: BaseException) -> str:
    """The message for a file that its reader did not understand."""
    if "TorchScript" in str(error):
        return (
            f"{path} is a TorchScript program, not weights, and is not run; where you trust it, save "
            "`torch.jit.load(file).state_dict()` as a .pth file"
        )
    objects: list[str] = []
    if isinstance(error, pickle.UnpicklingError):
        with suppress(*UNREADABLE), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            objects = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    named = f" ({', '.join(sorted(objects)[:3])})" if objects else ""
    return (
        f"{path} cannot be read ({type(error).__name__}): it is truncated, not a {path.suffix} file, "
        f"or holds more than tensors{named}; copy or download it again, or save its state dict alone"
    )


def _read_torch(path: Path, _model: nn.Module) -> object:
    """Load a PyTorch file, which may hold only tensors, plain values and argparse's options."""
    with warnings.catch_warnings():  # a damaged file causes warnings about its "protocol" before the error
        warnings.simplefilter("ignore")
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)


def _read_shards(path: Path, _model: nn.Module) -> Tensors:
    """Load all files of a Hugging Face index."""
    names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
    if any(Path(name).name != name for name in names):
        raise ValueError("an index names files of its own folder")
    return {key: tensor for name in names for key, tensor in load_file(path.parent / name).items()}


def _read_numpy(path: Path, model: nn.Module) -> Tensors:
    """Load a NumPy archive: one of Google's plain ViTs, or one that timm reads into the model itself."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        shapes = {key: archive[key].shape for key in archive.files}
    prefix = next((start for start in GOOGLE_PREFIXES if f"{start}embedding/kernel" in shapes), None)
    inner = {
        key.removeprefix(prefix or ""): shape for key, shape in shapes.items() if key.startswith(prefix or "")
    }
    if prefix is None or "conv_root/kernel" in inner or len(inner["embedding/kernel"]) != 4:
        return _read_into(copy.deepcopy(model), path)
    has_pre_logits = any(key.startswith("pre_logits/") for key in inner)
    donor = _google_vit(inner, 0 if has_pre_logits else inner.get("head/bias", (0,))[0])
    donor.load_pretrained(str(path))
    others = [key for key in shapes if not key.startswith(prefix) or key.startswith(f"{prefix}pre_logits/")]
    return dict(donor.state_dict()) | {key: torch.empty(0) for key in others}


def _google_vit(shapes: Mapping[str, tuple[int, ...]], num_classes: int) -> VisionTransformer:
    """A ViT of the sizes in one of Google's archives, which may stack all layers in one tensor."""
    queries = [
        shape for key, shape in shapes.items() if re.match(r"Transformer/encoderblock.*/query/kernel$", key)
    ]
    stacked = len(queries[0]) == 4
    hidden = next(shape[-1] for key, shape in shapes.items() if key.endswith("/Dense_0/kernel"))
    position = shapes.get("pos_embedding") or shapes["Transformer/posembed_input/pos_embedding"]
    patch_size, _, _, width = shapes["embedding/kernel"]
    has_class_token, has_pool = "cls" in shapes, "MAPHead_0/probe" in shapes
    with torch.random.fork_rng(devices=[]):  # its first values are not used
        return VisionTransformer(
            img_size=isqrt(position[1] - has_class_token) * patch_size,
            patch_size=patch_size,
            num_classes=num_classes,
            class_token=has_class_token,
            global_pool="map" if has_pool else "token" if has_class_token else "avg",
            fc_norm=False,
            embed_dim=width,
            depth=queries[0][0] if stacked else len(queries),
            num_heads=queries[0][-2],
            mlp_ratio=(hidden + 0.5) / width,  # timm rounds down
        )


def _read_into(donor: nn.Module, path: Path) -> Tensors:
    """Let timm read an archive into a model, and return what it filled."""
    load: Any = getattr(donor, "load_pretrained", None)
    if load is None:
        raise WeightsError(
            f"{path}: timm reads no .npz archive into a {type(donor).__name__}; convert it to .safetensors"
        )
    for parameter in donor.parameters():
        parameter.data.fill_(torch.nan)
    load(str(path))
    return {key: tensor for key, tensor in donor.state_dict().items() if not tensor.isnan().any()}
