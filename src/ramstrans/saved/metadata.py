"""`ModelMetadata`, everything about a trained model except its weights, and its JSON."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ramstrans import __version__
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError, WeightsError
from ramstrans.hub import is_address, local_folder
from ramstrans.models.config import ModelConfig
from ramstrans.options import typed
from ramstrans.plain import to_plain

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

FORMAT_VERSION = 7
"""1: without `early_exit` and `model.region_size`; 2: `mean_looks` in `early_exit`, mean and std in
`preprocessing`, and other names of tensors; 3: without `preprocessing.fit` and `zoom_pixels`,
`model.component`, `min_region` and `max_aspect`; 4: without `model.global_pool`, `saliency` and
`saliency_layers`; 5: without `model.region_placement`; 6: without `model.method`, `num_tokens`,
`saliency_mirrored`, `saliency_blur`, `multi_label`, `label_thresholds`, and `is_calibrated` in
`early_exit`."""

DEFAULT_THRESHOLD = 0.5
"""Probability from which a label counts as present where none was chosen on validation images."""


@dataclass(frozen=True)
class EarlyExit:
    """A confidence at which images skip the remaining scales, and what it cost where it was chosen.

    Attributes:
        confidence: Threshold, above 0: an image exits once its highest probability, averaged over the
            scales it has passed, reaches it.
        chosen_on: Split that it was chosen on.
        num_images: Number of images of that split.
        top1_lost: Loss of top-1 accuracy there, in percentage points; negative for a gain.
        mean_scales_used: Mean number of scales per image there.
        is_calibrated: Whether the confidence is one of calibrated probabilities.
    """

    confidence: float
    chosen_on: str
    num_images: int
    top1_lost: float
    mean_scales_used: float
    is_calibrated: bool = False

    def __post_init__(self) -> None:
        if not self.confidence > 0:
            raise ConfigError(
                f"the confidence of early exit is {self.confidence}; give more than 0, at most 1"
            )


@dataclass(frozen=True)
class ModelMetadata:
    """Everything about a trained model except its weights.

    Attributes:
        model: Options of the model. The source of its pretrained weights is not saved.
        class_names: Names of the classes, in label order.
        preprocessing: How images become inputs.
        training: Summary of the training run, as plain values; its options are under `run`.
        early_exit: The threshold chosen for early exit; None if none was chosen.
        label_thresholds: Where images may have several labels: the mean probability from which each counts as
            present, in label order; None: 0.5 for all.
        format_version: Version of the saved format.
        ramstrans_version: Version of the package that saved the model.
    """

    model: ModelConfig
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    training: dict[str, Any] = field(default_factory=dict)
    early_exit: EarlyExit | None = None
    label_thresholds: tuple[float, ...] | None = None
    format_version: int = FORMAT_VERSION
    ramstrans_version: str = __version__

    def __post_init__(self) -> None:
        if len(set(self.class_names)) != len(self.class_names):
            raise ConfigError("class_names has a name twice; give each class a name of its own")
        if self.model.num_classes not in {None, len(self.class_names)}:
            raise ConfigError(
                f"class_names has {len(self.class_names)} names; num_classes is {self.model.num_classes}"
            )
        if self.label_thresholds is not None and len(self.label_thresholds) != len(self.class_names):
            raise ConfigError(
                f"label_thresholds has {len(self.label_thresholds)} numbers; class_names has "
                f"{len(self.class_names)}"
            )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The probability from which each label counts as present, in label order."""
        return self.label_thresholds or (DEFAULT_THRESHOLD,) * len(self.class_names)

    def run_options(self, section: str) -> dict[str, Any]:
        """Options of one section of the training run, such as `data`; empty if the run is unknown."""
        options: dict[str, Any] = self.training.get("run", {}).get(section, {})
        return options


def metadata_to_json(metadata: ModelMetadata) -> str:
    """Serialise metadata, without the source of the pretrained weights; see `to_plain`.

    >>> saved = ModelMetadata(ModelConfig(weights="a.pth"), ("crow", "wren"), Preprocessing(64, (48, 48)))
    >>> metadata_from_json(metadata_to_json(saved)).model == ModelConfig(num_classes=2, weights=None)
    True

    Raises:
        ConfigError: The metadata hold something that JSON cannot.
    """
    values = dataclasses.asdict(metadata)
    values["model"]["weights"] = None
    order = dict.fromkeys(["format_version", "ramstrans_version", *values])
    plain = {key: to_plain(values[key], key) for key in order}
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def metadata_from_json(text: str) -> ModelMetadata:
    """Read what `metadata_to_json` of this or an earlier version wrote; `num_classes` is filled in.

    Raises:
        ConfigError: Not JSON, of a newer version, or with fields missing, unknown or of another type.
    """
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"not JSON ({error}); copy it again") from error
    metadata = typed(_upgraded(values) if isinstance(values, dict) else values, ModelMetadata, "metadata")
    assert isinstance(metadata, ModelMetadata)
    model = dataclasses.replace(metadata.model, num_classes=len(metadata.class_names), weights=None)
    return dataclasses.replace(metadata, model=model)


