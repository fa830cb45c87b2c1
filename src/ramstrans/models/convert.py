"""Read weight files of several formats and naming schemes as tensors by timm's names."""

import math
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ramstrans.errors import WeightsError

Tensors = dict[str, Tensor]

WRAPPERS = ("model_ema", "state_dict_ema", "teacher", "state_dict", "model")
"""Keys that a state dict is nested under; the averaged weights first."""

ROOT = "patch_embed.proj.weight"
"""A tensor that every ViT has: what stands before its name is a wrapper's prefix."""

FORMATS = ".safetensors, .pth, .pt, .bin, .ckpt, .pth.tar or .npz"

UNREADABLE = (
    *(OSError, RuntimeError, ValueError, LookupError, EOFError, AssertionError, AttributeError, TypeError),
    *(ArithmeticError, MemoryError, SafetensorError, pickle.UnpicklingError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)
"""Exceptions that the three readers raise on truncated or foreign files (found by fuzzing)."""


def read_weights(path: Path) -> tuple[str, Tensors]:
    """Read the tensors of a file, by timm's names.

    Returns:
        The path, followed by the key that the tensors were nested under, if any, and the tensors.

    Raises:
        WeightsError: The file is missing or damaged, or its format is unknown.
    """
    read = reader_of(path)
    try:
        content = read(path)
    except UNREADABLE as error:
        raise WeightsError(
            f"{path} cannot be read ({type(error).__name__}): it is truncated, not a {path.suffix} file, "
            "or holds more than tensors; copy or download it again, or save its state dict alone"
        ) from error
    source = str(path)
    while isinstance(content, Mapping) and (
        wrapper := next((key for key in WRAPPERS if key in content), None)
    ):
        content, source = content[wrapper], f"{source} [{wrapper}]"
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(key): value.detach() for key, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{source} holds no named tensors; give a state dict")
    return source, _timm_names(_without_prefixes(tensors, source))


def reader_of(path: Path) -> Callable[[Path], Any]:
    """The function that reads a file of weights, by its suffix; nothing is read.

    Raises:
        WeightsError: The file is missing, or its format is unknown.
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(f"model.weights: {path} {reason}; give 'timm', a run folder, or a {FORMATS} file")
    suffix = path.suffix.lower()
    if suffix in (".pth", ".pt", ".bin", ".ckpt") or path.name.lower().endswith((".pth.tar", ".pt.tar")):
        return _read_torch
    readers: dict[str, Callable[[Path], Any]] = {".safetensors": load_file, ".npz": _read_google}
    if suffix not in readers:
        raise WeightsError(f"model.weights: {path} has an unknown format; give a {FORMATS} file")
    return readers[suffix]


def _timm_names(tensors: Tensors) -> Tensors:
    """Rename DeiT III's `gamma_1` and DINOv2's `register_tokens` to timm's names."""
    return {
        re.sub(r"\.gamma_(\d)$", r".ls\1.gamma", key).replace("register_tokens", "reg_token"): tensor
        for key, tensor in tensors.items()
    }


def _read_torch(path: Path) -> object:
    """Load a PyTorch file, which may hold only tensors and plain values."""
    with warnings.catch_warnings():  # a damaged file causes warnings about its "protocol" before the error
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_google(path: Path) -> Tensors:
    """Load one of Google's NumPy archives, by timm's reader into a ViT of the sizes in the archive.

    A head that follows a `pre_logits` layer, which timm's ViT does not have, is left out.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        shapes = {key.removeprefix("opt/target/"): archive[key].shape for key in archive.files}
    patch_size, _, _, width = shapes["embedding/kernel"]
    num_patches = shapes["Transformer/posembed_input/pos_embedding"][1] - 1
    queries = [shape for key, shape in shapes.items() if key.endswith("/query/kernel")]
    has_pre_logits = any(key.startswith("pre_logits/") for key in shapes)
    with torch.random.fork_rng(devices=[]):  # its first values are not used
        vit = VisionTransformer(
            img_size=math.isqrt(num_patches) * patch_size,
            patch_size=patch_size,
            num_classes=0 if has_pre_logits else shapes["head/bias"][0],
            embed_dim=width,
            depth=len(queries),
            num_heads=queries[0][1],
        )
    vit.load_pretrained(str(path))
    return dict(vit.state_dict())


def _without_prefixes(tensors: Tensors, source: str) -> Tensors:
    """Strip what stands before the ViT's names, e.g. Lightning's `model.`, DDP's `module.` or `backbone.`.

    A name that is taken keeps its prefix, and so does a tensor beside the ViT, such as its head.

    Raises:
        WeightsError: There are several ViTs.
    """
    prefixes = [key.removesuffix(ROOT) for key in tensors if key.endswith(ROOT)]
    if len(prefixes) > 1:
        raise WeightsError(
            f"{source} holds several ViTs, {', '.join(prefixes)}; save the state dict of one of them alone"
        )
    prefix = prefixes[0] if prefixes else ""
    outer = [prefix[: end + 1] for end in reversed(range(len(prefix))) if prefix[end] == "."]
    short: Tensors = {}
    for key in sorted(tensors, key=lambda key: key.startswith(tuple(outer))):
        name = next((key.removeprefix(start) for start in outer if key.startswith(start)), key)
        short[key if name in short else name] = tensors[key]
    return short
