"""From the outputs of a model to predictions: names, probabilities, boxes in the original image."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ramstrans.data.loading.loader import Batch
from ramstrans.data.records import Box
from ramstrans.evaluation.predict import in_originals
from ramstrans.models.methods.early_exit import EarlyExitOutput
from ramstrans.models.methods.rams import RamsOutput


class ScalePrediction(NamedTuple):
    """Prediction of one scale.

    Attributes:
        labels: Names of its most probable classes, best first.
        probabilities: Their probabilities.
        box: The region it proposes for the next scale, half-open `(x0, y0, x1, y1)` in pixels of the image
            after EXIF rotation. None for the last of several scales, whose region no scale uses; explanations
            have it.
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
    """

    path: Path | None
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    scales: tuple[ScalePrediction, ...] = ()
    error: str | None = None


class Explanation(NamedTuple):
    """What the prediction of S scales for one image is based on.

    Attributes:
        image: The image, upright RGB, resized as for the model.
        size: `(width, height)` of the original image in pixels, after EXIF rotation.
        prediction: The prediction.
        saliencies: S arrays (h, w) float32, non-negative, saliency of the patches of what each scale saw.
        crop_boxes: S boxes in pixels of the original image: what each scale saw. The first is the
            preprocessing's crop, every other the region of the scale before.
        crops: S images: what each scale saw, as it saw it.
    """

    image: Image.Image
    size: tuple[int, int]
    prediction: Prediction
    saliencies: tuple[np.ndarray, ...]
    crop_boxes: tuple[Box, ...]
    crops: tuple[Image.Image, ...]


class OutputArrays(NamedTuple):
    """Outputs of a model with S scales for B images of C classes, as arrays on the host.

    Attributes:
        probabilities: (S, B, C) float32, softmax of each scale's logits; NaN for scales that early exit
            skipped.
        fused: (B, C) float32, mean over the scales used.
        num_scales_used: (B,) int64, 1 to S.
        boxes: (R, B, 4) float32, regions of the R scales that propose some, half-open `(x0, y0, x1, y1)` in
            pixels of the original images; NaN for skipped scales.
        has_region: (R, B) bool, False where nothing stood out, and for skipped scales.
    """

    probabilities: np.ndarray
    fused: np.ndarray
    num_scales_used: np.ndarray
    boxes: np.ndarray
    has_region: np.ndarray


def to_arrays(output: RamsOutput | EarlyExitOutput, batch: Batch) -> OutputArrays:
    """Copy the outputs for a batch to the host; boxes go to pixels of the original images."""
    num_scales, num_images = len(output.scales), len(batch.images)
    num_regions = sum(scale.boxes is not None for scale in output.scales)
    num_classes = output.scales[0].logits.shape[1]
    probabilities = np.full((num_scales, num_images, num_classes), np.nan, dtype=np.float32)
    boxes = np.full((num_regions, num_images, 4), np.nan, dtype=np.float32)
    has_region = np.zeros((num_regions, num_images), dtype=bool)
    everyone = np.arange(num_images)
    for scale, result in enumerate(output.scales):
        rows = output.places[scale].cpu().numpy() if isinstance(output, EarlyExitOutput) else everyone
        probabilities[scale, rows] = result.logits.float().softmax(dim=-1).cpu().numpy()
        if result.boxes is not None and result.has_region is not None:
            boxes[scale, rows] = result.boxes.cpu().numpy()
            has_region[scale, rows] = result.has_region.cpu().numpy()
    if isinstance(output, EarlyExitOutput):
        fused, used = output.fused.cpu().numpy(), output.num_scales_used.cpu().numpy()
    else:
        fused, used = probabilities.mean(axis=0), np.full(num_images, num_scales)
    return OutputArrays(probabilities, fused, used, in_originals(boxes, batch), has_region)


def to_predictions(
    arrays: OutputArrays,
    sizes: Sequence[tuple[int, int]],
    paths: Sequence[Path | None],
    class_names: Sequence[str],
    top_k: int,
) -> list[Prediction]:
    """Convert the outputs for a batch to predictions.

    Args:
        arrays: Outputs for B images.
        sizes: B `(width, height)` of the original images in pixels.
        paths: The B files; None for images in memory.
        class_names: Names of the C classes, in label order.
        top_k: Maximum number of classes per prediction.
    """
    predictions = []
    for index, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        scales = []
        for scale in range(arrays.num_scales_used[index]):
            box, has_region = None, None
            if scale < len(arrays.boxes):
                box = clipped_box(arrays.boxes[scale, index], size)
                has_region = bool(arrays.has_region[scale, index])
            best = _most_probable(arrays.probabilities[scale, index], class_names, top_k)
            scales.append(ScalePrediction(*best, box, has_region))
        fused = _most_probable(arrays.fused[index], class_names, top_k)
        predictions.append(Prediction(path, *fused, tuple(scales)))
    return predictions


def _most_probable(
    probabilities: np.ndarray, class_names: Sequence[str], top_k: int
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and probabilities of the most probable classes; equal ones in label order."""
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    return tuple(class_names[label] for label in best), tuple(map(float, probabilities[best]))


def clipped_box(box: np.ndarray, size: tuple[int, int]) -> Box:
    """Convert an array (4,) to a box, clipped to an image that it exceeds by a rounding error at most."""
    x0, y0, x1, y1 = np.clip(box, 0, (*size, *size)).tolist()
    return x0, y0, x1, y1
