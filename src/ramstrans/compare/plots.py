"""The plots of a comparison, for each data set: accuracies and differences, cost, curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ramstrans.evaluation.report.style import (
    FUSED_COLOR,
    MUTED_COLOR,
    RIGHT_COLOR,
    SCALE_COLORS,
    WRONG_COLOR,
    finish_axes,
    label_text,
    save_figure,
    scale_color,
)

MARKERS = "osD^vPX*"
LINES = ("-", "--", ":", "-.")

LEGEND_ENTRY = 0.21
"""Inches that an entry of a legend is high."""

Entry = Mapping[str, Any]


def plot_accuracies(
    entries: Sequence[Entry], differences: Sequence[Entry], baseline: str, path: Path
) -> None:
    """Plot the accuracy of each contender and each of its seeds, and its difference from the baseline.

    Args:
        entries: The results on one data set.
        differences: Their `to_baseline` rows.
        baseline: Its name.
        path: The PNG file.
    """
    figure = Figure(figsize=(10.5, 1.5 + 0.42 * len(entries)), layout="constrained")
    accuracy, difference = figure.subplots(1, 2, sharey=True)
    by_name = {row["first"]: row for row in differences}
    for height, entry in enumerate(entries):
        fused = entry["fused"]
        seeds = fused["values"] if len(fused["values"]) > 1 else []
        accuracy.plot(seeds, [height] * len(seeds), "|", color=MUTED_COLOR, ms=9, mew=1.2, alpha=0.8)
        _interval(accuracy, height, fused["mean"], fused["interval"], FUSED_COLOR)
        row = by_name.get(entry["contender"])
        if row is not None:
            colors = (WRONG_COLOR, RIGHT_COLOR) if row["is_significant"] else (MUTED_COLOR, MUTED_COLOR)
            _interval(difference, height, row["difference"], row["interval"], colors[row["difference"] > 0])
        elif entry["contender"] == baseline:
            difference.plot([0], [height], "o", color=FUSED_COLOR, ms=5, mfc="white")
    accuracy.set_yticks(range(len(entries)), [label_text(entry["contender"]) for entry in entries])
    accuracy.set_ylim(len(entries) - 0.5, -0.5)
    difference.axvline(0, color=FUSED_COLOR, linewidth=1)
    finish_axes(accuracy, "Accuracy; bars: 95 % interval, ticks: seeds", "fused top-1, %", "")
    title = f"Difference from {label_text(baseline)}; grey: not significant"
    finish_axes(difference, title, "percentage points", "")
    save_figure(figure, path)


def plot_costs(entries: Sequence[Entry], path: Path) -> None:
    """Plot accuracy against counted work and, where it was measured, time; a line joins the Pareto front."""
    costs = {"gmacs": "GMACs per image (counted)"}
    if any(entry["milliseconds"] is not None for entry in entries):
        costs["milliseconds"] = "ms per image (measured)"
    figure = _figure_with_legend(len(costs), len(entries))
    panels = np.atleast_1d(figure.subplots(1, len(costs), sharey=True))
    for axes, (key, name) in zip(panels, costs.items(), strict=True):
        known = [(index, entry) for index, entry in enumerate(entries) if entry[key] is not None]
        front = sorted(
            (entry[key], entry["fused"]["mean"]) for _, entry in known if entry[f"is_on_front_of_{key}"]
        )
        axes.plot(*zip(*front, strict=True), color="#999999", linewidth=1.2, drawstyle="steps-post", zorder=1)
        for index, entry in known:
            low, high = entry["fused"]["interval"]
            color, mean = scale_color(index), entry["fused"]["mean"]
            axes.plot([entry[key]] * 2, [low, high], color=color, linewidth=1.4, alpha=0.6)
            marker, fill = marker_of(index), color if entry[f"is_on_front_of_{key}"] else "white"
            axes.plot(
                [entry[key]],
                [mean],
                marker,
                color=color,
                mfc=fill,
                ms=7,
                label=label_text(entry["contender"]),
            )
        axes.set_xlim(left=0)
        finish_axes(axes, "Accuracy against cost; filled: Pareto front", name, "fused top-1, %")
    _add_legend(figure)
    save_figure(figure, path)


def plot_curves(entries: Sequence[Entry], path: Path) -> None:
    """Plot training loss and validation accuracy: mean over seeds, in the band of all of them."""
    kinds = {
        "training_loss": ("Training loss, mean over scales", "step", "cross-entropy"),
        "validation_top1": ("Validation accuracy, fused", "epoch", "top-1, %"),
    }
    shown = {
        key: texts for key, texts in kinds.items() if any(entry["curves"][key]["mean"] for entry in entries)
    }
    if not shown:  # linear probes without validation
        return
    figure = _figure_with_legend(len(shown), sum(entry["of"] is None for entry in entries))
    panels = np.atleast_1d(figure.subplots(1, len(shown)))
    for axes, (key, (title, position, unit)) in zip(panels, shown.items(), strict=True):
        for index, entry in enumerate(entries):
            found, color = entry["curves"][key], scale_color(index)
            if entry["of"] is not None:  # nothing was trained
                continue
            style = {"color": color, "linewidth": 1.5, "label": label_text(entry["contender"])}
            style["linestyle"] = LINES[index // len(SCALE_COLORS) % len(LINES)]
            marker = marker_of(index) if len(found["mean"]) <= 30 else ""
            axes.plot(found[position], found["mean"], marker=marker, markersize=4, alpha=0.8, **style)
            axes.fill_between(
                found[position], found["low"], found["high"], color=color, alpha=0.15, linewidth=0
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        finish_axes(axes, title, position, unit)
    _add_legend(figure)
    save_figure(figure, path)


def marker_of(index: int) -> str:
    """A marker that goes with `scale_color`: when colours begin again, markers are others.

    >>> marker_of(0), marker_of(5), marker_of(6)
    ('o', 'o', 's')
    """
    return MARKERS[index // len(SCALE_COLORS) % len(MARKERS)]


def _figure_with_legend(num_panels: int, num_entries: int) -> Figure:
    """A figure of panels beside each other, high enough for a legend of so many entries."""
    height = max(4.2, 0.4 + LEGEND_ENTRY * num_entries)
    return Figure(figsize=(5.6 * num_panels + 2.2, height), layout="constrained")


def _add_legend(figure: Figure) -> None:
    """Replace the legends of all panels, which are alike, by one beside them."""
    entries = figure.axes[0].get_legend_handles_labels()
    for axes in figure.axes:
        if (legend := axes.get_legend()) is not None:
            legend.remove()
    figure.legend(*entries, loc="outside right upper", frameon=False, fontsize=9)


def _interval(axes: Axes, height: int, value: float, interval: Sequence[float], color: str) -> None:
    axes.plot(interval, [height, height], color=color, linewidth=1.8, solid_capstyle="round")
    axes.plot([value], [height], "o", color=color, ms=6)
