"""Read weight files of several formats and naming schemes as tensors by timm's names."""

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
    *(OverflowError, MemoryError, SafetensorError, pickle.UnpicklingError, struct.error),
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
    readers: dict[str, Callable[[Path], Any]] = {".safetensors": load_file, ".npz": _read_npz}
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


def _read_npz(path: Path) -> Tensors:
    """Load a NumPy archive in Google's format, by timm's names."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return from_google({key: torch.from_numpy(archive[key]) for key in archive.files})


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


GOOGLE_MODEL = {
    "cls": "cls_token",
    "embedding/": "patch_embed.proj.",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm/": "norm.",
    "head/": "head.",
}
GOOGLE_BLOCK = {
    "LayerNorm_0/": "norm1.",
    "MultiHeadDotProductAttention_1/query/": "attn.query.",
    "MultiHeadDotProductAttention_1/key/": "attn.key.",
    "MultiHeadDotProductAttention_1/value/": "attn.value.",
    "MultiHeadDotProductAttention_1/out/": "attn.proj.",
    "LayerNorm_2/": "norm2.",
    "MlpBlock_3/Dense_0/": "mlp.fc1.",
    "MlpBlock_3/Dense_1/": "mlp.fc2.",
}
GOOGLE_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def from_google(arrays: Mapping[str, Tensor]) -> Tensors:
    """Convert tensors of Google's ViT releases to timm's names and PyTorch's order of dimensions.

    Kernels are stored input first: (h, w, 3, D) of the patches, (D, H, d) of query, key and value,
    (H, d, D) of the attention's output, (inputs, outputs) of the rest. Tensors without a counterpart in
    timm's ViT keep their name: `pre_logits`, and a head that was trained to follow it.

    >>> from_google({"head/kernel": torch.zeros(7, 5)})["head.weight"].shape
    torch.Size([5, 7])
    """
    tensors: Tensors = {}
    has_pre_logits = any("pre_logits/" in key for key in arrays)
    for key, array in arrays.items():
        name = _google_name(key.removeprefix("opt/target/"))
        if name is None or (has_pre_logits and name.startswith("head.")):
            tensors[key] = array
        else:
            tensors[name] = _google_dimensions(name, array)
    for query in [name for name in tensors if ".attn.query." in name]:
        names = [query.replace(".query.", f".{kind}.") for kind in ("query", "key", "value")]
        if all(name in tensors for name in names):
            tensors[query.replace(".query.", ".qkv.")] = torch.cat([tensors.pop(name) for name in names])
    return tensors


def _google_name(key: str) -> str | None:
    """Return timm's name of one of Google's tensors, with separate query, key and value; None if unknown."""
    block = re.match(r"Transformer/encoderblock_(\d+)/", key)
    start, table = (f"blocks.{block[1]}.", GOOGLE_BLOCK) if block else ("", GOOGLE_MODEL)
    rest = key[block.end() :] if block else key
    if rest in table:
        return start + table[rest]
    stem, _, leaf = rest.rpartition("/")
    known = f"{stem}/" in table and leaf in GOOGLE_LEAVES
    return start + table[f"{stem}/"] + GOOGLE_LEAVES[leaf] if known else None


def _google_dimensions(name: str, array: Tensor) -> Tensor:
    """Reorder the dimensions of one of Google's tensors as PyTorch has them under timm's name."""
    is_projection = any(f".attn.{kind}." in name for kind in ("query", "key", "value"))
    if name == "patch_embed.proj.weight":
        return array.permute(3, 2, 0, 1)
    if is_projection:
        return array.flatten(1).T if name.endswith("weight") else array.flatten()
    if name.endswith("attn.proj.weight"):
        return array.flatten(0, 1).T
    return array.T if array.ndim == 2 and name.endswith("weight") else array
