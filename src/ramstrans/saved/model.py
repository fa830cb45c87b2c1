"""The model folder, all that inference needs: `model.safetensors` and a readable `config.json`."""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, clone, contiguous_format, nn

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError, OutputError, WeightsError, first_few
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.early_exit import EarlyExit
from ramstrans.models.pretrained import mismatches

FORMAT_VERSION = 3
"""1: without `early_exit` and `model.region_size`; 2: `mean_looks` in `early_exit`."""
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def installed_version() -> str:
    """Version of ramstrans, or `unknown` where it runs from a source tree that is not installed."""
    try:
        return metadata.version("ramstrans")
    except metadata.PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class ModelMetadata:
    """What the weights are of: everything about a trained model but the weights.

    Attributes:
        model: Its options. Where its first weights came from is not saved.
        class_names: In label order.
        preprocessing: How photographs were prepared.
        training: A summary of the run for people to read; plain values, lists and dicts.
        early_exit: When an image needs no further look; None: nobody has chosen.
        format_version: Of the model folder.
        ramstrans_version: That wrote it.
    """

    model: ModelConfig
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    training: dict[str, Any] = field(default_factory=dict)
    early_exit: EarlyExit | None = None
    format_version: int = FORMAT_VERSION
    ramstrans_version: str = field(default_factory=installed_version)

    def __post_init__(self) -> None:
        if len(set(self.class_names)) != len(self.class_names):
            raise ConfigError("class_names has a name twice; give each class a name of its own")
        if self.model.num_classes not in {None, len(self.class_names)}:
            raise ConfigError(
                f"class_names has {len(self.class_names)} names; num_classes is {self.model.num_classes}"
            )


def save_model(folder: Path, state_dict: Mapping[str, Tensor], metadata: ModelMetadata) -> None:
    """Write weights and card into a folder, which is made if need be.

    Both are written in full beside their final names first, so that no reader meets half a file.

    Raises:
        OutputError: The folder cannot be written.
        ConfigError: The card holds something that JSON cannot.
    """
    config = _encoded(metadata)
    # Copies: safetensors refuses tensors that share memory or are not contiguous.
    tensors = {
        key: clone(tensor.detach().cpu(), memory_format=contiguous_format)
        for key, tensor in state_dict.items()
    }
    weights = save(tensors, metadata={"format": "pt"})
    _write_files(folder, {WEIGHTS_FILE: weights, CONFIG_FILE: config})


def save_metadata(folder: Path, metadata: ModelMetadata) -> None:
    """Replace the card of a model folder; the weights stay.

    Raises:
        OutputError: The folder cannot be written.
        ConfigError: The card holds something that JSON cannot.
    """
    _write_files(folder, {CONFIG_FILE: _encoded(metadata)})


def _encoded(metadata: ModelMetadata) -> bytes:
    return metadata_to_json(metadata).encode(errors="backslashreplace")  # undecodable names from disks


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files whole or not at all, each beside its final name first."""
    drafts = {name: folder / f".{name}.tmp" for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write_through(drafts[name], content)
        for name, draft in drafts.items():
            draft.replace(folder / name)
    except OSError as error:
        for draft in drafts.values():
            with contextlib.suppress(OSError):
                draft.unlink()
        raise OutputError(
            f"{folder} cannot be written: {error.strerror}; give another folder, or free its disk"
        ) from error


def _write_through(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load_metadata(folder: Path) -> ModelMetadata:
    """Read the card of a model folder.

    Raises:
        WeightsError: The folder, or its card, is missing.
        ConfigError: The card is damaged, or of a newer version.
    """
    path = _member(folder, CONFIG_FILE)
    try:
        return metadata_from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # UnicodeDecodeError and ConfigError are ValueErrors
        raise ConfigError(f"{path}: {error}") from error


def load_state(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a model folder, on the CPU.

    Raises:
        WeightsError: The folder, or its weights, are missing or damaged.
    """
    path = _member(folder, WEIGHTS_FILE)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is truncated or no safetensors file ({error}); copy it again") from error