def _upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """Convert values of an earlier format to the current one; those of a newer format are an error."""
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ConfigError(
            f"format_version {version} was written by a newer ramstrans ({values.get('ramstrans_version')}); "
            f"this one reads up to {FORMAT_VERSION}: upgrade with pip install -U ramstrans"
        )
    if isinstance(values.get("early_exit"), dict):
        values["early_exit"].setdefault("is_calibrated", False)
    values.setdefault("label_thresholds", None)
    if isinstance(values.get("model"), dict):
        values["model"].setdefault("multi_label", False)
    if version == FORMAT_VERSION and isinstance(values.get("model"), dict):  # of before the release
        return values | {"model": {"saliency_mirrored": False, "saliency_blur": 0.0} | values["model"]}
    if version not in range(1, FORMAT_VERSION):
        return values
    values = {"early_exit": None} | values | {"format_version": FORMAT_VERSION}
    model, preprocessing = values.get("model"), values.get("preprocessing")
    if isinstance(model, dict) and isinstance(preprocessing, dict):
        moved = {name: preprocessing.pop(name) for name in ("mean", "std") if name in preprocessing}
        values["preprocessing"] = {"fit": "crop", "zoom_pixels": None} | preprocessing
        new = {"region_size": None, "component": "count", "min_region": 0.0, "max_aspect": None}
        new |= {"global_pool": None, "saliency": "rollout", "saliency_layers": None}
        new |= {"region_placement": "found", "method": "rams", "num_tokens": None}
        new |= {"saliency_mirrored": False, "saliency_blur": 0.0}
        values["model"] = new | {"mean": None, "std": None} | model | moved
    if isinstance(values["early_exit"], dict) and "mean_looks" in values["early_exit"]:
        values["early_exit"]["mean_scales_used"] = values["early_exit"].pop("mean_looks")
    return values


def load_metadata(folder: Path | str) -> ModelMetadata:
    """Read the metadata of a saved model, a folder or `hf://user/name`, without importing torch.

    Raises:
        WeightsError: The folder, or its config.json, is missing; or as `local_folder`.
        ConfigError: The config.json is damaged, or of a newer version.
    """
    path = member(local_folder(folder), CONFIG_FILE)
    try:
        return metadata_from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # UnicodeDecodeError and ConfigError are ValueErrors
        raise ConfigError(f"{path}: {error}") from error


def saved_folder(weights: str | Path | None) -> Path | None:
    """The folder of a saved model that weights name, by itself, its model.safetensors or `hf://`; else None.

    None too for a folder of Hugging Face's or timm's, whose files have the same names.
    """
    if weights is None or weights == "timm":
        return None
    path = local_folder(weights)
    folder = path if path.is_dir() else path.parent
    if path != folder and not (path.name == WEIGHTS_FILE and (folder / CONFIG_FILE).is_file()):
        return None
    return None if _is_foreign(folder) else folder


def check_weights(weights: str | Path | None) -> None:
    """Raise, before anything is loaded, if weights name a file or folder that does not exist.

    Raises:
        WeightsError: It does not.
    """
    if weights is None or weights == "timm" or is_address(weights):
        return
    if not Path(weights).exists():
        raise WeightsError(
            f"model.weights: {weights} does not exist; give 'timm', a run folder, or a file of weights"
        )


def _is_foreign(folder: Path) -> bool:
    """Whether a folder's config.json is Hugging Face's or timm's."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and any(key in config for key in ("model_type", "architecture"))


def member(folder: Path, name: str) -> Path:
    """Return the path of one of the two files of a saved model.

    Raises:
        WeightsError: The folder, or the file, is missing.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder; give the run folder that `ramstrans train` wrote")
    if not (folder / name).is_file():
        if (folder / "fold_1").is_dir():
            raise WeightsError(
                f"{folder} is a cross-validation; give one of its runs, e.g. {folder / 'fold_1'}"
            )
        if (folder / "metrics.jsonl").is_file() and not (folder / CONFIG_FILE).is_file():
            raise WeightsError(
                f"{folder} is a run that has not ended; go on with `ramstrans train --resume {folder}`"
            )
        raise WeightsError(
            f"{folder} has no {name}; a saved model has {WEIGHTS_FILE} and {CONFIG_FILE}, written at the "
            "end of a run"
        )
    return folder / name
