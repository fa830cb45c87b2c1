"""Load pretrained weights from timm's hub or a file into a timm model, with a report."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from torch import Tensor, nn

from ramstrans.errors import WeightsError, first_few
from ramstrans.hub import offline, why_unreachable
from ramstrans.models.closest import closest
from ramstrans.models.convert import HUB_FILES, Tensors, read_weights
from ramstrans.models.fit import Fit, fit, needed_names

SIZED = re.compile(
    r"pos_|position|(height|width)_rel|patch_embed\.proj\.weight|embeds\.proj\.weight|attention_biases"
)
"""Tensors whose shape follows from image, patch or window size."""

MAX_PREFIX = 2
"""Most rows of positions that tokens other than patches have in published files."""


class WeightsReport(NamedTuple):
    """Where a model's tensors came from, and what of a file was not used.

    Attributes:
        source: The file, or the name and tag of timm's weights.
        layout: Whose names the file has, a key of `LAYOUTS`; None if they are timm's.
        loaded: The model's tensors that were loaded unchanged.
        converted: Those that have another name or form in the file.
        resampled: Those that were fitted to this image, patch or window size.
        missing: Those that kept their first values: the classifier's, if any, and what follows from sizes.
        unused: The file's tensors that were not used, by its own names.
    """

    source: str
    layout: str | None
    loaded: tuple[str, ...]
    converted: tuple[str, ...]
    resampled: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def summary(self) -> str:
        """Format the report in two lines.

        >>> report = WeightsReport("a.pth", None, ("norm.bias",), (), ("pos_embed",), ("head.bias",), ())
        >>> print(report.summary())
        weights from a.pth: 1 loaded unchanged; converted: none; resampled: 1 (pos_embed)
        missing: 1 (head.bias); unused: none
        """
        layout = f" (layout: {self.layout})" if self.layout else ""
        return (
            f"weights from {self.source}{layout}: {len(self.loaded)} loaded unchanged; "
            f"converted: {_listed(self.converted)}; resampled: {_listed(self.resampled)}\n"
            f"missing: {_listed(self.missing)}; unused: {_listed(self.unused)}"
        )


def load_pretrained(model: nn.Module, name: str, weights: str | Path) -> WeightsReport:
    """Fill a timm model, in place, with pretrained weights.

    Names of other sources are converted (see `LAYOUTS` and docs/weights.md); positions, tables of relative
    positions and patch kernels of other sizes are resampled; a classifier of another number of classes is
    not loaded. On an error the model is unchanged.

    Args:
        model: Built by timm; its class token not widened yet.
        name: Its name in timm, with or without a tag, e.g. `vit_base_patch16_224.augreg_in21k`.
        weights: `timm` for the pretrained weights of that name, or the path of a file, see `read_weights`.

    Returns:
        The report, to be logged.

    Raises:
        WeightsError: The weights cannot be read, or do not fit; names the first few tensors, and the
            closest backbone.
    """
    source, tensors = fetch_timm(name) if str(weights) == "timm" else read_weights(Path(weights), model)
    result = fit(tensors, model, source)
    own = model.state_dict()
    if not any(key in result.after for key in needed_names(model, own)):
        theirs, ours = (", ".join(islice(names, 3)) for names in (tensors, own))
        raise WeightsError(
            f"{source}: none of its {len(tensors)} tensors ({theirs} ...) is one of {name}'s ({ours} ...); "
            f"{closest(tensors, name, source)}"
        )
    problems = mismatches({key: own[key] for key in result.missing}, result.after)
    problems += [
        f"{key} {tuple(result.after[key].shape)} has no place in the model" for key in result.homeless
    ]
    if problems:
        raise WeightsError(
            f"{source} does not fit {name}: {first_few(problems)}; {closest(tensors, name, source)}"
        )
    broken = [
        f"{key} has NaN or infinite values" for key, tensor in result.used.items() if not _is_finite(tensor)
    ]
    if broken:
        raise WeightsError(f"{source} does not fit {name}: {first_few(broken)}")
    model.load_state_dict(result.used, strict=False)
    return _report(source, result, own)


def _is_finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _report(source: str, result: Fit, own: Mapping[str, Tensor]) -> WeightsReport:
    """Say of each tensor how it was used."""
    named, used = result.named, result.used
    kinds = {key: _kind(key, tensor, result) for key, tensor in used.items()}
    stored = {tensor.untyped_storage().data_ptr() for tensor in used.values()}
    unused = [
        name
        for key, tensor in named.tensors.items()
        if key not in used and tensor.untyped_storage().data_ptr() not in stored
        for name in named.origin.get(key, (key,))
    ]
    loaded, converted, resampled = (
        tuple(key for key, kind in kinds.items() if kind == wanted)
        for wanted in ("loaded", "converted", "resampled")
    )
    missing = tuple(key for key in own if key not in used)
    return WeightsReport(source, named.layout, loaded, converted, resampled, missing, tuple(unused))


def _kind(key: str, tensor: Tensor, result: Fit) -> str:
    """How a tensor of the model came from the file: `loaded`, `converted` or `resampled`."""
    before = result.named.tensors.get(key)
    if before is None:
        sizes = {source.numel() for source in result.named.tensors.values()}
        return "resampled" if SIZED.search(key) and tensor.numel() not in sizes else "converted"
    if before.shape == tensor.shape and torch.equal(before, tensor):
        return "converted" if key in result.named.origin else "loaded"
    if not SIZED.search(key) or (before.numel() == tensor.numel() and before.shape != tensor.shape):
        return "converted"
    if before.ndim == tensor.ndim == 3 and abs(before.shape[1] - tensor.shape[1]) <= MAX_PREFIX:
        rows = min(before.shape[1], tensor.shape[1]) - MAX_PREFIX
        if rows > 0 and torch.equal(before[:, -rows:], tensor[:, -rows:]):
            return "converted"
    return "resampled"


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
    is_cached = _is_cached(name)
    reason = why_unreachable()
    if reason and not is_cached:
        raise WeightsError(unfetched(name, reason))
    with offline(reason is not None):
        try:
            donor: Any = timm.create_model(name, pretrained=True)
        except (OSError, RuntimeError, ValueError, EntryNotFoundError, HfHubHTTPError) as error:
            raise WeightsError(unfetched(name, _first_line(error))) from error
    architecture, tag = name.split(".", 1)[0], donor.pretrained_cfg.get("tag")
    return f"timm's {architecture}" + (f".{tag}" if tag else ""), donor.state_dict()


def _is_cached(name: str) -> bool:
    """Whether a model's weights are in the hub's cache, or in torch's where they have an address instead."""
    pretrained = timm.get_pretrained_cfg(name)
    if not pretrained.hf_hub_id:
        return (Path(torch.hub.get_dir()) / "checkpoints" / Path(pretrained.url or "none").name).is_file()
    files = (pretrained.hf_hub_filename,) if pretrained.hf_hub_filename else HUB_FILES
    return any(isinstance(try_to_load_from_cache(pretrained.hf_hub_id, file), str) for file in files)


def unfetched(name: str, reason: str) -> str:
    """The message for weights that cannot be downloaded: what to do in few words, then the reason."""
    return (
        f"cannot download {name} from timm's hub; give --model.weights FILE.safetensors, or null for random "
        f"weights ({reason})"
    )


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."
