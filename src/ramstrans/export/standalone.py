"""Classify photographs by an exported graph; what `predict.py` of an exported folder runs, without torch.

Photographs are read by the package's own modules, but for the resizing, which is Pillow's: its pixels differ
from those of `ramstrans predict` by a grey level here and there.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ramstrans.calibration.answers import from_calibrated
from ramstrans.calibration.fitted import (
    CALIBRATION_FILE,
    Calibration,
    read_calibration,
    with_rank_confidence,
)
from ramstrans.calibration.priors import Matched, answered_without, weights_of
from ramstrans.calibration.wanted import check_rank_confidence
from ramstrans.data.geometry import FILL, Geometry, box_in_original, frame_size
from ramstrans.data.image_priors import check_priors, read_image_priors
from ramstrans.data.preprocessing import Preprocessing, Size, resized_size
from ramstrans.data.reading.decode import decode_for
from ramstrans.data.reading.text import read_paths
from ramstrans.errors import ConfigError, RamsTransError, UnreadableImageError
from ramstrans.export.runner import UNKNOWN_SCORE, Runner, open_graph
from ramstrans.inference.arguments import (
    check_any_read,
    expand_inputs,
    resolve_arguments,
    why_missing,
)
from ramstrans.inference.prediction import (
    Prediction,
    ScalePrediction,
    calibrated_prediction,
    effect_of,
    most_probable,
    present_labels,
)
from ramstrans.inference.writers import to_json
from ramstrans.plain import counted

LABELS, PREPROCESSING = "labels.json", "preprocessing.json"
"""Files of an exported folder: a list of the class names, and how photographs become pixels."""

THRESHOLDS = "thresholds.json"
"""Of models of images with several labels: the least probability of each label, in the order of `LABELS`."""


class Example(NamedTuple):
    """One photograph, ready for the graph.

    Attributes:
        pixels: (3, height, width) uint8.
        geometry: Where they lie in the original.
        original_size: `(width, height)` in pixels after EXIF rotation.
    """

    pixels: NDArray[np.uint8]
    geometry: Geometry
    original_size: tuple[int, int]


class Standalone:
    """An exported folder that predicts files as `ramstrans.Predictor` does.

    Args:
        folder: Of `ramstrans export`.
        shares_cores: As in `open_graph`.
        rank_confidence: Of answers at the ranks of the taxonomy, in (0.5, 1); None: that of `calibrate`.
        priors: File of priors, whose conditions photographs have in their EXIF data; None: there are none.

    Raises:
        RamsTransError: The folder is incomplete, or the library that runs it is missing.
        UsageError: There are priors, and the folder is not calibrated or has several labels per image.
    """

    def __init__(
        self,
        folder: Path,
        *,
        shares_cores: bool = False,
        rank_confidence: float | None = None,
        priors: Path | None = None,
    ) -> None:
        self.folder = folder
        self.graph: Runner = open_graph(folder, shares_cores=shares_cores)
        try:
            self.class_names: list[str] = json.loads((folder / LABELS).read_text(encoding="utf-8"))
            values = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
            self.max_pixels = int(values["max_pixels"])
            self.preprocessing = preprocessing_of(values)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"{folder}: {LABELS} or {PREPROCESSING} cannot be read ({error}); export the model again"
            ) from error
        self.thresholds = read_thresholds(folder, len(self.class_names))
        self.calibration = with_rank_confidence(read_calibration(folder / CALIBRATION_FILE), rank_confidence)
        if priors is not None:
            is_calibrated, multi_label = self.calibration is not None, self.thresholds is not None
            check_priors(folder, is_calibrated=is_calibrated, multi_label=multi_label)
        self.priors = None if priors is None else read_image_priors(priors, self.class_names)

    def stream(
        self, paths: Iterable[Path | str], top_k: int = 5, batch_size: int = 16
    ) -> Iterator[Prediction]:
        """Predict files in order; one that cannot be read gives a `Prediction` with an error."""
        remaining = map(Path, paths)
        while chunk := list(islice(remaining, batch_size)):
            read = [(path, self._read(path)) for path in chunk]
            readable = [(path, one) for path, one in read if isinstance(one, Example)]
            found = iter(self._predict(readable, top_k))
            for path, one in read:
                yield (
                    next(found)._replace(path=path)
                    if isinstance(one, Example)
                    else Prediction(path, error=one, present=None if self.thresholds is None else ())
                )

    def read(self, path: Path, content: bytes | None = None) -> Example:
        """Read a photograph, a file or its bytes, for the graph; see `read_example`."""
        return read_example(path, self.preprocessing, self.max_pixels, content)

    def _read(self, path: Path) -> Example | str:
        try:
            return self.read(path)
        except UnreadableImageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return why_missing(path)
            return error.reason

    def _predict(self, readable: Sequence[tuple[Path, Example]], top_k: int) -> list[Prediction]:
        if not readable:
            return []
        paths, examples = zip(*readable, strict=True)
        outputs = self.graph(np.stack([example.pixels for example in examples]))
        return self.predictions(outputs, examples, paths, top_k)

    def predictions(
        self,
        outputs: dict[str, NDArray[Any]],
        examples: Sequence[Example],
        paths: Sequence[Path | None],
        top_k: int,
    ) -> list[Prediction]:
        """What the graph gave for a batch as predictions, without paths; `paths` are None for bytes."""
        if (num_classes := outputs["probabilities"].shape[1]) != len(self.class_names):
            raise ConfigError(
                f"{self.folder / LABELS} has {counted(len(self.class_names), 'name')}, and the model "
                f"{num_classes} classes; export the model again"
            )
        matched = None if self.priors is None else [self.priors.of(path) for path in paths]
        found = to_predictions(outputs, examples, self.class_names, top_k, self.calibration, matched)
        if self.thresholds is None:
            return found
        fused = outputs["probabilities"]
        return [
            one._replace(present=present_labels(scores, self.class_names, self.thresholds))
            for one, scores in zip(found, fused, strict=True)
        ]


def read_thresholds(folder: Path, num_labels: int) -> list[float] | None:
    """The thresholds of an exported folder; None if an image has one class.

    Raises:
        ConfigError: The file is damaged.
    """
    path = folder / THRESHOLDS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, list) or len(found) != num_labels:
            raise ValueError
        return [float(value) for value in found]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a list of {num_labels} numbers; export the model again") from error


def preprocessing_of(values: dict[str, Any]) -> Preprocessing:
    """The preprocessing that a JSON file describes."""
    resize = values["resize"]
    return Preprocessing(
        resize if isinstance(resize, int) else tuple(resize), tuple(values["crop"]), values["fit"]
    )


def pixels_size(preprocessing: Preprocessing) -> Size:
    """`(height, width)` of the pixels that a graph takes: the view of an evaluation before it is reduced.

    >>> pixels_size(Preprocessing(256, (224, 224)))
    (224, 224)
    >>> pixels_size(Preprocessing((256, 256), (224, 224), "squash"))
    (256, 256)
    """
    if preprocessing.fit == "crop":
        return preprocessing.crop
    return frame_size(preprocessing.crop, preprocessing)


def read_example(
    path: Path, preprocessing: Preprocessing, max_pixels: int, content: bytes | None = None
) -> Example:
    """Read a photograph, upright, resized, cut or padded as for an evaluation.

    With `content`, the bytes of a file, nothing is opened, and `path` is only its name in errors.

    Raises:
        UnreadableImageError: It cannot be decoded.
    """
    decoded = decode_for(path, preprocessing.reading, max_pixels=max_pixels, content=content)
    height, width = resized_size(decoded.original_size, preprocessing.resize, preprocessing.fit)
    image = decoded.image
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    rows, columns = pixels_size(preprocessing)
    top, left = (height - rows) // 2, (width - columns) // 2
    if preprocessing.fit == "pad":
        canvas = np.empty((rows, columns, 3), np.uint8)
        canvas[:] = FILL
        above, before = (rows - height) // 2, (columns - width) // 2
        canvas[above : above + height, before : before + width] = pixels
        pixels, top, left = canvas, -above, -before
    else:
        pixels = pixels[top : top + rows, left : left + columns]
    scale = width / decoded.original_size[1], height / decoded.original_size[0]
    geometry = Geometry(scale, (float(left), float(top)), float(columns))
    original_height, original_width = decoded.original_size
    return Example(
        np.ascontiguousarray(pixels.transpose(2, 0, 1)), geometry, (original_width, original_height)
    )


def to_predictions(
    outputs: dict[str, NDArray[Any]],
    examples: Sequence[Example],
    class_names: Sequence[str],
    top_k: int,
    calibration: Calibration | None = None,
    matched: Sequence[Matched] | None = None,
) -> list[Prediction]:
    """The answers for a batch of a graph's outputs, whose probabilities are calibrated if the model is.

    `matched` are the priors for each image, of a calibrated model.
    """
    fused = outputs["probabilities"]
    scales = [to_scales(outputs, row, example, class_names, top_k) for row, example in enumerate(examples)]
    if calibration is None:
        found = [Prediction(None, *most_probable(scores, class_names, top_k)) for scores in fused]
    else:
        scores = outputs.get(UNKNOWN_SCORE)
        if scores is None and calibration.fused[-1].unknown is not None:
            raise ConfigError(
                f"the graph has no output {UNKNOWN_SCORE}, by which its calibration tells the "
                "unknown; export the model again"
            )
        given = from_calibrated(
            calibration,
            fused.astype(np.float64),
            None if scores is None else scores.astype(np.float64),
            weights=None if matched is None else weights_of(matched, len(class_names)),
        )
        found = [
            calibrated_prediction(given, row, class_names, top_k, calibration.taxonomy)
            for row in range(len(fused))
        ]
        if matched is not None:
            found = [
                one._replace(priors=effect_of(given, row, matched[row].what, class_names))
                for row, one in enumerate(found)
            ]
    return [one._replace(scales=taken) for one, taken in zip(found, scales, strict=True)]


def to_scales(
    outputs: dict[str, NDArray[Any]], row: int, example: Example, class_names: Sequence[str], top_k: int
) -> tuple[ScalePrediction, ...]:
    """The answers of the scales for one row of a graph's outputs."""
    by_scale, scales = outputs["scale_probabilities"][:, row], []
    for index, scores in enumerate(by_scale):
        box, found = None, None
        if "boxes" in outputs and index < len(outputs["boxes"]):
            box = box_in_original(outputs["boxes"][index, row], example.geometry, example.original_size)
            found = bool(outputs["found"][index, row])
        scales.append(ScalePrediction(*most_probable(scores, class_names, top_k), box, found))
    return tuple(scales)


