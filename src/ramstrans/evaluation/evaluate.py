"""Evaluate a model on one split: predictions, report, figures."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from ramstrans.calibration.fitted import Calibration, load_calibration, with_rank_confidence
from ramstrans.calibration.priors import weights_of
from ramstrans.console import Progress, no_progress
from ramstrans.data.boxes import check_boxes
from ramstrans.data.config import DataConfig
from ramstrans.data.image_priors import NO_CELLS, ImagePriors, read_image_priors
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import ImageLoader, build_loader
from ramstrans.data.records import ImageSet
from ramstrans.distributed import process_index
from ramstrans.errors import UnreadableImageError, UsageError
from ramstrans.evaluation.config import EvaluationConfig
from ramstrans.evaluation.early_exit import choose_exit, exit_report, exit_warnings, time_exit
from ramstrans.evaluation.fusion import fit_weights
from ramstrans.evaluation.images import data_config, dataset_of, read_images
from ramstrans.evaluation.judge import draw_indices, judge_regions, judged_report, part_of, picture_groups
from ramstrans.evaluation.predict import Predictions, choose_precision, predict_split
from ramstrans.evaluation.ranks import priors_report
from ramstrans.evaluation.report.build import Report, build_report, write_report
from ramstrans.evaluation.report.gallery import choose_groups, gallery_views, plot_gallery
from ramstrans.evaluation.report.judged import judged_sections
from ramstrans.evaluation.report.labels import (
    choose_label_groups,
    labels_html,
    labels_page,
    labels_report,
    write_label_predictions,
)
from ramstrans.evaluation.report.markdown import WHOLE, markdown_page
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
from ramstrans.evaluation.trust import answers_of, trust_report
from ramstrans.evaluation.unknown_images import unknown_images
from ramstrans.files import make_folder
from ramstrans.models.methods.early_exit import check_confidence, check_num_scales, check_one_label
from ramstrans.models.methods.method import Method
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.saved.model import load_model, save_metadata, weights_digest

logger = logging.getLogger(__name__)

REGION_FIGURES = {
    "Locations deleted, and inserted into a blurred image, by their saliency": "region_curves.png",
    "The best, median and worst regions": "regions.png",
}
"""Of `--regions`: caption -> file name."""


def evaluate_run(config: EvaluationConfig, *, command: str = "", progress: Progress = no_progress) -> Report:
    """Evaluate a saved model; writes report.html, report.md, report.json, figures, predictions.csv.

    Raises:
        RamsTransError: The folder, the data or the options cannot be used; the message says why.
    """
    model, metadata = load_model(config.run, config.device, config.num_scales)
    if metadata.model.multi_label:
        check_several_labels(config)
    calibration = calibration_of(config, model)
    precision = choose_precision(config.precision, metadata, model.device)
    data = data_config(metadata.run_options("data"), config.data)
    priors = priors_of(config, metadata, data)
    images, held_out_classes, notes, is_whole = read_images(metadata, data, config, progress)
    if config.early_exit is not None:
        check_early_exit(model, images, config.early_exit)
    if config.fusion == "fitted":
        check_fusion(model, images)
    dataset, left_out = dataset_of(metadata, images, config.split or "test", data, progress)
    if model.needs_boxes:
        check_boxes(dataset.records)
    split = config.split or "test"
    unknown, more = unknown_images(metadata, held_out_classes, split, config.unknown, dataset, data, progress)
    left_out += more
    make_folder(config.folder)
    options: dict[str, Any] = {"precision": precision, "progress": progress}
    loading: dict[str, Any] = {
        "batch_size": config.batch_size,
        "shuffle": False,
        "with_high_res": model.needs_high_res,
        "timeout": data.read_timeout,
    }
    extra = {
        "config": metadata.training.get("run", {}),
        "command": command,
        "precision": precision,
        "warnings": [*notes, *left_out],
    }
    if is_whole:
        extra["split"] = WHOLE
    if config.num_scales is not None:
        extra |= {"num_scales": model.num_scales, "num_scales_trained": model.num_trained}
    confidence = config.early_exit
    if confidence == "auto":
        held_out, _ = dataset_of(metadata, images, "val", data, progress)
        on_val = predict_split(model, build_loader(held_out, **loading), **options)
        choice = choose_exit(on_val, calibration=calibration)
        save_metadata(config.run, dataclasses.replace(metadata, early_exit=choice))
        confidence, extra["early_exit_choice"] = choice.confidence, dataclasses.asdict(choice)
        extra["warnings"] += exit_warnings(choice)
    if config.fusion == "fitted":
        held_out, _ = dataset_of(metadata, images, "val", data, progress)
        seen = predict_split(model, build_loader(held_out, **loading), **options)
        options["weights"] = fit_weights(seen.probabilities, seen.labels)
        extra |= {"fusion_weights": options["weights"], "fusion_num_images": len(seen.labels)}
    loader = build_loader(dataset, **loading)
    loaders = {
        images.name: build_loader(dataclasses.replace(dataset, records=images.records), **loading)
        for images in unknown
    }
    options |= {
        "confidence": confidence,
        "extra": extra,
        "calibration": calibration,
        "unknown": loaders,
        "priors": priors,
    }
    if config.regions is not None:
        indices = draw_indices(len(dataset), config.regions)
        options["judged"] = build_loader(part_of(dataset, indices), **loading), indices
    try:
        return evaluate(model, metadata, loader, config.folder, **options)
    except UnreadableImageError as error:
        error.add_note("repair or remove it, or --data.on_unreadable skip leaves such files out")
        raise


def check_several_labels(config: EvaluationConfig) -> None:
    """Raise UsageError for what is asked about the one class of an image."""
    check_one_label(config.early_exit is not None)
    if config.regions is not None or config.fusion == "fitted":
        raise UsageError(
            "--regions and --fusion fitted ask whether an image's one class is right, and images of this "
            "model may have several labels (multi_label); leave them out"
        )


def calibration_of(config: EvaluationConfig, model: Method) -> Calibration | None:
    """The calibration of the run, which is that of the mean of its scales; None if it has none.

    Raises:
        ConfigError: It is damaged, or of other weights.
        UsageError: Unknown images are given, and nothing was fitted to tell them.
    """
    calibration = None
    if config.fusion == "mean":
        calibration = load_calibration(config.run, weights_digest(model.state_dict()))
    needs = {"unknown": "a rule that tells the unknown", "priors": "calibrated probabilities"}
    for name, what in needs.items():
        if getattr(config, name) is not None and calibration is None:
            raise UsageError(
                f"--{name} needs {what}, and {config.run} is not calibrated; run "
                f"`ramstrans calibrate {config.run}` first"
            )
    return with_rank_confidence(calibration, config.rank_confidence)


def priors_of(config: EvaluationConfig, metadata: ModelMetadata, data: DataConfig) -> ImagePriors | None:
    """The priors that are asked for, with the columns of the data set's table if it is one; None: none are.

    Raises:
        DataError: They cannot be used.
        UsageError: A condition is not known of the images.
    """
    if config.priors is None:
        return None
    cells = NO_CELLS
    if data.name == "table" and data.root is not None:
        from ramstrans.data.datasets.table import read_cells  # it imports pandas

        cells = read_cells(data.root, data.path_column, data.image_folder)
    return read_image_priors(config.priors, metadata.class_names, cells)


def evaluate(
    model: Method,
    metadata: ModelMetadata,
    loader: ImageLoader,
    folder: Path,
    *,
    precision: str,
    confidence: float | None = None,
    judged: tuple[ImageLoader, np.ndarray] | None = None,
    weights: np.ndarray | None = None,
    extra: Mapping[str, Any],
    calibration: Calibration | None = None,
    unknown: Mapping[str, ImageLoader] = MappingProxyType({}),
    priors: ImagePriors | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Predict every image of a loader over a split; write the report, its figures and predictions.csv.

    Several processes share the predictions; the first one writes. If the folder has a metrics.jsonl, the
    curves are plotted. `extra` holds further keys of the report, see `build_report`.

    With a `confidence`, early exit at this threshold is evaluated and timed too. With `judged`, a loader of
    a part of the images and their indices, regions are judged on those. With a `calibration`, what it does
    is reported, and on the images of `unknown`, by what they are, how well they are told; with `priors`,
    what these change. `precision` is `fp32`, `bf16` or `fp16`; `weights` (S,) are those of the scales in the
    fused prediction. Accuracies are those of the model without calibration, which changes no order of
    classes, and without priors.
    """
    options: dict[str, Any] = {"precision": precision, "progress": progress}
    keep = calibration is not None and bool(calibration.needs)
    predictions = predict_split(model, loader, keep=keep, **options)._replace(weights=weights)
    if model.multi_label:
        extra = {"method": metadata.model.method, "regions_used": model.num_looks - 1} | dict(extra)
        return report_labels(
            model, metadata, loader.dataset, predictions, folder, extra=extra, precision=precision
        )
    figures, given = {}, None
    found = None if judged is None else judge_regions(model, *judged, **options)
    if calibration is not None:
        matched = None if priors is None else [priors.of(record.path) for record in predictions.records]
        shares = None if matched is None else weights_of(matched, len(metadata.class_names))
        given = answers_of(calibration, predictions, shares)
        others = {
            name: predict_split(model, images, keep=keep, what="unknown images", **options)
            for name, images in unknown.items()
        }
        extra = trust_report(calibration, predictions, given, others) | dict(extra)
        if matched is not None and priors is not None:
            extra |= {"priors": priors_report(given, matched, predictions.labels, priors.name)}
        figures["Calibration: before and after"] = "reliability.png"
    if confidence is not None:
        seconds = time_exit(model, loader, confidence=confidence, calibration=calibration, **options)
        early = exit_report(predictions, confidence, seconds, calibration)
        extra = {"early_exit": early, **extra}
        plot_exit(early, folder / "early_exit.png")
        figures["What early exit costs and saves"] = "early_exit.png"
    extra = {"method": metadata.model.method, "regions_used": model.num_looks - 1} | dict(extra)
    if found is not None:
        records = [predictions.records[index] for index in found.indices]
        extra |= {"regions_judged": judged_report(found, records)}
    report = build_report(predictions, metadata.class_names, extra=extra)
    if process_index() == 0:
        if calibration is not None:
            plot_reliability(report["calibration"], folder / "reliability.png")
        ranks = None if calibration is None else calibration.taxonomy
        write_predictions(
            predictions, metadata.class_names, folder / "predictions.csv", confidence, given, ranks
        )
        figures |= draw_figures(model, metadata, loader.dataset, predictions, folder, precision)
        further = []
        if found is not None:
            further = judged_sections(report["regions_judged"])
            plot_faithfulness(report["regions_judged"]["curves"], folder / "region_curves.png")
            groups = picture_groups(found, predictions)
            draw_gallery(
                model, metadata, loader.dataset, predictions, groups, folder / "regions.png", precision
            )
            figures |= REGION_FIGURES
        page = report_page(
            report,
            predictions,
            predictions.fused if given is None else given.without_priors,
            metadata.class_names,
            {Path(name).stem: folder / name for name in figures.values()},
            Source(model, metadata, loader.dataset, precision),
        )
        write_report(folder, report, markdown_page(report, figures, further), page)
    return report


