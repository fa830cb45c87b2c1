"""Load pretrained weights from timm's hub or a file into a plain timm ViT, with a report."""

import math
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ramstrans.errors import WeightsError, first_few
from ramstrans.models.convert import Tensors, read_weights

HEADS = ("head.", "head_dist.")
"""Prefixes of tensors that may stay random: classes differ between data sets."""


HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of weights on the hub."""

HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer."""


class WeightsReport(NamedTuple):
    """Which tensors were loaded, resized, unexpected or missing.

    Attributes:
        source: The file, or the name and tag of timm's weights.
        loaded: The ViT's tensors that were loaded unchanged.
        resized: Those that were fitted to this image size, patch size or set of prefix tokens.
        unexpected: The source's tensors that were not used.
        missing: The ViT's tensors that kept their random values (the head's, if any).
    """

    source: str
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    unexpected: tuple[str, ...]
    missing: tuple[str, ...]

    def summary(self) -> str:
        """Format the report in two lines.

        >>> print(WeightsReport("a.pth", ("norm.bias",), ("pos_embed",), (), ("head.bias",)).summary())
        weights from a.pth: 1 loaded unchanged; resized: 1 (pos_embed)
        unexpected: none; missing: 1 (head.bias)
        """
        return (
            f"weights from {self.source}: {len(self.loaded)} loaded unchanged; "
            f"resized: {_listed(self.resized)}\n"
            f"unexpected: {_listed(self.unexpected)}; missing: {_listed(self.missing)}"
        )


def load_pretrained(vit: VisionTransformer, name: str, weights: str | Path) -> WeightsReport:
    """Fill a plain timm ViT, in place, with pretrained weights.

    Position embeddings of another grid and patch kernels of another size are resampled; a head of
    another number of classes is not loaded. On an error the ViT is unchanged.

    Args:
        vit: Built by timm; its class token not widened yet.
        name: The ViT's name in timm, with or without a tag, e.g. `vit_base_patch16_224.augreg_in21k`.
        weights: `timm` for the pretrained weights of that name, or the path of a `.safetensors`,
            `.pth`, `.pt` or `.bin` file, or of one of Google's `.npz` files
            (https://github.com/google-research/vision_transformer).

    Returns:
        The report, to be logged.

    Raises:
        WeightsError: The weights cannot be read, or do not fit; names the first few tensors.
    """
    source, tensors = fetch_timm(name) if str(weights) == "timm" else read_weights(Path(weights))
    own = vit.state_dict()
    used = {
        key: tensor
        for key, tensor in _fitted(tensors, vit).items()
        if key in own and not (key.startswith(HEADS) and tensor.shape != own[key].shape)
    }
    if not used:
        theirs, ours = (", ".join(islice(names, 3)) for names in (tensors, own))
        raise WeightsError(
            f"{source}: none of its {len(tensors)} tensors ({theirs} ...) is one of {name}'s ({ours} ...); "
            "give the weights of a plain ViT"
        )
    needed = {key: tensor for key, tensor in own.items() if key in used or not key.startswith(HEADS)}
    problems = mismatches(needed, used)
    problems += [f"{key} has NaN or infinite values" for key in used if not used[key].isfinite().all()]
    if problems:
        raise WeightsError(f"{source} does not fit {name}: {first_few(problems)}")
    vit.load_state_dict(used, strict=False)
    return WeightsReport(
        source,
        loaded=tuple(key for key in used if used[key] is tensors[key]),
        resized=tuple(key for key in used if used[key] is not tensors[key]),
        unexpected=tuple(key for key in tensors if key not in used),
        missing=tuple(key for key in own if key not in used),
    )


