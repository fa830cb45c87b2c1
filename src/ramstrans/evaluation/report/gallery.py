"""The gallery of the report: image, saliency, region and crop, for correct and wrong predictions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.reading.resize import read_resized
from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.report import style
from ramstrans.evaluation.views import ScaleViews, scale_views
from ramstrans.models.methods.method import Method
from ramstrans.saved.metadata import ModelMetadata

GALLERY_SIZE = 4
"""Maximum number of images in each group of the gallery."""

WIDTH, GAP, CELL = 7, 0.62, 1.7
"""Inches of the figure, for the text between two rows, and for a row of images."""

REGION_COLOR, TRUE_COLOR = "#FFD400", "#FFFFFF"
Line = Callable[[int], str]
"""A line of text, whose names have at most so many characters."""


def choose_groups(predictions: Predictions, count: int = GALLERY_SIZE) -> dict[str, list[int]]:
    """Choose images by heading, up to `count` under each, none twice; headings without images are left out.

    The mistakes with the highest probability, most confident first; then further mistakes, and correct
    predictions, drawn by a fixed seed.
    """
    fused = predictions.fused
    is_right = fused.argmax(axis=1) == predictions.labels
    wrong = np.flatnonzero(~is_right)
    confident = wrong[np.argsort(-fused[wrong].max(axis=1), kind="stable")][:count]
    order = np.random.default_rng(0).permutation(len(is_right))
    others = order[~is_right[order] & ~np.isin(order, confident)]
    groups = {
        "the most confident mistakes": confident,
        "other mistakes, drawn at random": others[:count],
        "correct predictions, drawn at random": order[is_right[order]][:count],
    }
    return {heading: chosen.tolist() for heading, chosen in groups.items() if len(chosen)}


def gallery_views(
    model: Method, metadata: ModelMetadata, dataset: ImageDataset, indices: Sequence[int], precision: str
) -> list[ScaleViews]:
    """Run a model in eval mode on some images of a data set again, for its saliency and crops."""
    paths, reading = [dataset.records[index].path for index in indices], metadata.preprocessing.reading
    images = [read_resized(path, reading, max_pixels=dataset.max_pixels) for path in paths]
    boxes = [dataset.records[index].box for index in indices]
    return scale_views(model, metadata, images, precision, boxes)[2]


def plot_gallery(
    views: Sequence[ScaleViews],
    predictions: Predictions,
    groups: Mapping[str, Sequence[int]],
    class_names: Sequence[str],
    path: Path,
    thresholds: np.ndarray | None = None,
    *,
    num_looks: int = 2,
) -> None:
    """Draw a row of images per prediction, with the file's name below, as a PNG file.

    These are the image, its saliency and, with several looks, the region and what the next scale saw.

    `views` are those of the images of all `groups` (see `choose_groups` and `gallery_views`), at least one;
    `class_names` are in label order; `thresholds` (C,) are those of images that may have several labels.
    """
    indices = [index for group in groups.values() for index in group]
    headings = {group[0]: heading for heading, group in groups.items()}
    height = 0.35 + len(views) * (CELL + GAP) + 0.2 * len(headings)
    figure = Figure(figsize=(WIDTH, height))
    has_box = any(predictions.records[index].box is not None for index in indices)
    columns = ["image", "saliency"]
    if num_looks > 1:
        columns.append("region (yellow) and true box (dashed)" if has_box else "region (yellow)")
    if len(views[0].crops) > 1:
        columns.append("what the next scale saw")
    figure.text(0.01, 1 - 0.17 / height, " | ".join(columns), fontsize=9, va="center")
    top = height - 0.35
    for seen, index in zip(views, indices, strict=True):
        if index in headings:
            top -= 0.2
            figure.text(0.01, (top + 0.03) / height, headings[index], fontsize=10, weight="bold", va="center")
        bottom = top - GAP + 0.18 - CELL  # two lines above the images, one below
        cells = [
            figure.add_axes((0.01 + 0.2475 * column, bottom / height, 0.2375, CELL / height))
            for column in range(len(columns))
        ]
        _write_prediction(cells[0], predictions, index, class_names, thresholds)
        _draw_views(cells, seen, predictions, index)
        top -= CELL + GAP
    style.save_figure(figure, path)


def _write_prediction(
    axes: Axes,
    predictions: Predictions,
    index: int,
    class_names: Sequence[str],
    thresholds: np.ndarray | None,
) -> None:
    """Write the fused prediction and that of each scale above the axes, and the file's name below.

    Names are shortened such that each line, percentages included, fits into the figure.
    """
    probabilities = predictions.probabilities[:, index]
    if thresholds is None:
        title, is_right = _one_label(predictions, index, class_names)
    else:
        title, is_right = _several_labels(predictions, index, class_names, thresholds)

    def note(max_length: int) -> str:
        each = enumerate(probabilities, start=1)
        return "   ".join(
            f"scale {number}: {_best(scores, class_names, max_length)}" for number, scores in each
        )

    def file(max_length: int) -> str:
        return style.label_text("/".join(predictions.records[index].path.parts[-2:]), max_length)

    color = style.RIGHT_COLOR if is_right else style.WRONG_COLOR
    lines: list[tuple[float, Line, dict[str, Any]]] = [
        (1 + 0.19 / CELL, title, {"fontsize": 9, "weight": "bold", "color": color}),
        (-0.14 / CELL, file, {"fontsize": 7, "color": style.MUTED_COLOR}),
    ]
    if len(probabilities) > 1:
        lines.append((1 + 0.05 / CELL, note, {"fontsize": 7.5, "color": style.MUTED_COLOR}))
    for y, compose, options in lines:
        text = axes.text(0, y, "", transform=axes.transAxes, **options)
        style.fit_text(text, compose, 99, WIDTH - 0.15)


def _one_label(predictions: Predictions, index: int, class_names: Sequence[str]) -> tuple[Line, bool]:
    """The fused prediction, with the true class if it is another, and whether it is right."""
    fused, label = predictions.fused[index], predictions.labels[index]
    is_right = bool(fused.argmax() == label)

    def title(max_length: int) -> str:
        truth = f", true class {style.label_text(class_names[label], max_length)}"
        return _best(fused, class_names, max_length) + ("" if is_right else truth)

    return title, is_right


def _several_labels(
    predictions: Predictions, index: int, class_names: Sequence[str], thresholds: np.ndarray
) -> tuple[Line, bool]:
    """The labels that are predicted, with the true ones if those are others, and whether all are right."""
    predicted, true = predictions.fused[index] >= thresholds, predictions.labels[index] > 0
    is_right = bool((predicted == true).all())

    def names(chosen: np.ndarray, max_length: int) -> str:
        some = [style.label_text(class_names[one], max_length) for one in np.flatnonzero(chosen).tolist()]
        return ", ".join(some) or "none"

    def title(max_length: int) -> str:
        truth = f" (true: {names(true, max_length)})"
        return names(predicted, max_length) + ("" if is_right else truth)

    return title, is_right


def _best(scores: np.ndarray, class_names: Sequence[str], max_length: int) -> str:
    """The most probable class and its probability."""
    name = style.label_text(class_names[int(scores.argmax())], max_length)
    return f"{name} {100 * scores.max():.0f} %"


def _draw_views(cells: Sequence[Axes], seen: ScaleViews, predictions: Predictions, index: int) -> None:
    """Draw image and saliency, the region into a third cell, and the next crop into a fourth."""
    whole, saliency, *looks = cells
    everything = (0, 0, *seen.size)
    style.draw_image(whole, seen.image, everything)
    style.draw_saliency(saliency, seen, 0)
    for region in looks[:1]:
        _draw_region(region, seen, predictions, index)
    for crop in looks[1:]:
        style.draw_image(crop, seen.crops[1], (0, 0, *seen.crops[1].size))


def _draw_region(region: Axes, seen: ScaleViews, predictions: Predictions, index: int) -> None:
    everything = (0, 0, *seen.size)
    style.draw_image(region, seen.image, everything)
    true_box = predictions.records[index].box
    if true_box is not None:
        style.draw_box(region, true_box, TRUE_COLOR, rim="black", dashed=True)
    style.draw_box(region, predictions.boxes[0, index].tolist(), REGION_COLOR, rim="black")
    region.set(xlim=(0, seen.size[0]), ylim=(seen.size[1], 0))
