"""From the outputs of a model to predictions: names, probabilities, boxes in the original image."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramstrans.calibration.answers import answers, of_scale
from ramstrans.calibration.fitted import Calibration
from ramstrans.calibration.priors import weights_of
from ramstrans.data.image_priors import ImagePriors
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.records import Box
from ramstrans.evaluation.views import ScaleViews
from ramstrans.inference.prediction import (
    Prediction,
    ScalePrediction,
    calibrated_prediction,
    effect_of,
    most_probable,
    present_labels,
)
from ramstrans.models.methods.base import Output, to_probabilities
from ramstrans.models.methods.early_exit import EarlyExitOutput


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
    thresholds: Sequence[float] | None = None,
    calibration: Calibration | None = None,
    priors: ImagePriors | None = None,
    *,
    num_looks: int,
) -> list[Prediction]:
    """Convert the output for a batch of B images, with or without early exit, to predictions.

    `paths` are the B files, None for images in memory; `class_names` are in label order; each prediction has
    at most `top_k` classes. `thresholds` are those of images that may have several labels, else None. With a
    `calibration`, all probabilities are calibrated, and `priors` go into those of all scales together.
    `num_looks` is how often the model looks, without early exit: a region after the last look is left out.
    """
    scales: list[list[ScalePrediction]] = [[] for _ in paths]
    exits = output.num_scales_used.tolist() if isinstance(output, EarlyExitOutput) else None
    for index, scale in enumerate(output.scales):
        rows = output.indices[index].tolist() if isinstance(output, EarlyExitOutput) else range(len(paths))
        probabilities = to_probabilities(scale.logits, multi_label=thresholds is not None).cpu().numpy()
        if calibration is not None:
            probabilities = of_scale(calibration, probabilities, index + 1)
        regions: Iterable[tuple[Box | None, bool | None]] = repeat((None, None), len(rows))
        if scale.boxes is not None and scale.has_region is not None:
            boxes = map(batch.box_in_original, rows, scale.boxes.cpu().numpy())
            regions = zip(boxes, scale.has_region.tolist(), strict=True)
        for row, scores, region in zip(rows, probabilities, regions, strict=True):
            seen = region if (num_looks if exits is None else exits[row]) > index + 1 else (None, None)
            scales[row].append(ScalePrediction(*most_probable(scores, class_names, top_k), *seen))
    if isinstance(output, EarlyExitOutput):
        fused = output.fused.cpu().numpy()
    else:
        fused = output.probabilities.cpu().numpy().mean(axis=0)
    if calibration is not None:
        found = _calibrated(output, fused, paths, class_names, top_k, calibration, priors)
    else:
        found = [
            Prediction(
                path,
                *most_probable(scores, class_names, top_k),
                present=None if thresholds is None else present_labels(scores, class_names, thresholds),
            )
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
    priors: ImagePriors | None,
) -> list[Prediction]:
    """Predictions, without their scales, by the rules for as many scales as each image has used."""
    found: list[Prediction | None] = [None] * len(paths)
    matched = None if priors is None else [priors.of(path) for path in paths]
    weights = None if matched is None else weights_of(matched, len(class_names))
    for count in range(1, len(output.scales) + 1):
        rows = _rows_with(output, count, len(paths))
        if len(rows) == 0:
            continue
        kept = (_of_rows(output, rows, count, name) for name in ("logits", "feature"))
        given = answers(
            calibration,
            fused[rows],
            *kept,
            num_scales=count,
            weights=None if weights is None else weights[rows],
        )
        for index, row in enumerate(rows.tolist()):
            one = calibrated_prediction(given, index, class_names, top_k, calibration.taxonomy, paths[row])
            if matched is not None:
                one = one._replace(priors=effect_of(given, index, matched[row].what, class_names))
            found[row] = one
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
