"""Plots: curves of a training run, accuracy against cost of early exit, the most confused classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ramstrans.evaluation.metrics import confused_pairs
from ramstrans.evaluation.report.style import (
    FUSED_COLOR,
    MUTED_COLOR,
    RIGHT_COLOR,
    finish_axes,
    label_text,
    save_figure,
    scale_color,
)
from ramstrans.evaluation.trust import NUM_BINS

Row = Mapping[str, Any]
"""One line of metrics.jsonl."""

MAX_CONFUSED = 12
"""Classes of the confusion matrix."""


def plot_curves(metrics_rows: Sequence[Row], path: Path) -> None:
    """Plot losses, validation accuracy, learning rate and speed of a training run as a PNG file.

    Rows have `kind` "train" (`step`, `loss`, `loss_scales`, `lr`, `images_per_second`) or "validation"
    (`epoch`, `loss_scales`, `loss_fused`, and `top1_scales`, `top1_fused`, percent; `map_...` where images
    may have several labels); other kinds are ignored. Missing and null numbers leave a gap.
    """
    train = [row for row in metrics_rows if row["kind"] == "train"]
    validation = [row for row in metrics_rows if row["kind"] == "validation"]
    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplot_mosaic("AABBCC;DDDEEE")
    loss, validation_loss, accuracy, rate, speed = (panels[name] for name in "ABCDE")
    steps = [row["step"] for row in train]
    for index, values in enumerate(_by_scale(train, "loss_scales")):
        _curve(loss, steps, values, scale_color(index), f"scale {index + 1}")
    _curve(loss, steps, _column(train, "loss"), FUSED_COLOR, "total loss")
    finish_axes(loss, "Training loss", "step", "cross-entropy")
    _validation_panel(validation_loss, validation, "loss", "Validation loss", "cross-entropy")
    if any("map_fused" in row for row in validation):
        _validation_panel(accuracy, validation, "map", "Validation accuracy", "mAP, %")
    else:
        _validation_panel(accuracy, validation, "top1", "Validation accuracy", "top-1, %")
    _curve(rate, steps, _column(train, "lr"), FUSED_COLOR, None)
    finish_axes(rate, "Learning rate", "step", "")
    _curve(speed, steps, _column(train, "images_per_second"), FUSED_COLOR, None)
    finish_axes(speed, "Speed", "step", "images per second")
    speed.set_ylim(bottom=0)
    save_figure(figure, path)


def plot_exit(early: Mapping[str, Any], path: Path) -> None:
    """Plot accuracy against the mean number of scales, and the chosen confidence, from an `exit_report`."""
    curve, label = early["curve"], f"confidence {early['confidence']:.2f}"
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve["mean_scales_used"], curve["top1"], color=FUSED_COLOR, lw=1.4, label="every confidence")
    axes.plot([early["mean_scales_used"]], [early["top1"]], "o", color=RIGHT_COLOR, label=label)
    axes.axhline(curve["top1"][-1], color="#888888", linewidth=1, linestyle="--", label="all scales")
    finish_axes(axes, "Early exit: accuracy against cost", "mean scales per image", "top-1, %")
    save_figure(figure, path)


def plot_faithfulness(curves: Mapping[str, Any], path: Path) -> None:
    """Plot deletion and insertion by saliency and in random order, from `curves_report`."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, ("deletion", "insertion"), strict=True):
        for name, color, label in (
            (kind, scale_color(0), "by saliency"),
            (f"random_{kind}", MUTED_COLOR, "random order"),
        ):
            text = f"{label}, area {curves[name]['area']:.1f} %"
            axes.plot(
                curves["shares"], curves[name]["probability"], color=color, marker="o", ms=3, label=text
            )
        finish_axes(axes, kind.capitalize(), f"% of the locations {kind[:-3]}ed", "")
    panels[0].set_ylabel("probability of the predicted class, %")
    panels[0].set_ylim(bottom=0)
    save_figure(figure, path)


def plot_reliability(calibration: Mapping[str, Any], path: Path) -> None:
    """Plot accuracy against confidence, bin by bin, before and after, from a `calibration_report`.

    The height of a bar is the accuracy of the images in its bin, its darkness how many they are; on the
    diagonal, confidences are what they say.
    """
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    for axes, when in zip(figure.subplots(1, 2, sharey=True), ("before", "after"), strict=True):
        bins, errors = calibration["reliability"][when], calibration["fused"][when]
        most = max(entry["num_images"] for entry in bins)
        width = 100 / NUM_BINS
        for entry in bins:
            index = min(int(np.ceil(entry["confidence"] / width - 1e-9)), NUM_BINS) - 1
            alpha = 0.15 + 0.75 * entry["num_images"] / most
            axes.bar((index + 0.5) * width, entry["accuracy"], width, color=scale_color(0), alpha=alpha)
        axes.plot(
            [entry["confidence"] for entry in bins],
            [entry["accuracy"] for entry in bins],
            "o",
            color=FUSED_COLOR,
            markersize=3.5,
        )
        axes.plot([0, 100], [0, 100], color="#888888", linewidth=1, linestyle="--")
        axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
        title = f"{when.capitalize()}: off by {errors['ece']:.1f} points"
        finish_axes(axes, title, "confidence, %", "accuracy, %" if when == "before" else "")
    save_figure(figure, path)


