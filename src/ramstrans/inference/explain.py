"""Explain one prediction as a figure and as JSON: what each scale saw, its saliency, its prediction."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ramstrans.data.records import Box
from ramstrans.evaluation.report import style
from ramstrans.files import check_output, check_outputs, write_file
from ramstrans.inference.contrast import Comparison, ScaleContrast, compare
from ramstrans.inference.neighbors import draw_neighbor
from ramstrans.inference.postprocess import Explanation
from ramstrans.inference.prediction import Prediction, ScalePrediction
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_json
from ramstrans.plain import counted
from ramstrans.saved.embeddings import Embeddings

ROW_HEIGHT, WIDTH, BAR_LABEL = 3.1, 10.5, 2.9  # inches
WIDE, NEAREST_HEIGHT = 14.0, 2.2  # inches, with a contrast
NUM_NAMED = 2
"""Classes of a prediction set that are named in a figure."""


def explain(
    predictor: Predictor,
    image_path: Path,
    picture_path: Path,
    *,
    overwrite: bool = False,
    against: str | None = None,
    embeddings: Embeddings | None = None,
) -> dict[str, Any]:
    """Explain the prediction for one image by a PNG file, and a JSON file of the same name beside it.

    With `against`, a class or `runner_up`, it says why the answer is not that class; with `embeddings`, the
    index of the model, it shows the nearest training photographs of both.

    Returns what `explanation_to_json` does.

    Raises:
        UnreadableImageError: The image cannot be decoded.
        OutputError: `picture_path` does not end in .png, or a file exists or cannot be written.
        UsageError: There is no such class.
    """
    check_pictures([picture_path], overwrite=overwrite)
    comparison = None
    if against is None:
        explanation = predictor.explain(image_path)
    else:
        comparison = compare(predictor, image_path, against, embeddings)
        explanation = comparison.explanation
    values = explanation_to_json(explanation, comparison)
    plot_explanation(explanation, picture_path, predictor.model.saliency_name, comparison, embeddings)
    write_file(json_path(picture_path), json.dumps(values, ensure_ascii=False).encode())
    return values


def check_pictures(picture_paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raise OutputError unless both files of each explanation may be written."""
    for path in picture_paths:
        check_output(path, overwrite=overwrite, suffixes=(".png",))
    check_outputs([*picture_paths, *map(json_path, picture_paths)], overwrite=overwrite)


def json_path(picture_path: Path) -> Path:
    """Where the JSON file of an explanation is."""
    return picture_path.with_suffix(".json")


def picture_paths(image_paths: Sequence[Path], folder: Path) -> list[Path]:
    """One path below a folder for the figure of each image, in the subfolders that tell images apart.

    >>> images = [Path("birds/red/0.jpg"), Path("birds/blue/0.jpg"), Path("birds/blue/0.png")]
    >>> [path.as_posix() for path in picture_paths(images, Path("why"))]
    ['why/red/0-explained.png', 'why/blue/0.jpg-explained.png', 'why/blue/0.png-explained.png']
    """
    whole = [Path(os.path.abspath(path)) for path in image_paths]  # noqa: PTH100 - links stay
    root = os.path.commonpath([path.parent for path in whole])
    stems = Counter(path.with_suffix("") for path in whole)
    names = [path.relative_to(root) for path in whole]
    return [
        folder
        / name.with_name(f"{name.stem if stems[path.with_suffix('')] == 1 else name.name}-explained.png")
        for path, name in zip(whole, names, strict=True)
    ]


