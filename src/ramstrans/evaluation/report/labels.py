"""The report on images that may have several labels: its numbers, its page, predictions.csv, its gallery."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ramstrans.evaluation import multi_label as metrics
from ramstrans.evaluation.localization import region_metrics
from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.ranking import top_classes
from ramstrans.evaluation.report.blocks import Block, Code, Heading, Picture, Table, Text
from ramstrans.evaluation.report.build import Report, region_warnings
from ramstrans.evaluation.report.gallery import GALLERY_SIZE
from ramstrans.evaluation.report.html import html_of
from ramstrans.evaluation.report.markdown import (
    NUM_WORST,
    format_value,
    images_of,
    label_headline,
    notes,
    regions_section,
    run_section,
)
from ramstrans.evaluation.report.predictions import TOP_K
from ramstrans.evaluation.report.tables import cell, table
from ramstrans.files import write_file
from ramstrans.plain import counted, csv_text, join_labels, to_plain, utf8_text
from ramstrans.saved.metadata import ModelMetadata

THRESHOLDS_GIVEN = "validation"
"""Where thresholds come from, in a report; else it is the number that all labels have."""


def labels_report(predictions: Predictions, metadata: ModelMetadata, *, extra: Mapping[str, Any]) -> Report:
    """Compute all metrics of images that may have several labels, at the model's thresholds; in percent.

    Args:
        predictions: Of S scales for N images of C labels.
        metadata: Of the model.
        extra: As for `build_report`.

    Returns:
        `multi_label` (where thresholds come from), `scales` (`map`), `fused` (all of
        `multi_label.label_metrics`), `classes` (see `multi_label.by_label`), `regions`, `regions_by_scale`,
        `num_images`, `split`, `warnings`, and `extra`.
    """
    truth, fused = predictions.labels > 0, predictions.fused
    thresholds = np.array(metadata.thresholds)
    draws = metrics.resamples(*truth.shape)
    regions = [
        region_metrics(boxes, has_region, predictions.records, predictions.image_sizes)._asdict()
        for boxes, has_region in zip(predictions.boxes, predictions.has_region, strict=True)
    ]
    classes = metrics.by_label(fused, truth, thresholds)
    report: Report = {
        "split": ", ".join(sorted({record.split for record in predictions.records})),
        "num_images": len(truth),
        "multi_label": THRESHOLDS_GIVEN if metadata.label_thresholds else str(thresholds[0]),
        "labels_per_image": float(truth.sum(axis=1).mean()),
        "without_labels": int((~truth.any(axis=1)).sum()),
        "scales": [metrics.map_metrics(scale, truth, draws) for scale in predictions.probabilities],
        "fused": metrics.label_metrics(fused, truth, thresholds, draws),
        "regions": regions[0],
        "regions_by_scale": regions,
        "classes": [
            {"name": name} | dict(entry) for name, entry in zip(metadata.class_names, classes, strict=True)
        ],
    }
    report |= dict(extra)
    plain: Report = to_plain(
        report | {"warnings": [*extra.get("warnings", ()), *_warnings(report)]}, "report"
    )
    return plain


def _warnings(report: Report) -> list[str]:
    """What a reader of the numbers must know, one line each."""
    lines = region_warnings(report)
    if report["multi_label"] != THRESHOLDS_GIVEN:
        lines.append(
            f"a label counts as present from a probability of {report['multi_label']}: there were no "
            "validation images to choose thresholds on"
        )
    num_empty = sum(not entry["num_images"] for entry in report["classes"])
    if num_empty:
        count = f"{num_empty} of {counted(len(report['classes']), 'label')}"
        lines.append(f"{count}: on no image of this split, and without a share in the means over labels")
    first, fused = report["scales"][0]["map"], report["fused"]["map"]
    if fused < first:
        lines.append(f"zooming in did not help: mAP {first:.1f} % with scale 1 alone, {fused:.1f} % with all")
    return lines


def labels_page(report: Report, pictures: Mapping[str, str]) -> str:
    """Render the page of a report from `labels_report`, with figures: caption -> path relative to it."""
    words = _meaning(report)
    sections = [
        f"# Report: {images_of(report)}",
        "## Accuracy",
        table(*label_headline(report)),
        words,
        *notes(report),
        *regions_section(report),
        *(["## Figures"] if pictures else []),
        *(f"![{cell(name)}]({quote(path)})\n\n*{cell(name)}*" for name, path in pictures.items()),
        "Every prediction, with its probabilities and regions: [predictions.csv](predictions.csv).",
        *_labels(report),
        *run_section(report),
    ]
    return "\n\n".join(sections) + "\n"


def labels_html(report: Report, pictures: Mapping[str, Path]) -> str:
    """Render the same as HTML, with all labels; the figures are files."""
    present = [entry for entry in report["classes"] if entry["num_images"]]
    blocks: list[Block] = [
        Heading(1, f"Report: {images_of(report)}"),
        Table(*label_headline(report)),
        Text(_meaning(report)),
        *(Text(f"{warning[:1].upper()}{warning[1:]}.", is_note=True) for warning in report["warnings"]),
        Heading(2, "Labels"),
        Table(_LABEL_HEADER, _label_rows(present), is_sortable=True),
        Heading(2, "Figures"),
        *(Picture(path, caption) for caption, path in pictures.items()),
    ]
    if "command" in report:
        blocks += [Heading(2, "How this was made"), Code(report["command"])]
    return html_of(blocks)


def _meaning(report: Report) -> str:
    """What the numbers mean."""
    how = "was chosen for the highest F1 on the validation images"
    if report["multi_label"] != THRESHOLDS_GIVEN:
        how = f"is {report['multi_label']} for all labels"
    return (
        "All numbers in percent. mAP is the mean over the labels of average precision, which needs no "
        f"threshold. For the others a label counts as present from its threshold on, which {how}. Exact "
        "match: images with all of their labels and no other. Intervals (95 %) are from a bootstrap over the "
        f"images. An image has {report['labels_per_image']:.2f} labels on average; "
        f"{report['without_labels']} have none."
    )


def _labels(report: Report) -> list[str]:
    present = [entry for entry in report["classes"] if entry["num_images"]]
    worst = sorted(present, key=lambda entry: entry["average_precision"])[:NUM_WORST]
    return [
        "## Hardest labels",
        f"The least precise of {counted(len(present), 'label')} with images; all are in report.json.",
        table(_LABEL_HEADER, _label_rows(worst)),
    ]


_LABEL_HEADER = ("label", "average precision", "precision", "recall", "F1", "threshold", "images")


def _label_rows(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row of numbers for each label."""
    keys = ("average_precision", "precision", "recall", "f1")
    return [
        [
            entry["name"],
            *(format_value(entry[key], " %") for key in keys),
            f"{entry['threshold']:.2f}",
            str(entry["num_images"]),
        ]
        for entry in entries
    ]


