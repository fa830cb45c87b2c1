"""Evaluate a model on one split: predictions, report, figures."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from ramstrans.calibration.answers import Answers
from ramstrans.calibration.fitted import Calibration, load_calibration, with_rank_confidence
from ramstrans.calibration.priors import weights_of
from ramstrans.console import Progress, no_progress
from ramstrans.data.boxes import check_boxes
from ramstrans.data.config import DataConfig
from ramstrans.data.image_priors import NO_CELLS, ImagePriors, read_image_priors
from ramstrans.data.loading.loader import ImageLoader, build_loader
from ramstrans.data.records import ImageSet, Record
from ramstrans.distributed import process_index
from ramstrans.errors import UnreadableImageError, UsageError
from ramstrans.evaluation.config import EvaluationConfig
from ramstrans.evaluation.early_exit import (
    choose_exit,
    exit_report,
    exit_warnings,
    exits_at,
    time_exit,
)
from ramstrans.evaluation.fusion import fit_weights
from ramstrans.evaluation.images import data_config, dataset_of, known_images, read_images
from ramstrans.evaluation.judge import draw_indices, judge_regions, judged_report, part_of
from ramstrans.evaluation.knn import knn_report
from ramstrans.evaluation.predict import Predictions, choose_precision, predict_split
from ramstrans.evaluation.ranks import priors_report
from ramstrans.evaluation.report.build import Report, build_report
from ramstrans.evaluation.report.markdown import WHOLE
from ramstrans.evaluation.report.photographs import Source
from ramstrans.evaluation.report.write import Found, report_labels, write_evaluation
from ramstrans.evaluation.searched import NO_NEIGHBORS, Neighbors, neighbors_among
from ramstrans.evaluation.trust import answers_of, trust_report
from ramstrans.evaluation.unknown_images import unknown_images
from ramstrans.files import make_folder
from ramstrans.models.methods.early_exit import check_given, check_num_scales, check_one_label
from ramstrans.models.methods.method import Method
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.saved.model import load_model, save_metadata, weights_digest

logger = logging.getLogger(__name__)


class Further(NamedTuple):
    """What is evaluated beside the accuracy of a model; nothing by default.

    Attributes:
        confidence: Threshold of early exit, which is timed too.
        judged: A loader of a part of the images, and their indices: regions are judged on those.
        weights: (S,) of the scales in the fused prediction; None: all alike.
        calibration: What it does is reported.
        unknown: Images of no class, by what they are: how well the calibration tells them.
        priors: What these change in calibrated answers.
        neighbors: Training images that vote, and that are shown beside mistakes.
    """

    confidence: float | None = None
    judged: tuple[ImageLoader, np.ndarray] | None = None
    weights: np.ndarray | None = None
    calibration: Calibration | None = None
    unknown: Mapping[str, ImageLoader] = MappingProxyType({})
    priors: ImagePriors | None = None
    neighbors: Neighbors = NO_NEIGHBORS


NOTHING = Further()


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
    check_asked(config, model, images)
    split = config.split or "test"
    dataset, left_out = dataset_of(metadata, images, split, data, progress)
    if model.needs_boxes:
        check_boxes(dataset.records)
    known: tuple[Record, ...] = ()
    if config.unknown is not None:
        known = known_images(metadata, images, dataset.records, data, config.data, progress)
    unknown, more = unknown_images(metadata, held_out_classes, split, config.unknown, known, data, progress)
    make_folder(config.folder)
    loading: dict[str, Any] = {
        "batch_size": config.batch_size,
        "shuffle": False,
        "with_high_res": model.needs_high_res,
        "timeout": data.read_timeout,
    }
    further = Further(
        confidence=config.early_exit if config.early_exit != "auto" else None,
        calibration=calibration,
        unknown={
            images.name: build_loader(dataclasses.replace(dataset, records=images.records), **loading)
            for images in unknown
        },
        priors=priors,
        neighbors=neighbors_among(config, model, metadata, images, loading, progress),
    )
    extra: dict[str, Any] = {
        "config": metadata.training.get("run", {}),
        "command": command,
        "precision": precision,
        "warnings": [*notes, *left_out, *more],
    }
    extra |= ({"split": WHOLE} if is_whole else {}) | scales_used(config, model)
    options: dict[str, Any] = {"precision": precision, "progress": progress}
    if config.early_exit == "auto" or config.fusion == "fitted":
        held_out, _ = dataset_of(metadata, images, "val", data, progress)
        on_val = predict_split(model, build_loader(held_out, **loading), **options)
        further, fitted, warnings = fit_on_validation(config, metadata, further, on_val)
        extra |= fitted
        extra["warnings"] += warnings
    if config.regions is not None:
        indices = draw_indices(len(dataset), config.regions)
        further = further._replace(judged=(build_loader(part_of(dataset, indices), **loading), indices))
    loader = build_loader(dataset, **loading)
    try:
        return evaluate(model, metadata, loader, config.folder, further, extra=extra, **options)
    except UnreadableImageError as error:
        error.add_note("repair or remove it, or --data.on_unreadable skip leaves such files out")
        raise


def scales_used(config: EvaluationConfig, model: Method) -> dict[str, int]:
    """What the report says of the scales, if the first ones alone are evaluated."""
    if config.num_scales is None:
        return {}
    return {"num_scales": model.num_scales, "num_scales_trained": model.num_trained}


def fit_on_validation(
    config: EvaluationConfig, metadata: ModelMetadata, further: Further, on_val: Predictions
) -> tuple[Further, dict[str, Any], list[str]]:
    """Choose the confidence of early exit and save it in the run, or fit the weights of the scales.

    Returns:
        `further` with what was found, keys of the report about it, and warnings.
    """
    if config.fusion == "fitted":
        weights = fit_weights(on_val.probabilities, on_val.labels)
        about = {"fusion_weights": weights, "fusion_num_images": len(on_val.labels)}
        return further._replace(weights=weights), about, []
    choice = choose_exit(on_val, calibration=further.calibration)
    save_metadata(config.run, dataclasses.replace(metadata, early_exit=choice))
    about = {"early_exit_choice": dataclasses.asdict(choice)}
    return further._replace(confidence=choice.confidence), about, exit_warnings(choice)


def check_several_labels(config: EvaluationConfig) -> None:
    """Raise UsageError for what is asked about the one class of an image."""
    check_one_label(config.early_exit is not None)
    if config.regions is not None or config.fusion == "fitted":
        raise UsageError(
            "--regions and --fusion fitted ask whether an image's one class is right, and images of this "
            "model may have several labels (multi_label); leave them out"
        )
    if config.knn is not None:
        raise UsageError("--knn lets images vote for one class, and this model is multi_label; leave it out")
    for name in ("unknown", "priors"):
        if getattr(config, name) is not None:
            raise UsageError(
                f"--{name} asks the calibration, which is for classes of which an image has one, and this "
                "model is multi_label; leave it out"
            )


def calibration_of(config: EvaluationConfig, model: Method) -> Calibration | None:
    """The calibration of the run, which is that of the mean of its scales; None if it has none.

    Raises:
        ConfigError: It is damaged, or of other weights.
        UsageError: It is of fewer scales, or unknown images or priors are given and there is none.
    """
    calibration = None
    if config.fusion == "mean":
        calibration = load_calibration(config.run, weights_digest(model.state_dict()), model.num_scales)
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

        _, cells = read_cells(data.root, data.path_column, data.image_folder)
    return read_image_priors(config.priors, metadata.class_names, cells)


def evaluate(
    model: Method,
    metadata: ModelMetadata,
    loader: ImageLoader,
    folder: Path,
    further: Further = NOTHING,
    *,
    precision: str,
    extra: Mapping[str, Any],
    progress: Progress = no_progress,
) -> Report:
    """Predict every image of a loader over a split; write the report, its figures and predictions.csv.

    Several processes share the predictions; the first one writes. If the folder has a metrics.jsonl, the
    curves are plotted. Accuracies are those of the model without calibration, which changes no order of
    classes, and without priors.

    Args:
        model: Is put in eval mode.
        metadata: Of the model.
        loader: Of the images.
        folder: Where all of it goes.
        further: What else is evaluated.
        precision: Of autocast, `fp32`, `bf16` or `fp16`.
        extra: Further keys of the report, see `build_report`.
        progress: Called with (done, total, what).
    """
    options: dict[str, Any] = {"precision": precision, "progress": progress}
    calibration, neighbors = further.calibration, further.neighbors
    keep = (calibration is not None and bool(calibration.needs)) or neighbors != NO_NEIGHBORS
    predictions = predict_split(model, loader, keep=keep, **options)._replace(weights=further.weights)
    source = Source(model, metadata, loader.dataset, precision, neighbors.photographs)
    parts: dict[str, Any] = {"method": metadata.model.method, "regions_used": model.num_looks - 1}
    if model.multi_label:
        return report_labels(source, predictions, folder, extra=parts | dict(extra))
    given, judged, exits = None, None, None
    if further.judged is not None:
        judged = judge_regions(model, *further.judged, **options)
        records = [predictions.records[index] for index in judged.indices]
        parts["regions_judged"] = judged_report(judged, records)
    if further.confidence is not None:
        exits = exits_at(predictions, further.confidence, calibration)
        parts["early_exit"] = exit_report(
            predictions,
            further.confidence,
            time_exit(model, loader, confidence=further.confidence, calibration=calibration, **options),
            calibration,
        )
    if neighbors.voters is not None:
        training = predict_split(model, neighbors.voters, keep=True, what="training images", **options)
        parts["knn"] = knn_report(neighbors.k, training, predictions, len(metadata.class_names))
    if calibration is not None:
        others = {
            name: predict_split(model, images, keep=keep, what="unknown images", **options)
            for name, images in further.unknown.items()
        }
        given, about = trusted_answers(calibration, predictions, others, further.priors, metadata.class_names)
        parts |= about
    report = build_report(predictions, metadata.class_names, extra=parts | dict(extra))
    if process_index() == 0:
        taxonomy = None if calibration is None else calibration.taxonomy
        found = Found(source, predictions, given, taxonomy, exits, judged)
        write_evaluation(folder, found, report)
    return report


def trusted_answers(
    calibration: Calibration,
    predictions: Predictions,
    unknown: Mapping[str, Predictions],
    priors: ImagePriors | None,
    class_names: Sequence[str],
) -> tuple[Answers, dict[str, Any]]:
    """The calibrated answers, with priors if there are some, and what the report says about them."""
    matched = None if priors is None else [priors.of(record.path) for record in predictions.records]
    weights = None if matched is None else weights_of(matched, len(class_names))
    given = answers_of(calibration, predictions, weights)
    about = trust_report(calibration, predictions, given, unknown)
    if matched is not None and priors is not None:
        about["priors"] = priors_report(given, matched, predictions.labels, priors.name)
    return given, about


def check_asked(config: EvaluationConfig, model: Method, images: ImageSet) -> None:
    """Raise if something cannot be evaluated with this model and these images, before it is computed."""
    if config.early_exit is not None:
        check_early_exit(model, images, config.early_exit)
    if config.fusion == "fitted":
        check_fusion(model, images)


def check_early_exit(model: Method, images: ImageSet, early_exit: float | Literal["auto"]) -> None:
    """Raise if early exit cannot be evaluated, before anything is computed."""
    check_num_scales(model.num_scales)
    if early_exit != "auto":
        check_given(early_exit)
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
