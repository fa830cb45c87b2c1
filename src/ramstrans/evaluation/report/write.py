"""Write an evaluation: report.html, report.md, report.json, figures and predictions.csv."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ramstrans.calibration.answers import Answers
from ramstrans.calibration.taxonomy import Taxonomy
from ramstrans.distributed import process_index
from ramstrans.evaluation.early_exit import Exits
from ramstrans.evaluation.judge import JudgedRegions, picture_groups
from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.report.build import Report, write_report
from ramstrans.evaluation.report.gallery import choose_groups, gallery_views, plot_gallery
from ramstrans.evaluation.report.judged import judged_sections
from ramstrans.evaluation.report.labels import (
    choose_label_groups,
    labels_html,
    labels_page,
    labels_report,
    write_label_predictions,
)
from ramstrans.evaluation.report.markdown import markdown_page
from ramstrans.evaluation.report.page import report_page
from ramstrans.evaluation.report.photographs import Source
from ramstrans.evaluation.report.plots import (
    plot_confusion,
    plot_curves,
    plot_exit,
    plot_faithfulness,
    plot_reliability,
)
from ramstrans.evaluation.report.predictions import write_predictions

REGION_FIGURES = {
    "Locations deleted, and inserted into a blurred image, by their saliency": "region_curves.png",
    "The best, median and worst regions": "regions.png",
}
"""Of `--regions`: caption -> file name."""


class Found(NamedTuple):
    """What an evaluation found beside its report.

    Attributes:
        source: Where pictures come from.
        predictions: Of all images.
        given: Calibrated answers; None without a calibration.
        taxonomy: Of the classes; None without one.
        exits: The answers with early exit; None: it is not used.
        judged: How regions were judged; None: they were not.
    """

    source: Source
    predictions: Predictions
    given: Answers | None
    taxonomy: Taxonomy | None
    exits: Exits | None
    judged: JudgedRegions | None


def write_evaluation(folder: Path, found: Found, report: Report) -> None:
    """Write all of an evaluation of images that have one class each."""
    source, predictions, given, taxonomy, exits, judged = found
    figures, further = {}, []
    for name in ("reliability.png", "early_exit.png", *REGION_FIGURES.values()):
        (folder / name).unlink(missing_ok=True)  # of an evaluation with other options
    if given is not None:
        plot_reliability(report["calibration"], folder / "reliability.png")
        figures["Calibration: before and after"] = "reliability.png"
    if exits is not None:
        plot_exit(report["early_exit"], folder / "early_exit.png")
        figures["What early exit costs and saves"] = "early_exit.png"
    class_names = source.metadata.class_names
    write_predictions(predictions, class_names, folder / "predictions.csv", exits, given, taxonomy)
    figures |= draw_figures(source, predictions, folder)
    if judged is not None:
        further = judged_sections(report["regions_judged"])
        plot_faithfulness(report["regions_judged"]["curves"], folder / "region_curves.png")
        draw_gallery(source, predictions, picture_groups(judged, predictions), folder / "regions.png")
        figures |= REGION_FIGURES
    page = report_page(
        report,
        predictions,
        predictions.fused if given is None else given.without_priors,
        class_names,
        {Path(name).stem: folder / name for name in figures.values()},
        source,
    )
    write_report(folder, report, markdown_page(report, figures, further), page)


def draw_figures(source: Source, predictions: Predictions, folder: Path) -> dict[str, str]:
    """Draw gallery, confusion matrix and, if there is a metrics.jsonl, curves: caption -> file name."""
    figures = draw_curves(folder)
    groups = choose_groups(predictions)
    draw_gallery(source, predictions, groups, folder / "gallery.png")
    figures["The most confident mistakes; wrong and correct predictions drawn at random"] = "gallery.png"
    class_names = source.metadata.class_names
    plot_confusion(predictions.fused, predictions.labels, class_names, folder / "confusion.png")
    figures["The most confused classes"] = "confusion.png"
    return figures


def draw_gallery(
    source: Source, predictions: Predictions, groups: Mapping[str, Sequence[int]], path: Path
) -> None:
    """Draw what the model saw in some images of a data set, by headings."""
    indices = [index for group in groups.values() for index in group]
    views = gallery_views(source.model, source.metadata, source.dataset, indices, source.precision)
    plot_gallery(
        views,
        predictions,
        groups,
        source.metadata.class_names,
        path,
        num_looks=source.model.num_looks,
    )


def draw_curves(folder: Path) -> dict[str, str]:
    """Draw the curves of a run whose folder has a metrics.jsonl: caption -> file name."""
    figures = {}
    if (folder / "metrics.jsonl").exists():
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        if any(row["kind"] == "train" for row in rows):  # a linear probe takes no steps
            plot_curves(rows, folder / "curves.png")
            figures["Curves of the training run"] = "curves.png"
    return figures


def report_labels(
    source: Source, predictions: Predictions, folder: Path, *, extra: Mapping[str, Any]
) -> Report:
    """Report on images that may have several labels; write report, figures and predictions.csv."""
    metadata = source.metadata
    report = labels_report(predictions, metadata, extra=extra)
    if process_index() == 0:
        thresholds = np.array(metadata.thresholds)
        write_label_predictions(predictions, metadata.class_names, thresholds, folder / "predictions.csv")
        figures = draw_curves(folder)
        groups = choose_label_groups(predictions, thresholds)
        indices = [index for group in groups.values() for index in group]
        views = gallery_views(source.model, metadata, source.dataset, indices, source.precision)
        path = folder / "gallery.png"
        plot_gallery(
            views,
            predictions,
            groups,
            metadata.class_names,
            path,
            thresholds,
            num_looks=source.model.num_looks,
        )
        figures["The images with the most mistakes; others drawn at random"] = "gallery.png"
        paths = {caption: folder / name for caption, name in figures.items()}
        write_report(folder, report, labels_page(report, figures), labels_html(report, paths))
    return report
