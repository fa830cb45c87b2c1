"""From the outputs of a model to predictions: names, probabilities, boxes in the original image."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from ramstrans.data.loading.dataset import Batch
from ramstrans.data.records import Box
from ramstrans.evaluation.views import ScaleViews
from ramstrans.inference.prediction import Prediction, ScalePrediction, most_probable, present_labels
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
) -> list[Prediction]:
    """Convert the output for a batch of B images, with or without early exit, to predictions.

    `paths` are the B files, None for images in memory; `class_names` are in label order; each prediction has
    at most `top_k` classes. `thresholds` are those of images that may have several labels, else None.
    """
    scales: list[list[ScalePrediction]] = [[] for _ in paths]
    exits = output.num_scales_used.tolist() if isinstance(output, EarlyExitOutput) else None
    for index, scale in enumerate(output.scales):
        rows = output.indices[index].tolist() if isinstance(output, EarlyExitOutput) else range(len(paths))
        probabilities = to_probabilities(scale.logits, multi_label=thresholds is not None).cpu().numpy()
        regions: Iterable[tuple[Box | None, bool | None]] = repeat((None, None), len(rows))
        if scale.boxes is not None and scale.has_region is not None:
            boxes = map(batch.box_in_original, rows, scale.boxes.cpu().numpy())
            regions = zip(boxes, scale.has_region.tolist(), strict=True)
        for row, scores, region in zip(rows, probabilities, regions, strict=True):
            seen = region if exits is None or exits[row] > index + 1 else (None, None)
            scales[row].append(ScalePrediction(*most_probable(scores, class_names, top_k), *seen))
    if isinstance(output, EarlyExitOutput):
        fused = output.fused.cpu().numpy()
    else:
        fused = output.probabilities.cpu().numpy().mean(axis=0)
    return [
        Prediction(
            path,
            *most_probable(scores, class_names, top_k),
            tuple(taken),
            present=None if thresholds is None else present_labels(scores, class_names, thresholds),
        )
        for path, scores, taken in zip(paths, fused, scales, strict=True)
    ]
