"""From the outputs of a model to predictions: names, probabilities, boxes in the original image."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramstrans.calibration.answers import answers, of_scale
from ramstrans.calibration.fitted import Calibration
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.records import Box
from ramstrans.evaluation.report.predictions import top_classes
from ramstrans.evaluation.views import ScaleViews, box_in_original
from ramstrans.models.methods.base import Output
from ramstrans.models.methods.early_exit import EarlyExitOutput


class ScalePrediction(NamedTuple):
    """Prediction of one scale.

    Attributes:
        labels: Names of its most probable classes, best first.
        probabilities: Their probabilities.
        box: The region it proposes for the next scale, half-open `(x0, y0, x1, y1)` in pixels of the image
            after EXIF rotation. None where no scale looks at it: for the last of several scales, and for the
            one after which the image exited early.
        has_region: False where nothing stood out and the box is all that this scale saw; None where the box
            is None.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    box: Box | None
    has_region: bool | None


class Prediction(NamedTuple):
    """Prediction for one image.

    Attributes:
        path: The file; None for an image in memory.
        labels: Names of the most probable classes by the mean of the scales' probabilities, best first;
            empty if there is an error.
        probabilities: Their probabilities.
        scales: Predictions of the scales, first scale first; with early exit there may be fewer than the
            model has.
        error: Why the image could not be read, or None.
        unknown: Whether the image is of no class of the model; None if the model is not calibrated.
        unknown_score: Higher for more unlikely images; None as `unknown`.
        prediction_set: Names of the classes of which one is the true one, with the coverage that the model
            was calibrated for, most probable first; None as `unknown`.
    """

    path: Path | None
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    scales: tuple[ScalePrediction, ...] = ()
    error: str | None = None
    unknown: bool | None = None
    unknown_score: float | None = None
    prediction_set: tuple[str, ...] | None = None


class Explanation(NamedTuple):
    """The prediction for one image, and what each scale saw, with its saliency."""

    prediction: Prediction
    views: ScaleViews


def to_predictions(
    output: Output | EarlyExitOutput,
    batch: Batch,
    paths: Sequence[Path | None],
    class_names: Sequence[str],
    top_k: int,
    calibration: Calibration | None = None,
) -> list[Prediction]:
    """Convert the output for a batch of B images, with or without early exit, to predictions.

    `paths` are the B files, None for images in memory; `class_names` are in label order; each prediction has
    at most `top_k` classes. With a `calibration`, all probabilities are calibrated.
    """
    scales: list[list[ScalePrediction]] = [[] for _ in paths]
    exits = output.num_scales_used.tolist() if isinstance(output, EarlyExitOutput) else None
    for index, scale in enumerate(output.scales):
        rows = output.indices[index].tolist() if isinstance(output, EarlyExitOutput) else range(len(paths))
        probabilities = scale.logits.float().softmax(dim=-1).cpu().numpy()
        if calibration is not None:
            probabilities = of_scale(calibration, probabilities, index + 1)
        regions: Iterable[tuple[Box | None, bool | None]] = repeat((None, None), len(rows))
        if scale.boxes is not None and scale.has_region is not None:
            boxes = map(partial(box_in_original, batch), rows, scale.boxes.cpu().numpy())
            regions = zip(boxes, scale.has_region.tolist(), strict=True)
        for row, scores, region in zip(rows, probabilities, regions, strict=True):
            seen = region if exits is None or exits[row] > index + 1 else (None, None)
            scales[row].append(ScalePrediction(*_most_probable(scores, class_names, top_k), *seen))
    if isinstance(output, EarlyExitOutput):
        fused = output.fused.cpu().numpy()
    else:
        fused = output.probabilities.cpu().numpy().mean(axis=0)
    if calibration is not None:
        found = _calibrated(output, fused, paths, class_names, top_k, calibration)
    else:
        found = [
            Prediction(path, *_most_probable(scores, class_names, top_k))
            for path, scores in zip(paths, fused, strict=True)
        ]
    return [one._replace(scales=tuple(taken)) for one, taken in zip(found, scales, strict=True)]


def _calibrated(
    output: Output | EarlyExitOutput,
    fused: np.ndarray,
    paths: Sequence[Path | None],
    class_names: Sequence[str],
    top_k: int,
    calibration: Calibration,
) -> list[Prediction]:
    """Predictions, without their scales, by the rules for as many scales as each image has used."""
    found: list[Prediction | None] = [None] * len(paths)
    for count in range(1, len(output.scales) + 1):
        rows = _rows_with(output, count, len(paths))
        if len(rows) == 0:
            continue
        kept = (_of_rows(output, rows, count, name) for name in ("logits", "feature"))
        given = answers(calibration, fused[rows], *kept, num_scales=count)
        for index, row in enumerate(rows.tolist()):
            inside = None
            if given.sets is not None:
                inside = tuple(class_names[label] for label in given.set_of(index))
            found[row] = Prediction(
                paths[row],
                *_most_probable(given.probabilities[index], class_names, top_k),
                unknown=None if given.unknown is None else bool(given.unknown[index]),
                unknown_score=None if given.unknown_scores is None else float(given.unknown_scores[index]),
                prediction_set=inside,
            )
    return [one for one in found if one is not None]


def _rows_with(output: Output | EarlyExitOutput, num_scales: int, num_images: int) -> np.ndarray:
    """Indices of the images that have used so many scales."""
    if isinstance(output, EarlyExitOutput):
        return np.flatnonzero(output.num_scales_used.cpu().numpy() == num_scales)
    return np.arange(num_images if num_scales == len(output.scales) else 0)


def _of_rows(output: Output | EarlyExitOutput, rows: np.ndarray, num_scales: int, name: str) -> np.ndarray:
    """(S, n, ...) logits or features of some images in the first scales."""
    of_scales = []
    for index, scale in enumerate(output.scales[:num_scales]):
        values = getattr(scale, name).float().cpu().numpy()
        if isinstance(output, EarlyExitOutput):
            rows_here = np.searchsorted(output.indices[index].cpu().numpy(), rows)
        else:
            rows_here = rows
        of_scales.append(values[rows_here])
    return np.stack(of_scales)


def _most_probable(
    probabilities: np.ndarray, class_names: Sequence[str], top_k: int
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and probabilities of the most probable classes; equal ones in label order."""
    best = top_classes(probabilities, top_k)
    return tuple(class_names[label] for label in best), tuple(map(float, probabilities[best]))
