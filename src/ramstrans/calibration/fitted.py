"""`Calibration`, what was fitted on held-out images, and its two files in a model's folder.

`calibration.json` has all numbers and rules; `calibration.safetensors` is there where the score of the
unknown compares with training images. Exported folders read the first without safetensors, which is
therefore imported where it is needed.
"""

import dataclasses
import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ramstrans import __version__
from ramstrans.calibration.scores import NEEDS
from ramstrans.calibration.taxonomy import Taxonomy
from ramstrans.calibration.wanted import ScoreName, SetMethod
from ramstrans.errors import ConfigError, UsageError
from ramstrans.files import new_file, not_writable
from ramstrans.hub import local_folder
from ramstrans.options import typed
from ramstrans.plain import counted, to_plain

logger = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"
ARRAYS_FILE = "calibration.safetensors"

FORMAT_VERSION = 1

AGAIN = "run `ramstrans calibrate RUN` again, or remove the file"

ChosenBy = Literal["classes left out", "given unknown images", "name", "default"]


@dataclass(frozen=True)
class UnknownRule:
    """When an image is of no known class.

    Attributes:
        score: How it is scored, see `calibration.scores`.
        scales: Numbers of the scales, from 1, over which the score is averaged; none for `max_probability`.
        threshold: An image with a higher score is unknown.
        reject: Share of known images that was asked to be rejected.
        chosen_by: What the score was chosen by.
        auroc: On the images or classes that it was chosen by, percent; None if there were none.
        fpr95: As `auroc`.
    """

    score: ScoreName
    scales: tuple[int, ...]
    threshold: float
    reject: float
    chosen_by: ChosenBy
    auroc: float | None
    fpr95: float | None


@dataclass(frozen=True)
class SetRule:
    """Which classes are in the set of an image.

    Attributes:
        method: The one that answers use.
        coverage: Share of images whose true class is to be in the set.
        per_class: Whether each class has a quantile of its own.
        lac: Quantiles of this method: one, or one for each class, in label order.
        aps: As `lac`.
        raps: As `lac`.
    """

    method: SetMethod
    coverage: float
    per_class: bool
    lac: tuple[float, ...]
    aps: tuple[float, ...]
    raps: tuple[float, ...]

    def quantiles(self, method: SetMethod) -> tuple[float, ...]:
        """The quantiles of a method."""
        of_method: tuple[float, ...] = getattr(self, method)
        return of_method


@dataclass(frozen=True)
class FusedRule:
    """What was fitted for the answer of the first scales together.

    Attributes:
        temperature: Of the mean of their probabilities.
        unknown: None if there were too few images.
        sets: As `unknown`.
    """

    temperature: float
    unknown: UnknownRule | None
    sets: SetRule | None


