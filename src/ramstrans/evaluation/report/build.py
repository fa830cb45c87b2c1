"""The report of one evaluation: built as a plain dict, written as JSON and as a page, printed as a table."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ramstrans.evaluation.localization import region_metrics
from ramstrans.evaluation.metrics import (
    classification_metrics,
    confused_pairs,
    expected_calibration_error,
    per_class_accuracy,
)
from ramstrans.evaluation.predictions import Predictions
from ramstrans.evaluation.report.markdown import (
    HEADLINE,
    REGION_ROWS,
    early_exit_line,
    headline_rows,
    markdown_page,
    passes,
    quantity,
)
from ramstrans.files import write_file

Report = dict[str, Any]
"""A report as JSON has it: dicts, lists, strings, finite numbers, None."""

NUM_CONFUSED = 20


def build_report(
    predictions: Predictions,
    class_names: Sequence[str],
    image_sizes: np.ndarray | None,
    *,
    extra: Mapping[str, Any],
) -> Report:
    """Everything that is known about the predictions of one split; all shares in percent.

    Args:
        predictions: Of N images of C classes by S scales.
        class_names: The C names, in label order.
        image_sizes: (N, 2) `(width, height)` of the original images in pixels, or None where unknown.
        extra: Further keys of the report; one that is here already is replaced, but for `warnings`, which
            are added. The page shows `config` (the run's, nested), `command` (the line that made the run)
            and every plain number or text.

    Returns:
        `scales`, `fused` (with `ece`), `regions` (of scale 1, at which scale 2 looks), `regions_by_scale`,
        `second_look`, `num_images`, `split`, `classes`, `confused`, `warnings`, and `extra`.
    """
    fused, labels = predictions.fused, predictions.labels
    scales = [classification_metrics(answers, labels)._asdict() for answers in predictions.probabilities]
    regions = [
        region_metrics(boxes, has_region, predictions.records, image_sizes)._asdict()
        for boxes, has_region in zip(predictions.boxes, predictions.has_region, strict=True)
    ]
    report: Report = {
        "split": ", ".join(sorted({record.split for record in predictions.records})),
        "num_images": len(labels),
        "scales": scales,
        "fused": classification_metrics(fused, labels)._asdict()
        | {"ece": expected_calibration_error(fused, labels)},
        "second_look": _second_look(predictions),
        "regions": regions[0],
        "regions_by_scale": regions,
        "classes": _classes(fused, labels, class_names),
        "confused": _confused(fused, labels, class_names),
    }
    warnings = [*extra.get("warnings", ()), *_warnings(report)]
    safe: Report = _json_safe(report | dict(extra) | {"warnings": warnings})
    return safe


def write_report(folder: Path, report: Report, pictures: Mapping[str, str]) -> None:
    """Write `report.json` and `report.md`, each whole or not at all.

    Args:
        folder: Where to; made if missing.
        report: From `build_report`.
        pictures: Caption of each picture -> its path relative to `folder`, in order.
    """
    content = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(folder / "report.json", content.encode())
    write_file(folder / "report.md", markdown_page(report, pictures).encode())


def print_report(report: Report, console: Console) -> None:
    """Print the accuracies, the regions and the warnings."""
    title = f"{report['num_images']} images of the {report['split']} split, percent"
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(HEADLINE):
        table.add_column(name, justify="right" if index else "left")
    for row in headline_rows(report):
        table.add_row(*row)
    console.print(table)
    for scale, regions in passes(report):
        known = [(name, quantity(regions[key], unit)) for key, name, unit, _ in REGION_ROWS]
        line = ", ".join(f"{name} {value}" for name, value in known if value != "-")
        console.print(f"Regions of scale {scale}: {line}", highlight=False, soft_wrap=True)
    if (saved := early_exit_line(report)) is not None:
        console.print(saved, highlight=False, soft_wrap=True)
    for warning in report["warnings"]:
        console.print(f"[yellow]Warning:[/yellow] {escape(warning)}", highlight=False, soft_wrap=True)


def _second_look(predictions: Predictions) -> dict[str, int]:
    """Number of images that fusing all scales corrected, and spoiled, against scale 1 alone."""
    first = predictions.probabilities[0].argmax(axis=1) == predictions.labels
    fused = predictions.fused.argmax(axis=1) == predictions.labels
    return {"corrected": int((fused & ~first).sum()), "spoiled": int((first & ~fused).sum())}


def _classes(fused: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Name, number of images and accuracy (NaN without images) of each class, in label order."""
    counts = np.bincount(labels, minlength=len(class_names))
    columns = zip(class_names, counts, per_class_accuracy(fused, labels), strict=True)
    return [{"name": name, "num_images": count, "accuracy": accuracy} for name, count, accuracy in columns]


def _confused(fused: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The commonest mistakes by name, with the number of images of the true class beside them."""
    return [
        {
            "true": class_names[pair.true],
            "predicted": class_names[pair.predicted],
            "count": pair.num_images,
            "num_images": int((labels == pair.true).sum()),
        }
        for pair in confused_pairs(fused, labels, NUM_CONFUSED)
    ]


def _warnings(report: Report) -> list[str]:
    """What a reader of the figures must know, one line each."""
    lines = []
    for scale, regions in passes(report):
        if regions["fallbacks"]:
            lines.append(
                f"nothing stood out at scale {scale} in {regions['fallbacks']} of "
                f"{report['num_images']} images ({regions['fallback_share']:.1f} %); "
                f"scale {scale + 1} looked at the whole input again"
            )
    num_empty = sum(not entry["num_images"] for entry in report["classes"])
    if num_empty:
        lines.append(
            f"{num_empty} of {len(report['classes'])} classes have no images in this split; "
            "they are left out of the mean class accuracy"
        )
    first, fused = report["scales"][0]["top1"], report["fused"]["top1"]
    if fused < first:
        lines.append(f"looking closer did not pay: scale 1 alone has {first:.1f} %, all scales {fused:.1f} %")
    return lines


def _json_safe(value: Any) -> Any:  # noqa: ANN401 - any tree of plain values
    """The same tree in JSON's own types; NaN and infinity become None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif isinstance(value, Path):
        value = str(value)
    if isinstance(value, Mapping):
        return {str(key): _json_safe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    assert value is None or isinstance(value, str | int | float), f"no JSON for {type(value).__name__}"
    return value