def explanation_to_json(explanation: Explanation, comparison: Comparison | None = None) -> dict[str, Any]:
    """Convert an explanation to plain values; the last scale has no region, as no scale sees it.

    To the values of `writers.to_json` it adds `width` and `height` of the image, and per scale `crop_box`,
    the part of the image that the scale saw as `[x0, y0, x1, y1]` in pixels, and `saliency`, rows of patches
    that cover this box; null where a value is not finite. A comparison adds `against`, see
    `Comparison.to_json`, and per scale `contrast`: the `difference` of the logits, and its `map`, rows of
    parts that cover the same box.
    """
    values, views = to_json(explanation.prediction), explanation.views
    values["width"], values["height"] = views.size
    for scale, crop_box, saliency in zip(values["scales"], views.crop_boxes, views.saliencies, strict=True):
        scale["crop_box"] = [round(side, 2) for side in crop_box]
        scale["saliency"] = _rows(saliency)
    if comparison is not None:
        values["against"] = comparison.to_json()
        for scale, one in zip(values["scales"], comparison.scales, strict=True):
            scale["contrast"] = {"difference": round(one.difference, 6), "map": _rows(one.map)}
    return values


def _rows(values: np.ndarray) -> list[list[float | None]]:
    """Numbers (h, w) in six digits; None where one is not finite."""
    return [
        [float(f"{value:.6g}") if np.isfinite(value) else None for value in row] for row in values.tolist()
    ]


def plot_explanation(
    explanation: Explanation,
    path: Path,
    saliency: str = "",
    comparison: Comparison | None = None,
    embeddings: Embeddings | None = None,
) -> None:
    """Draw the prediction, and a row per scale: saliency and region, what it saw, its prediction.

    Args:
        explanation: Of one image.
        path: PNG file.
        saliency: Name of the saliency, for the titles.
        comparison: Adds a column: what speaks for the answer, and for another class.
        embeddings: The index that the comparison's nearest photographs are of, which are a last row.
    """
    num_rows = len(explanation.views.crops) + 1
    if comparison is None:
        figure = Figure(figsize=(WIDTH, ROW_HEIGHT * num_rows), layout="constrained")
        cells = figure.subplots(num_rows, 3, width_ratios=(1.2, 1, 1.2))
    else:
        figure, cells = _compared(explanation, comparison, embeddings)
    _draw_prediction(cells[0], explanation)
    for index in range(num_rows - 1):
        _draw_scale(cells[index + 1], explanation, index, saliency)
    style.save_figure(figure, path)


def _compared(
    explanation: Explanation, comparison: Comparison, embeddings: Embeddings | None
) -> tuple[Figure, np.ndarray]:
    """A figure with the contrasts and, in a last row, the nearest photographs; its other cells, (rows, 3)."""
    num_rows, last = len(explanation.views.crops) + 1, 0.0
    height = ROW_HEIGHT * num_rows
    if embeddings is not None and comparison.nearest is not None and any(comparison.nearest):
        last = NEAREST_HEIGHT
    figure = Figure(figsize=(WIDE, height + last), layout="constrained")
    above: Any = figure
    if embeddings is not None and last:
        parts: Any = figure.subfigures(2, 1, height_ratios=(height, last))
        above, below = parts
        _draw_nearest(below, comparison, embeddings)
    cells: np.ndarray = above.subplots(num_rows, 4, width_ratios=(1.2, 1.2, 1, 1.2))
    _draw_comparison(cells[0, 1], comparison)
    for index, one in enumerate(comparison.scales):
        _draw_contrast(cells[index + 1, 1], explanation, index, one)
    return figure, cells[:, [0, 2, 3]]


def _draw_comparison(axes: Axes, comparison: Comparison) -> None:
    """Write the two classes in their colours, with their probabilities."""
    axes.set_axis_off()
    lines = [
        ("why", comparison.answer, style.FOR_COLOR, "what speaks for it is blue"),
        ("and not", comparison.against, style.AGAINST_COLOR, "what speaks for it is orange"),
    ]
    for index, ((word, name, color, note), probability) in enumerate(
        zip(lines, comparison.probabilities, strict=True)
    ):
        y = 0.97 - 0.38 * index
        axes.text(0, y, word, fontsize=9, color=style.MUTED_COLOR, va="top")
        text = axes.text(0, y - 0.08, "", fontsize=10, weight="bold", color=color, va="top")
        style.fit_text(text, partial(style.label_text, name), 40, BAR_LABEL)
        axes.text(0, y - 0.17, f"{probability:.1%}; {note}", fontsize=8, color=style.MUTED_COLOR, va="top")