def draw_figures(
    model: Method,
    metadata: ModelMetadata,
    dataset: ImageDataset,
    predictions: Predictions,
    folder: Path,
    precision: str,
) -> dict[str, str]:
    """Draw gallery, confusion matrix and, if there is a metrics.jsonl, curves: caption -> file name."""
    figures = draw_curves(folder)
    groups = choose_groups(predictions)
    draw_gallery(model, metadata, dataset, predictions, groups, folder / "gallery.png", precision)
    figures["The most confident mistakes; wrong and correct predictions drawn at random"] = "gallery.png"
    plot_confusion(predictions.fused, predictions.labels, metadata.class_names, folder / "confusion.png")
    figures["The most confused classes"] = "confusion.png"
    return figures


def draw_gallery(
    model: Method,
    metadata: ModelMetadata,
    dataset: ImageDataset,
    predictions: Predictions,
    groups: Mapping[str, Sequence[int]],
    path: Path,
    precision: str,
) -> None:
    """Draw what the model saw in some images of a data set, by headings."""
    indices = [index for group in groups.values() for index in group]
    views = gallery_views(model, metadata, dataset, indices, precision)
    plot_gallery(views, predictions, groups, metadata.class_names, path)


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
    model: Method,
    metadata: ModelMetadata,
    dataset: ImageDataset,
    predictions: Predictions,
    folder: Path,
    *,
    extra: Mapping[str, Any],
    precision: str,
) -> Report:
    """Report on images that may have several labels; write report, figures and predictions.csv."""
    report = labels_report(predictions, metadata, extra=extra)
    if process_index() == 0:
        thresholds = np.array(metadata.thresholds)
        write_label_predictions(predictions, metadata.class_names, thresholds, folder / "predictions.csv")
        figures = draw_curves(folder)
        groups = choose_label_groups(predictions, thresholds)
        indices = [index for group in groups.values() for index in group]
        views = gallery_views(model, metadata, dataset, indices, precision)
        path = folder / "gallery.png"
        plot_gallery(views, predictions, groups, metadata.class_names, path, thresholds)
        figures["The images with the most mistakes; others drawn at random"] = "gallery.png"
        paths = {caption: folder / name for caption, name in figures.items()}
        write_report(folder, report, labels_page(report, figures), labels_html(report, paths))
    return report


def check_early_exit(model: Method, images: ImageSet, early_exit: float | Literal["auto"]) -> None:
    """Raise if early exit cannot be evaluated, before anything is computed."""
    check_num_scales(model.num_scales)
    if early_exit != "auto":
        check_confidence(early_exit)
    elif not images.of_split("val"):
        raise UsageError(
            "--early_exit auto chooses on validation images, and none were held out; train with "
            "--data.val_fraction above 0, give --split test for a data set of its own splits, or give a "
            "confidence, e.g. --early_exit 0.9"
        )


def check_fusion(model: Method, images: ImageSet) -> None:
    """Raise if weights of the scales cannot be fitted, before anything is computed."""
    if model.num_scales == 1:
        raise UsageError("this model has one scale, so there is nothing to fuse; leave --fusion out")
    if not images.of_split("val"):
        raise UsageError(
            "--fusion fitted needs validation images, and none were held out; train with --data.val_fraction "
            "above 0, or leave it out"
        )
