"""The report of an evaluation: a plain dict, written as JSON, Markdown and HTML, printed as a table."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ramstrans import __version__
from ramstrans.evaluation import metrics
from ramstrans.evaluation.localization import region_metrics
from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.report import markdown, trust
from ramstrans.evaluation.report.judged import judged_line
from ramstrans.files import write_file
from ramstrans.plain import counted, to_plain, utf8_text

Report = dict[str, Any]
"""A report in JSON's own types: dicts, lists, strings, finite numbers, None."""

NUM_CONFUSED = 20

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
"""Packages whose versions are recorded."""


def build_report(predictions: Predictions, class_names: Sequence[str], *, extra: Mapping[str, Any]) -> Report:
    """Compute all metrics of the predictions for one split; all fractions in percent.

    Args:
        predictions: Predictions of S scales for N images of C classes.
        class_names: The C names, in label order.
        extra: Further keys of the report; they replace its own, except `warnings`, which are prepended. The
            page shows `config` (the run's, nested), `command` (the command line of the run) and every
            number or string.

    Returns:
        `scales`, `fused` (with `ece` and `confidence`, the mean of the highest probabilities), `regions` (of
        scale 1, which scale 2 sees), `regions_by_scale`, `zoom_gain` (images that fusing all scales
        corrected, and spoiled, against scale 1 alone, the `points` of top-1 and their 95 % `interval`),
        `num_images`, `split`, `classes` (see `class_rows`), `confused`, `versions`, `warnings`, and `extra`.
    """
    fused, labels = predictions.fused, predictions.labels
    accuracies = [
        metrics.classification_metrics(probabilities, labels)._asdict()
        for probabilities in (*predictions.probabilities, fused)
    ]
    regions = [
        region_metrics(boxes, has_region, predictions.records, predictions.image_sizes)._asdict()
        for boxes, has_region in zip(predictions.boxes, predictions.has_region, strict=True)
    ]
    first = predictions.probabilities[0].argmax(axis=1) == labels
    right = fused.argmax(axis=1) == labels
    report: Report = {
        "split": ", ".join(sorted({record.split for record in predictions.records})),
        "num_images": len(labels),
        "scales": accuracies[:-1],
        "fused": accuracies[-1]
        | {
            "ece": metrics.expected_calibration_error(fused, labels),
            "confidence": 100 * float(fused.max(axis=1).mean()),
        },
        "zoom_gain": zoom_gain(int((right & ~first).sum()), int((first & ~right).sum()), len(labels)),
        "regions": regions[0],
        "regions_by_scale": regions,
        "classes": class_rows(fused, labels, class_names),
        "confused": _confused(fused, labels, class_names),
        "versions": versions(),
    }
    warnings = [*extra.get("warnings", ()), *_warnings(report)]
    plain: Report = to_plain(report | dict(extra) | {"warnings": warnings}, "report")
    return plain


def versions() -> dict[str, str]:
    """Python's version, and those of this package and of others that results may depend on."""
    return {"python": platform.python_version(), "ramstrans": __version__} | {
        package: metadata.version(package) for package in PACKAGES
    }


def write_report(folder: Path, report: Report, page: str, html: str) -> None:
    """Write the page as `report.html` and `report.md`, then `report.json`, each whole or not at all.

    A run whose folder has a `report.json` has finished.
    """
    content = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(folder / "report.html", utf8_text(html).encode())
    write_file(folder / "report.md", utf8_text(page).encode())
    write_file(folder / "report.json", content.encode(errors="backslashreplace"))


def print_report(report: Report, console: Console) -> None:
    """Print the accuracies, the regions and the warnings."""
    title = f"{markdown.images_of(report)}, percent"
    if "multi_label" in report:
        print_table(console, title, *markdown.label_headline(report))
    else:
        print_table(console, title, *markdown.headline(report))
    for scale, regions in markdown.zooms(report):
        text = ", ".join(
            f"{name} {markdown.format_value(regions[key], unit)}"
            for key, name, unit, _ in markdown.REGION_ROWS
            if regions[key] is not None
        )
        console.print(f"Regions of scale {scale}: {text}", highlight=False, soft_wrap=True)
    if "regions_judged" in report:
        console.print(judged_line(report["regions_judged"]), highlight=False, soft_wrap=True)
    if (line := markdown.early_exit_line(report)) is not None:
        console.print(line, highlight=False, soft_wrap=True)
    for line in trust.lines(report):
        console.print(escape(line), highlight=False, soft_wrap=True)
    print_warnings(report, console)