def _draw_contrast(axes: Axes, explanation: Explanation, index: int, one: ScaleContrast) -> None:
    """Draw where the difference of two logits comes from."""
    style.draw_contrast(axes, explanation.views, index, one.map)
    name = "for and against" if len(explanation.views.crops) == 1 else f"scale {index + 1}: for and against"
    _title(axes, name, f"difference of the logits {one.difference:+.2f}")


def _draw_nearest(figure: Any, comparison: Comparison, embeddings: Embeddings) -> None:  # noqa: ANN401
    """Draw the nearest training photographs of both classes in a row."""
    assert comparison.nearest is not None, "checked before"
    count = max(map(len, comparison.nearest))
    cells = figure.subplots(1, 2 * count, squeeze=False)[0]
    colors = (style.FOR_COLOR, style.AGAINST_COLOR)
    for number, (found, color) in enumerate(zip(comparison.nearest, colors, strict=True)):
        part = cells[number * count : (number + 1) * count]
        for axes in part:
            axes.set_axis_off()
        for axes, neighbor in zip(part, found, strict=False):
            draw_neighbor(axes, embeddings, neighbor, color)
    figure.suptitle("the nearest training photographs of both classes", fontsize=10, weight="bold")


def _draw_prediction(cells: Sequence[Axes], explanation: Explanation) -> None:
    """Draw the image with what each scale saw, and the predictions as text and as bars."""
    prediction, views = explanation
    width, height = views.size
    image, text, bars = cells
    style.draw_image(image, views.image, (0, 0, width, height))
    for index, crop_box in enumerate(views.crop_boxes):
        style.draw_box(image, crop_box, style.scale_color(index))
    file = prediction.path.name if prediction.path else "image in memory"
    _title(image, style.label_text(file, 40), f"{width} x {height} pixels")
    text.set_axis_off()
    fused = "mean of all scales"
    lines: list[tuple[str, str, Prediction | ScalePrediction]] = [(fused, style.FUSED_COLOR, prediction)]
    lines += [(f"scale {i + 1}", style.scale_color(i), scale) for i, scale in enumerate(prediction.scales)]
    if len(prediction.scales) == 1:
        lines = [("the only scale", style.FUSED_COLOR, prediction)]
        bars.set_axis_off()
    else:
        title = fused if prediction.present is None else f"{fused}, bold: present"
        _bars(bars, title, prediction.labels, prediction.probabilities, style.FUSED_COLOR, prediction.present)
    notes = [*_trust_notes(prediction), *_rank_notes(prediction)]
    if notes:
        color, words = style.MUTED_COLOR, "\n".join(notes)
        text.text(0, 0, words, color=color, fontsize=8, va="bottom", in_layout=False)  # it may be wide
    for index, (what, color, result) in enumerate(lines):
        y = 0.97 - index * min(0.97 / max(len(lines), 4), (0.97 - 0.06 * len(notes)) / len(lines))
        name = text.text(0, y, "", color=color, fontsize=10, weight="bold", va="top")
        answer, note = result.labels[0], f"{result.probabilities[0]:.1%}, {what}"
        if isinstance(result, Prediction) and result.present is not None:
            answer = ", ".join(result.present) or "no label"
            note = f"{counted(len(result.present), 'label')}, {what}"
        style.fit_text(name, partial(style.label_text, answer), 40, BAR_LABEL)
        text.text(0, y - 0.09, note, color=style.MUTED_COLOR, fontsize=8, va="top")