def main(folder: Path) -> int:
    """The command line of `predict.py`; returns the exit code."""
    parser = argparse.ArgumentParser(description="Classify photographs: one line of JSON each.")
    parser.add_argument("inputs", nargs="+", help="image files, folders, patterns, or - for paths on stdin")
    parser.add_argument("--top_k", type=int, default=5, help="classes per image")
    parser.add_argument("--batch_size", type=int, default=16, help="images per batch")
    parser.add_argument("--rank_confidence", type=float, help="of answers at a rank, above 0.5")
    parser.add_argument("--priors", type=Path, help="list of the classes that occur, or table of weights")
    options = parser.parse_args()
    try:
        check_rank_confidence(options.rank_confidence)
        exported = Standalone(folder, rank_confidence=options.rank_confidence, priors=options.priors)
        named, total, read, without = resolve_arguments(options.inputs), 0, 0, 0
        paths = expand_inputs(named.names, read_paths(sys.stdin.buffer))
        for prediction in exported.stream(paths, max(options.top_k, 1), max(options.batch_size, 1)):
            sys.stdout.write(json.dumps(to_json(prediction), allow_nan=False) + "\n")
            total, read = total + 1, read + (prediction.error is None)
            without += prediction.priors is not None and prediction.priors.matched is None
        if without:
            sys.stderr.write(f"predict.py: {answered_without(without, total)}\n")
        check_any_read(named, total, read)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe, say `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except RamsTransError as error:
        sys.stderr.write(f"predict.py: {error}\n")
        return error.exit_code
    return 0