@dataclass(frozen=True)
class Calibration:
    """All that was fitted for a model on images that it was not trained on.

    Attributes:
        fitted_on: The split, or the data set.
        num_images: Of it.
        weights: SHA-256 of the weights that it belongs to.
        scales: Temperature of each scale alone.
        fused: For the first 1, 2, ... S scales together: `--num_scales` and early exit use fewer than all.
        notes: What could not be fitted, and why.
        taxonomy: Ranks of the classes, and what answers roll up by; None if they have none.
        format_version: Version of the format.
        ramstrans_version: Version of the package that fitted it.
        arrays: What scores compare with, by scale and name; in a file of their own.
    """

    fitted_on: str
    num_images: int
    weights: str
    scales: tuple[float, ...]
    fused: tuple[FusedRule, ...]
    notes: tuple[str, ...] = ()
    taxonomy: Taxonomy | None = None
    format_version: int = FORMAT_VERSION
    ramstrans_version: str = __version__
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Of the first 1, 2, ... S scales together."""
        return tuple(rule.temperature for rule in self.fused)

    def first(self, num_scales: int) -> "Calibration":
        """What was fitted for the first scales, without the rest."""
        return dataclasses.replace(self, scales=self.scales[:num_scales], fused=self.fused[:num_scales])

    @property
    def needs(self) -> set[str]:
        """What answers need beside the probabilities: any of `logits` and `features`."""
        return {need for rule in self.fused if rule.unknown is not None for need in NEEDS[rule.unknown.score]}

    def to_json(self) -> str:
        """All but the arrays, as JSON."""
        values = dataclasses.asdict(dataclasses.replace(self, arrays={}))
        del values["arrays"]
        plain = to_plain(values, "calibration")
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def calibration_from_json(text: str) -> Calibration:
    """Read what `Calibration.to_json` of this version wrote, without its arrays.

    Raises:
        ConfigError: Not JSON, of a newer version, or damaged.

    >>> saved = Calibration("val", 60, "", (1.5, 1.2), (FusedRule(1.5, None, None),) * 2)
    >>> calibration_from_json(saved.to_json()) == saved
    True
    """
    try:
        values: dict[str, Any] = json.loads(text)
        version = values.get("format_version")
    except (ValueError, RecursionError, AttributeError) as error:
        raise ConfigError(f"not JSON of a calibration ({error}); {AGAIN}") from error
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ConfigError(
            f"format_version {version} was written by a newer ramstrans ({values.get('ramstrans_version')}); "
            "upgrade with pip install -U ramstrans"
        )
    values.setdefault("taxonomy", None)  # of before the release
    fitted = typed({**values, "arrays": {}}, Calibration, "calibration")
    assert isinstance(fitted, Calibration)
    return fitted


def promises(calibration: Calibration | None) -> dict[str, float | None]:
    """What a calibration promises of the final answers, as plain values; None where nothing was fitted.

    `coverage` is the share of images whose true class is in their prediction set, `reject` that of images of
    known classes that count as unknown.
    """
    rule = None if calibration is None else calibration.fused[-1]
    return {
        "coverage": None if rule is None or rule.sets is None else rule.sets.coverage,
        "reject": None if rule is None or rule.unknown is None else rule.unknown.reject,
    }


def with_rank_confidence(calibration: Calibration | None, confidence: float | None) -> Calibration | None:
    """A calibration with another confidence for answers at the ranks of its taxonomy; None: its own.

    Without a taxonomy this is ignored, with a warning.
    """
    if confidence is None:
        return calibration
    if calibration is None or calibration.taxonomy is None:
        logger.warning(
            "--rank_confidence is ignored: the model has no ranks; `calibrate --taxonomy TABLE` gives some"
        )
        return calibration
    taxonomy = dataclasses.replace(calibration.taxonomy, confidence=confidence)
    return dataclasses.replace(calibration, taxonomy=taxonomy)


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Write a calibration beside a model, in place of an earlier one.

    Raises:
        OutputError: The folder cannot be written.
    """
    from safetensors.numpy import save

    with ExitStack() as drafts:  # the earlier one goes once both are on the disk; the JSON appears last
        rules = drafts.enter_context(new_file(folder / CALIBRATION_FILE))
        rules.write(calibration.to_json().encode(errors="backslashreplace"))
        rules.flush()
        if calibration.arrays:
            arrays = drafts.enter_context(new_file(folder / ARRAYS_FILE))
            arrays.write(save(calibration.arrays))
            arrays.flush()
        remove_calibration(folder)  # without the JSON, arrays count for nothing


def remove_calibration(folder: Path) -> None:
    """Remove the files of a calibration, if there are some: its model is replaced.

    Raises:
        OutputError: They cannot be removed.
    """
    for name in (CALIBRATION_FILE, ARRAYS_FILE):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise not_writable(folder / name, error) from error


def read_calibration(path: Path) -> Calibration | None:
    """A calibration without its arrays; None if there is no file.

    Raises:
        ConfigError: It is damaged, or of a newer version.
    """
    if not path.is_file():
        return None
    try:
        return calibration_from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def load_calibration(
    folder: Path | str, weights: str | None = None, num_scales: int | None = None
) -> Calibration | None:
    """Read the calibration beside a model; None if there is none.

    Args:
        folder: The folder, or `hf://user/name`.
        weights: SHA-256 of the model's weights; None: not checked.
        num_scales: How many scales answer; None: all that it was fitted for.

    Raises:
        ConfigError: It is damaged, of a newer version, or was fitted for other weights.
        UsageError: It was fitted for fewer scales.
    """
    path = local_folder(folder) / CALIBRATION_FILE
    fitted = read_calibration(path)
    if fitted is None:
        return None
    if weights not in (None, fitted.weights):
        raise ConfigError(f"{path} was fitted for other weights than those beside it; {AGAIN}")
    if num_scales is not None:
        if num_scales > len(fitted.fused):
            fitted_for = counted(len(fitted.fused), "scale")
            raise UsageError(
                f"{path} was fitted for {fitted_for}; leave out --num_scales {num_scales}, or {AGAIN}"
            )
        fitted = fitted.first(num_scales)
    arrays = path.with_name(ARRAYS_FILE)
    if "features" not in fitted.needs:
        return fitted
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dataclasses.replace(fitted, arrays=load_file(arrays))
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{arrays} is missing or damaged ({error}); copy it again, or {AGAIN}") from error