def _trust_notes(prediction: Prediction) -> list[str]:
    """What a calibrated model says of its answer, a line each."""
    notes = []
    if prediction.unknown:
        notes.append("UNKNOWN: like none of the classes")
    if prediction.prediction_set is not None and (count := len(prediction.prediction_set)) != 1:
        names = [style.label_text(name, 30) for name in prediction.prediction_set[:NUM_NAMED]]
        more = ["..."] if count > NUM_NAMED else []
        notes.append(f"one of {count}: {names[0] if names else 'none'}")
        notes += [", ".join([*names[1:], *more])] if count > 1 else []
    return notes


def _rank_notes(prediction: Prediction) -> list[str]:
    """The answer at a rank, and what priors changed, a line each."""
    notes, answer, effect = [], prediction.answer, prediction.priors
    if answer is not None and answer.name is None:
        notes.append("no rank is certain")
    elif answer is not None and answer.name is not None:
        name = style.label_text(answer.name, 22)
        notes.append(f"{answer.rank}: {name}, {answer.probability:.1%}")
    if effect is not None and effect.matched is None:
        notes.append("without priors: no condition holds")
    elif effect is not None:
        notes.append(f"priors: {style.label_text(str(effect.matched), 34)}")
        if effect.changed:
            notes.append(f"without: {style.label_text(effect.label, 22)}, {effect.probability:.1%}")
    return notes


def _draw_scale(cells: Sequence[Axes], explanation: Explanation, index: int, saliency: str) -> None:
    """Draw one scale: saliency over what it saw, with the region if another scale sees it; its prediction."""
    over, seen, bars = cells
    prediction, views = explanation
    scale, crop = prediction.scales[index], views.crops[index]
    style.draw_saliency(over, views, index)
    region = ""
    if scale.box is not None:
        style.draw_box(over, scale.box, style.scale_color(index + 1))
        region = (
            f"region of {_sides(scale.box)} pixels" if scale.has_region else "nothing stood out: no region"
        )
    by = f" by {saliency}" if saliency else ""
    _title(over, f"scale {index + 1}: saliency{by}", region)
    style.draw_image(seen, crop, (0, 0, *crop.size))
    note = f"{_sides(views.crop_boxes[index])} pixels, resized to {crop.width} x {crop.height}"
    _title(seen, f"what scale {index + 1} saw", note)
    _bars(bars, f"scale {index + 1}", scale.labels, scale.probabilities, style.scale_color(index))


def _bars(
    axes: Axes,
    title: str,
    labels: tuple[str, ...],
    probabilities: tuple[float, ...],
    color: str,
    bold: tuple[str, ...] | None = None,
) -> None:
    """Draw probabilities as bars with names and percentages over them; by default the first name is bold."""
    bold = labels[:1] if bold is None else bold
    axes.barh(range(len(labels)), probabilities, color=color, alpha=0.35, height=0.78)
    for row, (label, probability) in enumerate(zip(labels, probabilities, strict=True)):
        weight = "bold" if label in bold else "normal"
        name = axes.text(0.015, row, "", va="center", fontsize=9, weight=weight)
        style.fit_text(name, partial(style.label_text, label), 40, BAR_LABEL)
        axes.text(1.0, row, f"{probability:.1%}", va="center", ha="right", fontsize=9, weight=weight)
    axes.set(xlim=(0, 1), ylim=(max(len(labels), 5) - 0.5, -0.5), xticks=(), yticks=())
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10, weight="bold", color=color, pad=3)


def _title(axes: Axes, text: str, note: str) -> None:
    """Write a bold line with a small one under it, above the axes."""
    axes.set_title(f"{text}\n", loc="left", fontsize=10, weight="bold", pad=2)
    axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=8, color=style.MUTED_COLOR, in_layout=False)


def _sides(box: Box) -> str:
    """Width and height of a box in whole pixels.

    >>> _sides((3.0, 5.0, 10.0, 16.4))
    '7 x 11'
    """
    x0, y0, x1, y1 = box
    return f"{x1 - x0:.0f} x {y1 - y0:.0f}"
