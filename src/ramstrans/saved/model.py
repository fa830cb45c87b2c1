"""A saved model: a folder with `model.safetensors` and a readable `config.json`, all that inference needs."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, clone, contiguous_format, nn

from ramstrans.calibration.fitted import remove_calibration
from ramstrans.distributed import choose_device
from ramstrans.errors import WeightsError, first_few
from ramstrans.files import new_file, write_file
from ramstrans.hub import local_folder
from ramstrans.saved.metadata import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelMetadata,
    load_metadata,
    member,
    metadata_to_json,
)

if TYPE_CHECKING:
    from ramstrans.models.methods.method import Method

RENAMED = re.compile(r"^backbone\.vit\.")
"""Names of tensors in formats 1 and 2."""
HINT = "give another folder, or free its disk"


class SavedModel(NamedTuple):
    """A model that is ready for inference: on its device, in eval mode."""

    model: "Method"
    metadata: ModelMetadata


def load_model(
    folder: Path | str, device: str | torch.device = "auto", num_scales: int | None = None
) -> SavedModel:
    """Load a run folder, or any folder that `save_model` wrote; only its two files are needed.

    Args:
        folder: The run, or saved model; `hf://user/name[@revision]` is one of the hub.
        device: `auto`, the name of a device, or a device.
        num_scales: How many of the trained scales are used, the first ones; None: all.

    Raises:
        WeightsError: The folder or its weights are missing, damaged or do not fit; or as `local_folder`.
        ConfigError: Its config.json is damaged or of a newer version.
        UsageError: This machine does not have the device, or the model not as many scales.
    """
    # Here and in `load_into`, so that reading a config.json does not import timm.
    from ramstrans.models.methods.build import build_model

    device = choose_device(device) if isinstance(device, str) else device
    folder = local_folder(folder)
    metadata, weights = load_metadata(folder), load_state(folder)
    model = build_model(metadata.model)
    load_into(model, weights)
    if num_scales is not None:
        model.limit_scales(num_scales)
    return SavedModel(model.to(device).eval(), metadata)


def save_model(folder: Path, state_dict: Mapping[str, Tensor], metadata: ModelMetadata) -> None:
    """Write weights and metadata into a folder, which is created if necessary.

    A calibration there is removed: it belongs to the weights before.

    Raises:
        OutputError: The folder cannot be written; files that were there stay as they were.
        ConfigError: The metadata hold something that JSON cannot.
    """
    config, tensors = _encoded(metadata), {}
    for key, tensor in state_dict.items():
        # Copies: safetensors refuses tensors that share memory or are not contiguous.
        tensors[key] = clone(tensor.detach().cpu(), memory_format=contiguous_format)
    with (
        new_file(folder / WEIGHTS_FILE, sync=False, hint=HINT) as weights,
        new_file(folder / CONFIG_FILE, sync=False, hint=HINT) as description,
    ):
        for stream, content in ((weights, save(tensors, metadata={"format": "pt"})), (description, config)):
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # both are on the disk before either takes its place
    remove_calibration(folder)  # of the weights before


def save_metadata(folder: Path, metadata: ModelMetadata) -> None:
    """Replace the metadata of a saved model; the weights stay.

    Raises:
        OutputError: The folder cannot be written.
        ConfigError: The metadata hold something that JSON cannot.
    """
    write_file(folder / CONFIG_FILE, _encoded(metadata), hint=HINT)


def load_state(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a saved model, on the CPU.

    Raises:
        WeightsError: The folder or its weights are missing or damaged.
    """
    path = member(folder, WEIGHTS_FILE)
    try:
        return {RENAMED.sub("encoder.model.", name): tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path} is truncated or not a safetensors file ({error}); copy it again"
        ) from error


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, shapes, types and values of some tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_into(
    model: nn.Module,
    state: Mapping[str, Tensor],
    what: str = f"{WEIGHTS_FILE} does not fit the model of {CONFIG_FILE}",
    remedy: str = "take both files from the same run",
) -> None:
    """Fill a model with exactly these weights.

    Raises:
        WeightsError: A tensor is missing, unexpected, or of another shape; the message names the first few.
    """
    from ramstrans.models.pretrained import mismatches

    own = model.state_dict()
    problems = mismatches(own, state)
    problems += [f"{key} {tuple(state[key].shape)} is not in the model" for key in state if key not in own]
    if problems:
        raise WeightsError(f"{what}: {first_few(problems)}; {remedy}")
    model.load_state_dict(state)


def _encoded(metadata: ModelMetadata) -> bytes:
    return metadata_to_json(metadata).encode(errors="backslashreplace")  # undecodable names from disks