def write_label_predictions(
    predictions: Predictions, class_names: Sequence[str], thresholds: np.ndarray, path: Path
) -> None:
    """Write a line per image, in the order of the data set.

    The columns are `path`; `true` and `predicted`, labels joined by `;`; `correct`, whether they are the
    same; `missed` and `added`, how many are not; `label_1` ... and `probability_1` ..., the most probable
    ones; and for each scale but the last its region `scale_1_x0` ... `scale_1_y1`, half-open in pixels of the
    upright image, and `scale_1_has_region`.
    """
    names = [utf8_text(name) for name in class_names]
    num_regions = len(predictions.probabilities) - 1
    ranks = range(1, min(TOP_K, len(names)) + 1)
    columns = ["path", "true", "predicted", "correct", "missed", "added"]
    columns += [f"{kind}_{rank}" for kind in ("label", "probability") for rank in ranks]
    for scale in range(1, num_regions + 1):
        columns += [f"scale_{scale}_{what}" for what in ("x0", "y0", "x1", "y1", "has_region")]
    write_file(path, csv_text([columns, *_rows(predictions, names, thresholds)]).encode())


def _rows(predictions: Predictions, names: Sequence[str], thresholds: np.ndarray) -> Iterator[list[Any]]:
    fused = predictions.fused
    for index, record in enumerate(predictions.records):
        truth, predicted = predictions.labels[index] > 0, fused[index] >= thresholds
        best = top_classes(fused[index], TOP_K)
        row: list[Any] = [utf8_text(str(record.path)), _joined(names, truth), _joined(names, predicted)]
        row += [bool((truth == predicted).all()), int((truth & ~predicted).sum())]
        row += [int((predicted & ~truth).sum()), *(names[label] for label in best)]
        row += [round(float(fused[index, label]), 6) for label in best]
        for scale in range(len(predictions.probabilities) - 1):
            row += [round(side, 2) for side in predictions.boxes[scale, index].tolist()]
            row.append(bool(predictions.has_region[scale, index]))
        yield row


def _joined(names: Sequence[str], is_there: np.ndarray) -> str:
    return join_labels(names[label] for label in np.flatnonzero(is_there).tolist())


def choose_label_groups(predictions: Predictions, thresholds: np.ndarray) -> dict[str, list[int]]:
    """Choose images by heading, a few under each, none twice; headings without images are left out.

    Those with the most labels missed or added; then further mistakes, and correct predictions, drawn by a
    fixed seed.
    """
    num_wrong = ((predictions.fused >= thresholds) != (predictions.labels > 0)).sum(axis=1)
    order = np.random.default_rng(0).permutation(len(num_wrong))
    worst = np.argsort(-num_wrong, kind="stable")[:GALLERY_SIZE]
    worst = worst[num_wrong[worst] > 0]
    others = order[(num_wrong[order] > 0) & ~np.isin(order, worst)]
    groups = {
        "the images with the most mistakes": worst,
        "other mistakes, drawn at random": others[:GALLERY_SIZE],
        "correct predictions, drawn at random": order[num_wrong[order] == 0][:GALLERY_SIZE],
    }
    return {heading: chosen.tolist() for heading, chosen in groups.items() if len(chosen)}