def mismatches(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Describe what keeps the given tensors from filling the expected ones, one phrase per tensor.

    >>> mismatches({"a": torch.zeros(2, 3), "b": torch.zeros(5)}, {"a": torch.zeros(3, 2)})
    ['a is (3, 2), not the (2, 3) of the model', 'b (5,) is missing']
    """
    problems = []
    for key, tensor in expected.items():
        shape = tuple(tensor.shape)
        if key not in given:
            problems.append(f"{key} {shape} is missing")
        elif given[key].shape != tensor.shape:
            problems.append(f"{key} is {tuple(given[key].shape)}, not the {shape} of the model")
    return problems


def _listed(names: Sequence[str], limit: int = 4) -> str:
    """Format as `3 (a, b, c)`, with the first few names."""
    shown = ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
    return f"{len(names)} ({shown})" if names else "none"


def check_published(name: str) -> None:
    """Raise, without a network, unless timm has pretrained weights of a model.

    Raises:
        WeightsError: There are none.
    """
    if not timm.is_model_pretrained(name):
        raise WeightsError(
            f"timm has no pretrained weights of '{name}'; give --model.weights FILE, or null for random "
            "ones, or another --model.backbone"
        )


def fetch_timm(name: str) -> tuple[str, Tensors]:
    """Fetch timm's pretrained weights of a model, from the cache or the hub.

    Without a network the cache is read at once, or the error comes at once.

    Returns:
        The name with its tag, and the tensors by timm's names.

    Raises:
        WeightsError: No such weights, or no network.
    """
    check_published(name)
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    is_cached = any(isinstance(try_to_load_from_cache(repository, file), str) for file in HUB_FILES)
    reason = why_unreachable()
    if reason and not is_cached:
        raise WeightsError(unfetched(name, reason))
    with _offline(reason is not None):
        try:
            donor: Any = timm.create_model(name, pretrained=True)
        except (OSError, RuntimeError, ValueError, EntryNotFoundError, HfHubHTTPError) as error:
            raise WeightsError(unfetched(name, _first_line(error))) from error
    architecture, tag = name.split(".", 1)[0], donor.pretrained_cfg.get("tag")
    return f"timm's {architecture}" + (f".{tag}" if tag else ""), donor.state_dict()


def unfetched(name: str, reason: str) -> str:
    """The message for weights that cannot be downloaded: what to do in few words, then the reason."""
    return (
        f"cannot download {name} from timm's hub; give --model.weights FILE.safetensors, or null for random "
        f"weights ({reason})"
    )


def why_unreachable() -> str | None:
    """Why the hub cannot be reached, in words of the system; None if it can. One try of a few seconds."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT
        ):
            return None
    except urllib.error.HTTPError:
        return None  # it answered
    except OSError as error:
        reason = getattr(error, "reason", error)
        return None if isinstance(reason, ssl.SSLError) else f"{constants.ENDPOINT}: {reason}"


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Let the hub's client read its cache at once, without a minute of retries."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."


def _fitted(tensors: Tensors, vit: VisionTransformer) -> Tensors:
    """Fit patch kernel, class token and position embeddings to the ViT's patch size, grid and prefix tokens.

    The row of a distillation token is dropped with the token; a class token's row is added to the token
    if the ViT adds positions only to patches, which is the same function. The grid of the source is assumed
    to be square, as in every published ViT; what does not fit stays as it is.
    """
    fitted = dict(tensors)
    kernel, patch_size = tensors.get("patch_embed.proj.weight"), vit.patch_embed.proj.weight.shape[2:]
    if kernel is not None and kernel.ndim == 4 and kernel.shape[2:] != patch_size:
        fitted["patch_embed.proj.weight"] = resample_patch_embed(kernel, list(patch_size))
    position = tensors.get("pos_embed")
    if position is None or position.ndim != 3:
        return fitted
    if "dist_token" in tensors:
        position = torch.cat([position[:, :1], position[:, 2:]], dim=1)
    num_others = position.shape[1] - 1
    if vit.no_embed_class and "cls_token" in tensors and math.isqrt(num_others) ** 2 == num_others:
        fitted["cls_token"] = tensors["cls_token"] + position[:, :1]
        position = position[:, 1:]
    num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    side, grid = math.isqrt(position.shape[1] - num_prefix), vit.patch_embed.grid_size
    if num_prefix + side**2 == position.shape[1] and (side, side) != tuple(grid):
        position = resample_abs_pos_embed(
            position, list(grid), old_size=[side, side], num_prefix_tokens=num_prefix
        )
    return fitted | {"pos_embed": position}