def load_into(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill a model with exactly these weights.

    Raises:
        WeightsError: A tensor is missing, too many, or of another shape; names the first few.
    """
    own = model.state_dict()
    problems = mismatches(own, state)
    problems += [f"{key} {tuple(state[key].shape)} is not in the model" for key in state if key not in own]
    if problems:
        raise WeightsError(
            f"{WEIGHTS_FILE} does not fit the model of {CONFIG_FILE}: {first_few(problems)}; "
            "take both files from the same run"
        )
    model.load_state_dict(state)


def _member(folder: Path, name: str) -> Path:
    """Path of one of the folder's two files, which must be there."""
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder; give the run folder that `ramstrans train` wrote")
    if not (folder / name).is_file():
        raise WeightsError(
            f"{folder} has no {name}; a model folder has {WEIGHTS_FILE} and {CONFIG_FILE}, written at the "
            "end of a run"
        )
    return folder / name


def metadata_to_json(metadata: ModelMetadata) -> str:
    """The card as text for people and programs; the source of the first weights is left out.

    Paths become strings, tuples lists, and numbers that are not finite null.

    >>> card = ModelMetadata(ModelConfig(weights="a.pth"), ("crow", "wren"), Preprocessing(64, (48, 48)))
    >>> metadata_from_json(metadata_to_json(card)).model == ModelConfig(weights=None)
    True

    Raises:
        ConfigError: The card holds something that JSON cannot.
    """
    model = dataclasses.replace(metadata.model, weights=None)
    values = dataclasses.asdict(dataclasses.replace(metadata, model=model))
    ordered = {key: values[key] for key in ("format_version", "ramstrans_version")} | values
    return json.dumps(_plain(ordered, "card"), indent=2, ensure_ascii=False) + "\n"


def _plain(value: object, where: str) -> object:
    """A value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, where) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{where} is a {type(value).__name__}, which JSON cannot hold; give plain values")


def metadata_from_json(text: str) -> ModelMetadata:
    """The card that `metadata_to_json` wrote.

    Raises:
        ConfigError: No JSON, of a newer version, or with fields missing, unknown or of another type.
    """
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"not JSON ({error}); copy it again") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        writer = values.get("ramstrans_version")
        raise ConfigError(
            f"format_version {version} was written by a newer ramstrans ({writer}); this one reads up to "
            f"{FORMAT_VERSION}: upgrade with pip install -U ramstrans"
        )
    if version == 1:
        values |= {"format_version": FORMAT_VERSION, "early_exit": None}
        if isinstance(values.get("model"), dict):
            values["model"] |= {"region_size": None}
    if version == 2:
        values |= {"format_version": FORMAT_VERSION}
        if isinstance(values.get("early_exit"), dict) and "mean_looks" in values["early_exit"]:
            values["early_exit"]["mean_scales_used"] = values["early_exit"].pop("mean_looks")
    metadata = _typed(values, ModelMetadata, "card")
    assert isinstance(metadata, ModelMetadata)
    return metadata


def _typed(value: object, hint: object, where: str) -> object:
    """A JSON value as the Python value that a type hint asks for, or ConfigError."""
    origin, options = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _typed_dataclass(value, hint, where)
    if origin is tuple and isinstance(value, list):
        hints = options[:1] * len(value) if options[-1] is ... else options
        if len(hints) == len(value):
            return tuple(_typed(entry, inner, where) for entry, inner in zip(value, hints, strict=True))
    if origin in {Union, UnionType}:
        for option in options:
            with contextlib.suppress(ConfigError):
                return _typed(value, option, where)
    if hint is float and type(value) is int:
        return float(value)
    fits = (
        hint is Any
        or (hint is NoneType and value is None)
        or (hint in {bool, int, float, str} and type(value) is hint)
        or (origin is Literal and value in options)
        or (origin is dict and isinstance(value, dict))
    )
    if fits:
        return value
    wanted = hint.__name__ if isinstance(hint, type) and origin is None else hint
    raise ConfigError(f"{where} is {value!r:.60}, not {wanted}; mend it or copy the folder again")


def _typed_dataclass(values: dict[str, object], kind: type, where: str) -> object:
    """A dataclass from exactly its fields."""
    hints = get_type_hints(kind)
    names = [entry.name for entry in dataclasses.fields(kind)]
    lacking = [name for name in names if name not in values]
    unknown = [name for name in values if name not in names]
    if lacking or unknown:
        problem = f"lacks {', '.join(lacking)}" if lacking else f"has unknown {', '.join(unknown)}"
        raise ConfigError(f"{where} {problem}; copy the folder again, or use the ramstrans that wrote it")
    return kind(**{name: _typed(values[name], hints[name], f"{where}.{name}") for name in names})
