"""The gallery of the report: image, saliency, region and crop, for correct and wrong predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ramstrans.data.loading.loader import Example, ImageDataset, collate
from ramstrans.data.loading.transforms import make_view
from ramstrans.data.reading.photographs import read_resized
from ramstrans.data.records import Box
from ramstrans.evaluation.predict import Predictions, autocast, normalized
from ramstrans.evaluation.report.crops import crop_images, to_image
from ramstrans.evaluation.report.style import (
    MUTED_COLOR,
    RIGHT_COLOR,
    WRONG_COLOR,
    darkened,
    draw_box,
    draw_image,
    draw_saliency,
    label_text,
    save_figure,
)
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.saved.metadata import ModelMetadata

GALLERY_SIZE = 6
"""Maximum number of correct, and of wrong, predictions in the gallery."""

REGION_COLOR, TRUE_COLOR = "#FFD400", "#FFFFFF"
COLUMNS = "image | saliency | region (yellow) and true box (dashed) | what the next scale saw"


class GalleryItem(NamedTuple):
    """One image of the gallery; boxes are half-open `(x0, y0, x1, y1)` in pixels of the original image.

    Attributes:
        image: The image, resized as for the model.
        size: `(width, height)` of the original image.
        saliency: (h, w) saliency of scale 1's patches.
        seen: What scale 1 saw.
        seen_box: Where that lies in the original image.
        box: The region of scale 1.
        true_box: The data set's box, or None.
        crop: What the next scale saw.
        true_name: The true class.
        predicted_name: The fused prediction.
        probability: Its probability, in [0, 1].
        scale_predictions: Prediction of each scale, e.g. `"Crow 87 %"`.
    """

    image: Image.Image
    size: tuple[int, int]
    saliency: np.ndarray
    seen: Image.Image
    seen_box: Box
    box: Box
    true_box: Box | None
    crop: Image.Image
    true_name: str
    predicted_name: str
    probability: float
    scale_predictions: Sequence[str]

    @property
    def is_right(self) -> bool:
        """Whether the fused prediction is the true class."""
        return self.true_name == self.predicted_name


def choose_indices(predictions: Predictions, count: int = GALLERY_SIZE) -> list[int]:
    """Draw up to `count` correctly, and as many wrongly, classified images, by a fixed seed."""
    is_right = predictions.fused.argmax(axis=1) == predictions.labels
    order = np.random.default_rng(0).permutation(len(is_right))
    right, wrong = order[is_right[order]][:count], order[~is_right[order]][:count]
    return [int(index) for index in (*right, *wrong)]


@torch.no_grad()
def gallery_items(
    model: RamsTrans,
    metadata: ModelMetadata,
    dataset: ImageDataset,
    predictions: Predictions,
    indices: Sequence[int],
    precision: str,
) -> list[GalleryItem]:
    """Read images of a data set and run the model on them, as one batch, for its saliency and crops.

    Args:
        model: On its device, in eval mode.
        metadata: Its metadata.
        dataset: The data set.
        predictions: Predictions for the data set.
        indices: Indices of the images, at least one.
        precision: Autocast precision.
    """
    preprocessing, device = metadata.preprocessing, next(model.parameters()).device
    images = [
        read_resized(dataset.records[index].path, preprocessing.resize, max_pixels=dataset.max_pixels)
        for index in indices
    ]
    views = [make_view(*image, preprocessing.crop, metadata.model.input_size) for image in images]
    examples = [
        Example(view, dataset.records[index].label, index, image.original_size)
        for view, index, image in zip(views, indices, images, strict=True)
    ]
    batch = collate(examples, with_high_res=metadata.model.needs_high_res)
    with autocast(device, precision):
        inputs = normalized(batch, preprocessing, device)
        first = model(*inputs, last_region=model.num_scales == 1).scales[0]
    crops = crop_images(batch, first.boxes, metadata.model.scale_sizes[-1])
    height, width = metadata.model.input_size
    names = metadata.class_names
    return [
        GalleryItem(
            image=to_image(images[row].pixels),
            size=images[row].original_size[::-1],
            saliency=first.saliency[row].float().cpu().numpy(),
            seen=to_image(batch.images[row]),
            seen_box=to_box(batch.geometries[row].to_original(np.array([0, 0, width, height]))),
            box=to_box(predictions.boxes[0, index]),
            true_box=dataset.records[index].box,
            crop=crops[row],
            true_name=names[predictions.labels[index]],
            predicted_name=names[predictions.fused[index].argmax()],
            probability=float(predictions.fused[index].max()),
            scale_predictions=[
                f"{names[scale.argmax()]} {100 * scale.max():.0f} %"
                for scale in predictions.probabilities[:, index]
            ],
        )
        for row, index in enumerate(indices)
    ]


def to_box(corners: np.ndarray) -> Box:
    """Convert an array (4,) to a box of floats."""
    x0, y0, x1, y1 = corners.tolist()
    return x0, y0, x1, y1


def plot_gallery(items: Sequence[GalleryItem], path: Path) -> None:
    """Draw a row of four images per item, correct predictions first.

    Args:
        items: The items, at least one.
        path: The PNG file.
    """
    ordered = sorted(items, key=lambda item: not item.is_right)  # stable
    num_right, height = sum(item.is_right for item in ordered), 0.6 + 2.1 * len(ordered)
    figure = Figure(figsize=(7, height))
    title = f"{num_right} right (green), {len(ordered) - num_right} wrong (red)\n{COLUMNS}"
    figure.suptitle(title, fontsize=9, y=1 - 0.06 / height)
    grid = {"left": 0.01, "right": 0.99, "bottom": 0.05 / height, "top": 1 - 0.85 / height}
    grid |= {"wspace": 0.05, "hspace": 0.28}
    rows = figure.subplots(len(ordered), 4, squeeze=False, gridspec_kw=grid)
    for cells, item in zip(rows, ordered, strict=True):
        _draw_item(cells, item)
    save_figure(figure, path)


def _draw_item(cells: Sequence[Axes], item: GalleryItem) -> None:
    """Draw one row: two lines of text over four images."""
    title = f"{label_text(item.predicted_name, 40)} {100 * item.probability:.0f} %"
    title += "" if item.is_right else f", true class {label_text(item.true_name, 40)}"
    scales = "   ".join(
        f"scale {index}: {label_text(text, 40)}" for index, text in enumerate(item.scale_predictions, start=1)
    )
    whole, saliency, region, crop = cells
    color = RIGHT_COLOR if item.is_right else WRONG_COLOR
    whole.text(0, 1.12, title, transform=whole.transAxes, fontsize=9, weight="bold", color=color)
    whole.text(0, 1.03, scales, transform=whole.transAxes, fontsize=7.5, color=MUTED_COLOR)
    everything = (0, 0, *item.size)
    draw_image(whole, item.image, everything)
    draw_image(saliency, darkened(item.image), everything)
    draw_saliency(saliency, item.saliency, item.seen, item.seen_box)
    draw_image(region, item.image, everything)
    if item.true_box is not None:
        draw_box(region, item.true_box, TRUE_COLOR, rim="black", dashed=True)
    draw_box(region, item.box, REGION_COLOR, rim="black")
    for axes in (saliency, region):
        axes.set(xlim=(0, item.size[0]), ylim=(item.size[1], 0))
    draw_image(crop, item.crop, (0, 0, *item.crop.size))
