"""The gallery of the report: image, saliency, region and crop, for correct and wrong predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.reading.decode import read_resized
from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.report import style
from ramstrans.evaluation.views import ScaleViews, scale_views
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.saved.metadata import ModelMetadata

GALLERY_SIZE = 6
"""Maximum number of correct, and of wrong, predictions in the gallery."""

REGION_COLOR, TRUE_COLOR = "#FFD400", "#FFFFFF"
COLUMNS = "image | saliency | region (yellow) and true box (dashed) | what the next scale saw"


def choose_indices(predictions: Predictions, count: int = GALLERY_SIZE) -> list[int]:
    """Draw up to `count` correctly, and as many wrongly, classified images, by a fixed seed."""
    is_right = predictions.fused.argmax(axis=1) == predictions.labels
    order = np.random.default_rng(0).permutation(len(is_right))
    right, wrong = order[is_right[order]][:count], order[~is_right[order]][:count]
    return [int(index) for index in (*right, *wrong)]


def gallery_views(
    model: RamsTrans, metadata: ModelMetadata, dataset: ImageDataset, indices: Sequence[int], precision: str
) -> list[ScaleViews]:
    """Run a model in eval mode on some images of a data set again, for its saliency and crops."""
    paths, reading = [dataset.records[index].path for index in indices], metadata.preprocessing.reading
    images = [read_resized(path, *reading, max_pixels=dataset.max_pixels) for path in paths]
    return scale_views(model, metadata, images, precision)[2]


def plot_gallery(
    views: Sequence[ScaleViews],
    predictions: Predictions,
    indices: Sequence[int],
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Draw a row of four images per prediction, as a PNG file.

    `indices` are those of the images of `views` (see `gallery_views`) in the predictions for the whole
    split, at least one; `class_names` are in label order.
    """
    is_right = predictions.fused[indices].argmax(axis=1) == predictions.labels[indices]
    height = 0.6 + 2.1 * len(views)
    figure = Figure(figsize=(7, height))
    title = f"{is_right.sum()} right (green), {(~is_right).sum()} wrong (red)\n{COLUMNS}"
    figure.suptitle(title, fontsize=9, y=1 - 0.06 / height)
    grid = {"left": 0.01, "right": 0.99, "bottom": 0.05 / height, "top": 1 - 0.85 / height}
    grid |= {"wspace": 0.05, "hspace": 0.28}
    rows = figure.subplots(len(views), 4, squeeze=False, gridspec_kw=grid)
    for cells, seen, index in zip(rows, views, indices, strict=True):
        _write_prediction(cells[0], predictions, index, class_names)
        _draw_views(cells, seen, predictions, index)
    style.save_figure(figure, path)


def _write_prediction(axes: Axes, predictions: Predictions, index: int, class_names: Sequence[str]) -> None:
    """Write two lines above the axes: the fused prediction, and that of each scale."""

    def best(probabilities: np.ndarray) -> str:
        name = style.label_text(class_names[int(probabilities.argmax())], 40)
        return f"{name} {100 * probabilities.max():.0f} %"

    fused, label = predictions.fused[index], predictions.labels[index]
    is_right = fused.argmax() == label
    title = best(fused) + ("" if is_right else f", true class {style.label_text(class_names[label], 40)}")
    scales = enumerate(predictions.probabilities[:, index], start=1)
    note = "   ".join(f"scale {number}: {best(probabilities)}" for number, probabilities in scales)
    color = style.RIGHT_COLOR if is_right else style.WRONG_COLOR
    axes.text(0, 1.12, title, transform=axes.transAxes, fontsize=9, weight="bold", color=color)
    axes.text(0, 1.03, note, transform=axes.transAxes, fontsize=7.5, color=style.MUTED_COLOR)


def _draw_views(cells: Sequence[Axes], seen: ScaleViews, predictions: Predictions, index: int) -> None:
    whole, saliency, region, crop = cells
    everything = (0, 0, *seen.size)
    style.draw_image(whole, seen.image, everything)
    style.draw_image(saliency, style.darkened(seen.image), everything)
    style.draw_saliency(saliency, seen.saliencies[0], seen.crops[0], seen.crop_boxes[0])
    style.draw_image(region, seen.image, everything)
    true_box = predictions.records[index].box
    if true_box is not None:
        style.draw_box(region, true_box, TRUE_COLOR, rim="black", dashed=True)
    style.draw_box(region, predictions.boxes[0, index].tolist(), REGION_COLOR, rim="black")
    for axes in (saliency, region):
        axes.set(xlim=(0, seen.size[0]), ylim=(seen.size[1], 0))
    next_crop = seen.crops[min(1, len(seen.crops) - 1)]
    style.draw_image(crop, next_crop, (0, 0, *next_crop.size))