def _validation_panel(axes: Axes, rows: Sequence[Row], key: str, title: str, unit: str) -> None:
    """Plot what each scale and all fused reached after each epoch: `key` is `loss` or `top1`."""
    epochs = [row["epoch"] for row in rows]
    for index, values in enumerate(_by_scale(rows, f"{key}_scales")):
        _curve(axes, epochs, values, scale_color(index), f"scale {index + 1}")
    if rows and len(rows[0].get(f"{key}_scales") or ()) != 1:  # fusing one scale changes nothing
        _curve(axes, epochs, _column(rows, f"{key}_fused"), FUSED_COLOR, "fused")
    if not rows:
        axes.text(0.5, 0.5, "no validation was run", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
    finish_axes(axes, title, "epoch", unit)


def _curve(axes: Axes, x: Sequence[float], values: np.ndarray, color: str, label: str | None) -> None:
    """Plot one line, with markers if it has few points, so that even one is visible."""
    marker = "o" if len(x) <= 30 else None
    axes.plot(x, values, color=color, label=label, marker=marker, markersize=3.5, linewidth=1.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _column(rows: Sequence[Row], key: str) -> np.ndarray:
    """(N,) values; NaN where they are missing or null."""
    return np.array([row.get(key) for row in rows], dtype=float)


def _by_scale(rows: Sequence[Row], key: str) -> np.ndarray:
    """(S, N) values per scale; NaN where they are missing or null. Empty if there are none."""
    num_scales = max((len(row.get(key) or ()) for row in rows), default=0)
    return np.array([row.get(key) or [None] * num_scales for row in rows], dtype=float).T


def plot_confusion(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Plot the confusion matrix of the most confused classes; the colours of a row add up to 100 %.

    At most `MAX_CONFUSED` are shown; a last column sums up all others, if there are some. `probabilities`
    and `labels` are those of `metrics`, `class_names` in label order.
    """
    shown = most_confused_classes(probabilities, labels, MAX_CONFUSED)
    has_others = len(shown) < len(class_names)
    counts = confusion_counts(probabilities, labels, shown)[:, : len(shown) + has_others]
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 0.45 * len(shown)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 55 else "#222222"
            axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=8)
    if has_others:
        axes.axvline(len(shown) - 0.5, color="#888888", linewidth=1)
    names = [label_text(class_names[label]) for label in shown]
    columns = [*names, *["all others"] * has_others]
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(title="The most confused classes (images)", xlabel="predicted class", ylabel="true class")
    figure.colorbar(drawn, ax=axes, label="% of the class's images", shrink=0.7)
    save_figure(figure, path)


def most_confused_classes(probabilities: np.ndarray, labels: np.ndarray, num_classes: int) -> list[int]:
    """Choose at most `num_classes` labels, ascending: both of each pair, from the most confused pair on.

    If fewer are confused, the classes with images come next, in label order.

    >>> probabilities = np.eye(4)[[0, 1, 2, 3, 3]]
    >>> most_confused_classes(probabilities, np.array([0, 1, 2, 3, 2]), 3)
    [0, 2, 3]
    """
    pairs = confused_pairs(probabilities, labels, len(labels))
    candidates = [label for pair in pairs for label in (pair.true, pair.predicted)]
    order = dict.fromkeys([*candidates, *np.unique(labels).tolist()])
    return sorted(list(order)[:num_classes])


def confusion_counts(probabilities: np.ndarray, labels: np.ndarray, shown: Sequence[int]) -> np.ndarray:
    """(n, n + 1) images of each of n shown classes that were classified as each of them, and as any other.

    >>> confusion_counts(np.eye(3)[[0, 1, 2, 0]], np.array([0, 0, 0, 1]), [0, 1])
    array([[1, 1, 1],
           [1, 0, 0]])
    """
    index = np.full(probabilities.shape[1], len(shown))
    index[list(shown)] = np.arange(len(shown))
    counts = np.zeros((len(shown) + 1, len(shown) + 1), dtype=np.int64)
    np.add.at(counts, (index[labels], index[probabilities.argmax(axis=1)]), 1)
    return counts[:-1]