def print_table(
    console: Console, title: str, header: Sequence[str], rows: Iterable[Sequence[str]], first_right: int = 1
) -> None:
    """Print a table; its columns from `first_right` on hold numbers."""
    table = Table(*header, title=title, title_justify="left")
    for column in table.columns[first_right:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_warnings(report: Report, console: Console) -> None:
    """Print what a reader of the numbers must know, a line each."""
    for warning in report["warnings"]:
        console.print(f"[yellow]Warning:[/yellow] {escape(warning)}", highlight=False, soft_wrap=True)


def zoom_gain(corrected: int, spoiled: int, num_images: int) -> dict[str, Any]:
    """What fusing all scales gained against scale 1 alone."""
    return {
        "corrected": corrected,
        "spoiled": spoiled,
        "points": 100 * (corrected - spoiled) / num_images,
        "interval": metrics.paired_interval(corrected, spoiled, num_images),
    }


def class_rows(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """What was measured of each class, in label order.

    Returns:
        `name`; `num_images`; `accuracy`, percent of them that were recognised (recall), with its Wilson
        `interval`; `num_predicted`, images that were taken for this class, and `precision`, percent of them
        that are; `confused_with`, the class that its images are most often taken for, and `num_confused`,
        how many. None where there are no images.
    """
    num_classes, predicted = len(class_names), probabilities.argmax(axis=1)
    num_images, num_predicted = (np.bincount(of, minlength=num_classes) for of in (labels, predicted))
    num_right = np.bincount(labels[predicted == labels], minlength=num_classes)
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "num_images": images,
            "accuracy": 100 * right / images if images else None,
            "interval": metrics.wilson_interval(int(right), int(images)) if images else None,
            "num_predicted": taken,
            "precision": 100 * right / taken if taken else None,
            "confused_with": None,
            "num_confused": 0,
        }
        for name, images, taken, right in zip(
            class_names, num_images.tolist(), num_predicted.tolist(), num_right.tolist(), strict=True
        )
    ]
    pairs = metrics.confused_pairs(probabilities, labels, len(labels))
    for pair in reversed(pairs):  # of each class the most frequent one stays
        rows[pair.true] |= {"confused_with": class_names[pair.predicted], "num_confused": pair.num_images}
    return rows


def _confused(fused: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent mistakes by name, with the number of images of the true class."""
    return [
        {
            "true": class_names[pair.true],
            "predicted": class_names[pair.predicted],
            "count": pair.num_images,
            "num_images": int((labels == pair.true).sum()),
        }
        for pair in metrics.confused_pairs(fused, labels, NUM_CONFUSED)
    ]


def _warnings(report: Report) -> list[str]:
    """What a reader of the numbers must know, one line each."""
    lines = region_warnings(report)
    num_empty = sum(not entry["num_images"] for entry in report["classes"])
    if num_empty:
        lines.append(
            f"{num_empty} of {len(report['classes'])} classes {'has' if num_empty == 1 else 'have'} "
            "no images in this split, and no share in the mean class accuracy"
        )
    first, fused = report["scales"][0]["top1"], report["fused"]["top1"]
    if fused < first:
        lines.append(
            f"zooming in did not help: scale 1 alone reaches {first:.1f} %, all scales {fused:.1f} %"
        )
    return lines


def region_warnings(report: Report) -> list[str]:
    """How often nothing stood out, a line for each scale that had such images."""
    return [
        f"nothing stood out at scale {scale} in {regions['fallbacks']} of "
        f"{counted(report['num_images'], 'image')} "
        f"({regions['fallback_share']:.1f} %); scale {scale + 1} saw the whole input again"
        for scale, regions in markdown.zooms(report)
        if regions["fallbacks"]
    ]
