"""The confusion matrix of the most confused classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ramstrans.evaluation.metrics import confused_pairs
from ramstrans.evaluation.report.style import label_text, save_figure


def plot_confusion(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    path: Path,
    num_classes: int = 12,
) -> None:
    """Plot the confusion matrix of the most confused classes; the colours of a row add up to 100 %.

    At most `num_classes` are shown; a last column sums up all others. `probabilities` and `labels` are those
    of `metrics`, `class_names` in label order.
    """
    shown = most_confused_classes(probabilities, labels, num_classes)
    counts = confusion_counts(probabilities, labels, shown)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 0.45 * len(shown)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 55 else "#222222"
            axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=8)
    axes.axvline(len(shown) - 0.5, color="#888888", linewidth=1)
    names = [label_text(class_names[label]) for label in shown]
    axes.set_xticks(range(len(names) + 1), [*names, "all others"], rotation=90, fontsize=8)
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
