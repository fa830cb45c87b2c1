"""One picture of why: where each scale looked, what it saw there, what it said; and the same as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ramstrans.data.records import Box
from ramstrans.errors import UsageError
from ramstrans.evaluation.report.style import FUSED_COLOR, draw_box, label_text, save_figure, scale_color
from ramstrans.files import write_file
from ramstrans.inference.predictor import Explanation, Predictor
from ramstrans.inference.writers import to_json

PICTURE_SIDE = 640  # pixels; more is never seen
ROW_HEIGHT, WIDTH = 3.1, 10.5  # inches
MUTED_COLOR = "#555555"


def explain(
    predictor: Predictor,
    image_path: Path,
    picture_path: Path,
    json_path: Path | None = None,
    *,
    top_k: int = 5,
) -> dict[str, Any]:
    """Explain the prediction for one photograph.

    Args:
        predictor: The model.
        image_path: The photograph.
        picture_path: The PNG file to write, replaced where it exists.
        json_path: A file to write the returned values to, likewise.
        top_k: Number of classes shown for each scale.

    Returns:
        See `explanation_to_json`.

    Raises:
        UnreadableImageError: The photograph cannot be decoded.
        UsageError: `picture_path` is no PNG file's.
        OutputError: A file cannot be written.
    """
    if picture_path.suffix.lower() != ".png":
        raise UsageError(f"--output {picture_path} is no name of a picture; give one that ends in .png")
    explanation = predictor.explain(image_path, top_k)
    values = explanation_to_json(explanation)
    plot_explanation(explanation, picture_path)
    if json_path is not None:
        write_file(json_path, json.dumps(values, ensure_ascii=False).encode())
    return values


def explanation_to_json(explanation: Explanation) -> dict[str, Any]:
    """An explanation as plain values.

    What `output.to_json` gives, and the photograph's `width` and `height`, and for each scale its
    `crop_box`, the part of the photograph that it saw as `[x0, y0, x1, y1]` in pixels, and its
    `saliency`, rows of patches stretched over that frame; null where a value is not finite.
    """
    values = to_json(explanation.prediction)
    values |= {"width": explanation.photograph.width, "height": explanation.photograph.height}
    for scale, crop_box, saliency in zip(
        values["scales"], explanation.crop_boxes, explanation.saliencies, strict=True
    ):
        scale["crop_box"] = [round(side, 2) for side in crop_box]
        scale["saliency"] = [
            [float(f"{value:.6g}") if np.isfinite(value) else None for value in row]
            for row in saliency.tolist()
        ]
    return values


def plot_explanation(explanation: Explanation, path: Path) -> None:
    """Draw the answer, and a row for each scale: its saliency and region, what it saw, what it said.

    Args:
        explanation: Of one photograph.
        path: The PNG file.
    """
    num_rows = len(explanation.crops) + 1
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * num_rows))
    height = ROW_HEIGHT * num_rows
    cells = figure.subplots(
        num_rows,
        3,
        width_ratios=(1.2, 1, 1.2),
        gridspec_kw={
            "left": 0.15 / WIDTH,
            "right": 1 - 0.15 / WIDTH,
            "top": 1 - 0.55 / height,
            "bottom": 0.1 / height,
            "wspace": 0.06,
            "hspace": 0.22,
        },
    )
    _answer(cells[0], explanation)
    for index in range(num_rows - 1):
        _scale(cells[index + 1], explanation, index)
    save_figure(figure, path)


def _answer(cells: Sequence[Axes], explanation: Explanation) -> None:
    """The photograph with what each scale saw, the answer in words, and as bars."""
    photograph, prediction = explanation.photograph, explanation.prediction
    picture, words, bars = cells
    _show(picture, photograph, (0, 0, *photograph.size))
    for index, crop_box in enumerate(explanation.crop_boxes):
        draw_box(picture, crop_box, scale_color(index))
    name = prediction.path.name if prediction.path else "photograph"
    _title(picture, label_text(name, 44), f"{photograph.width} x {photograph.height} pixels")
    words.set_axis_off()
    high_res = "mean of all scales" if len(prediction.scales) > 1 else "the only scale"
    _words(
        words, 0.93, prediction.labels[0], f"{_percent(prediction.probabilities[0])}, {high_res}", FUSED_COLOR
    )
    step = min(0.19, 0.7 / len(prediction.scales))
    for index, (crop_box, said) in enumerate(zip(explanation.crop_boxes, prediction.scales, strict=True)):
        note = f"{_percent(said.probabilities[0])}, looking at {_place(crop_box)}"
        text = f"scale {index + 1}: {said.labels[0]}"
        _words(words, 0.7 - step * index, text, note, scale_color(index), size=9)
    _bars(bars, high_res, prediction.labels, prediction.probabilities, FUSED_COLOR)


def _words(axes: Axes, y: float, text: str, note: str, color: str, *, size: int = 11) -> None:
    """A bold line, and a small one under it, at a height in [0, 1]."""
    axes.text(0.02, y, label_text(text, 300 // size), color=color, fontsize=size, weight="bold")
    axes.text(0.02, y - 0.075, note, color=MUTED_COLOR, fontsize=8)


def _scale(cells: Sequence[Axes], explanation: Explanation, index: int) -> None:
    """One scale: saliency and region over the photograph or its crop, what it saw, what it said."""
    over, saw, bars = cells
    crop, said = explanation.crops[index], explanation.prediction.scales[index]
    assert said.box is not None, "an explanation has the last scale's region too"
    is_last = index == len(explanation.crops) - 1
    _saliency(over, explanation, index)
    draw_box(over, said.box, FUSED_COLOR if is_last else scale_color(index + 1), dashed=is_last)
    region = f"region of {_sides(said.box)} pixels" if said.has_region else "nothing stood out: no region"
    _title(over, f"scale {index + 1}: saliency", f"{region}, looked at no more" if is_last else region)
    saw.imshow(crop)
    saw.set_axis_off()
    saw.set_anchor("W")
    _title(saw, f"what scale {index + 1} saw", f"resized to {crop.width} x {crop.height} pixels")
    _bars(bars, f"scale {index + 1}", said.labels, said.probabilities, scale_color(index))


def _saliency(axes: Axes, explanation: Explanation, index: int) -> None:
    """Saliency over the part of the photograph that it belongs to; around the first, the rest, dark."""
    photograph, saliency = explanation.photograph, explanation.saliencies[index]
    x0, y0, x1, y1 = crop_box = explanation.crop_boxes[index]
    if index == 0:
        _show(axes, photograph.convert("L").point(lambda value: value // 3), (0, 0, *photograph.size))
    _show(axes, explanation.crops[index].convert("L"), crop_box)
    if np.isfinite(saliency).all():
        axes.imshow(
            saliency,
            cmap="inferno",
            alpha=0.6,
            vmax=float(np.quantile(saliency, 0.98)),  # single hot patches would leave the rest dark
            extent=(x0, x1, y1, y0),
            interpolation="bilinear",
        )
    if index == 0:
        axes.set(xlim=(0, photograph.width), ylim=(photograph.height, 0))


def _show(axes: Axes, image: Image.Image, crop_box: Box) -> None:
    """An image laid over a frame, in axes whose unit is a pixel of the photograph."""
    x0, y0, x1, y1 = crop_box
    small = image.copy()
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    axes.imshow(np.asarray(small), cmap="gray", vmin=0, vmax=255, extent=(x0, x1, y1, y0), aspect="equal")
    axes.set_axis_off()
    axes.set_anchor("W")


def _bars(
    axes: Axes, title: str, labels: tuple[str, ...], probabilities: tuple[float, ...], color: str
) -> None:
    """Probabilities as bars, names and percentages written over them."""
    axes.barh(range(len(labels)), probabilities, color=color, alpha=0.35, height=0.78)
    for place, (label, probability) in enumerate(zip(labels, probabilities, strict=True)):
        weight = "bold" if place == 0 else "normal"
        axes.text(0.015, place, label_text(label, 32), va="center", fontsize=9, weight=weight)
        axes.text(1.0, place, _percent(probability), va="center", ha="right", fontsize=9, weight=weight)
    axes.set(xlim=(0, 1), ylim=(max(len(labels), 5) - 0.5, -0.5), xticks=(), yticks=())
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10, weight="bold", color=color, pad=3)


def _title(axes: Axes, text: str, note: str) -> None:
    """A bold line, and a small one under it, above the axes."""
    axes.set_title(f"{text}\n", loc="left", fontsize=10, weight="bold", pad=2)
    axes.annotate(
        note,
        (0, 1),
        (0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color=MUTED_COLOR,
    )


def _sides(box: Box) -> str:
    """Width and height of a box in whole pixels.

    >>> _sides((3.0, 5.0, 10.0, 16.4))
    '7 x 11'
    """
    x0, y0, x1, y1 = box
    return f"{x1 - x0:.0f} x {y1 - y0:.0f}"


def _place(box: Box) -> str:
    """Size and corner of a box in whole pixels.

    >>> _place((3.0, 5.0, 10.0, 16.4))
    '7 x 11 pixels at (3, 5)'
    """
    return f"{_sides(box)} pixels at ({box[0]:.0f}, {box[1]:.0f})"


def _percent(probability: float) -> str:
    """A probability for people.

    >>> _percent(0.1234)
    '12.3 %'
    """
    return f"{100 * probability:.1f} %"
