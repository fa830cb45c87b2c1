"""Evaluate a model on one split: predictions, report, figures."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from ramstrans.calibration.fitted import Calibration, load_calibration
from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.files import find_unreadable
from ramstrans.data.boxes import check_boxes
from ramstrans.data.build import (
    DEFAULT_TOYBIRDS_ROOT,
    build_cache,
    draw_splits,
    fingerprint,
    read_image_set,
)
from ramstrans.data.config import DataConfig
from ramstrans.data.detect import detect_format
from ramstrans.data.held_out import without_classes
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import ImageLoader, build_loader
from ramstrans.data.records import SPLITS, ImageSet, Record, Split
from ramstrans.distributed import process_index
from ramstrans.errors import DataError, UnreadableImageError, UsageError
from ramstrans.evaluation.config import EvaluationConfig, EvaluationData
from ramstrans.evaluation.early_exit import choose_exit, exit_report, exit_warnings, time_exit
from ramstrans.evaluation.fusion import fit_weights
from ramstrans.evaluation.judge import draw_indices, judge_regions, judged_report, part_of, picture_groups
from ramstrans.evaluation.predict import Predictions, choose_precision, predict_split
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
from ramstrans.plain import counted
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.saved.model import load_model, save_metadata, weights_digest

logger = logging.getLogger(__name__)

REGION_FIGURES = {
    "Locations deleted, and inserted into a blurred image, by their saliency": "region_curves.png",
    "The best, median and worst regions": "regions.png",
}
"""Of `--regions`: caption -> file name."""

_OWN_FORMATS = ("folder", "table", "hugging_face", "shards")
"""Formats of people's own data; each of the others is a published set with an agreed test split."""


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
    run = metadata.training.get("run", {})
    extra = {"config": run, "command": command, "precision": precision, "warnings": [*notes, *left_out]}
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
    options |= {"confidence": confidence, "extra": extra, "calibration": calibration, "unknown": loaders}
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
    if config.unknown is not None and calibration is None:
        raise UsageError(
            f"--unknown needs a rule that tells the unknown, and {config.run} is not calibrated; run "
            f"`ramstrans calibrate {config.run}` first"
        )
    return calibration


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
    progress: Progress = no_progress,
) -> Report:
    """Predict every image of a loader over a split; write the report, its figures and predictions.csv.

    Several processes share the predictions; the first one writes. If the folder has a metrics.jsonl, the
    curves are plotted. `extra` holds further keys of the report, see `build_report`.

    With a `confidence`, early exit at this threshold is evaluated and timed too. With `judged`, a loader of
    a part of the images and their indices, regions are judged on those. With a `calibration`, what it does
    is reported, and on the images of `unknown`, by what they are, how well they are told. `precision` is
    `fp32`, `bf16` or `fp16`; `weights` (S,) are those of the scales in the fused prediction. Accuracies are
    those of the model without calibration, which changes no order of classes.
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
        given = answers_of(calibration, predictions)
        others = {
            name: predict_split(model, images, keep=keep, what="unknown images", **options)
            for name, images in unknown.items()
        }
        extra = trust_report(calibration, predictions, given, others) | dict(extra)
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
        write_predictions(predictions, metadata.class_names, folder / "predictions.csv", confidence, given)
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
            predictions.fused if given is None else given.probabilities,
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


def dataset_of(
    metadata: ModelMetadata, images: ImageSet, split: Split, data: DataConfig, progress: Progress
) -> tuple[ImageDataset, list[str]]:
    """Build the data set of a split, labelled as the model's classes, and one line per file left out.

    Files that cannot be decoded are left out if the config says `skip`; otherwise the first one stops the
    evaluation.

    Raises:
        DataError: As `with_labels_of`, or no file can be decoded.
    """
    records, errors = with_labels_of(metadata, images, split), []
    if data.on_unreadable == "skip":
        errors = find_unreadable(records, data.max_pixels, progress=progress, timeout=data.read_timeout)
        unreadable = {error.path for error in errors}
        records = tuple(record for record in records if record.path not in unreadable)
    if not records:
        raise DataError(f"none of the {len(errors)} files can be read, e.g. {errors[0]}; repair them")
    dataset = ImageDataset(
        records,
        metadata.preprocessing,
        metadata.model.input_size,
        cache=build_cache(data, is_read_once=True),
        max_pixels=data.max_pixels,
        num_classes=len(metadata.class_names) if metadata.model.multi_label else None,
    )
    return dataset, [f"left out: {error}" for error in errors]


def data_config(trained_on: Mapping[str, object], given: EvaluationData) -> DataConfig:
    """Data options of the training run, with those given; the format of another root is detected."""
    known = {field.name for field in dataclasses.fields(DataConfig)}
    known -= {"resize", "crop", "fit", "zoom_pixels"}  # the model's own preprocessing counts
    known -= {"hold_out_classes"}  # by the model's class names, in `read_drawn`
    values = {key: value for key, value in trained_on.items() if key in known}
    if given.root is not None and given.root.exists() and not is_same_root(given.root, trained_on):
        values["name"] = detect_format(given.root)
        values.pop("image_folder", None)  # of the other table
    if given.label_column is not None:
        values.pop("label_columns", None)  # the names stand in one column now
    values |= {key: value for key, value in dataclasses.asdict(given).items() if value is not None}
    if "name" not in values:
        raise UsageError("this saved model does not say what it was trained on; give --data.root")
    if not Path(str(values.get("cache_dir"))).is_dir():
        values.pop("cache_dir", None)  # of another machine: the default does as well
    return DataConfig(**values | {"on_unlabelled": "skip"})  # type: ignore[arg-type]


def is_same_root(root: Path, trained_on: Mapping[str, object]) -> bool:
    """Whether a root is the one of the training run."""
    return Path(root).resolve() == Path(str(trained_on.get("root") or DEFAULT_TOYBIRDS_ROOT)).resolve()


class DrawnImages(NamedTuple):
    """A data set with its splits.

    Attributes:
        images: Of the model's classes.
        held_out: Of the classes that training left out; None if it left none out.
    """

    images: ImageSet
    held_out: ImageSet | None


class EvaluatedImages(NamedTuple):
    """The images to evaluate.

    Attributes:
        images: As `DrawnImages`.
        held_out: As `DrawnImages`.
        notes: What a reader of the report must know about the choice.
        is_whole: Whether the test split is all of the data set.
    """

    images: ImageSet
    held_out: ImageSet | None
    notes: list[str]
    is_whole: bool


def read_drawn(
    metadata: ModelMetadata, data: DataConfig, progress: Progress = no_progress, *, draws: bool = True
) -> DrawnImages:
    """Read a data set, and draw the splits that it lacks, unless it is to stay as it is.

    The classes that training left out are told by the model's class names.

    Raises:
        RamsTransError: The data set cannot be read.
    """
    images = read_image_set(data, progress)
    own = set(metadata.class_names)
    others = [name for name in images.class_names if name not in own]
    parts = [images]
    if metadata.run_options("data").get("hold_out_classes") and others:
        parts = [without_classes(images, names) for names in (others, own)]
    known, *held_out = [draw_splits(part, data) for part in parts] if draws else parts
    return DrawnImages(known, held_out[0] if held_out else None)


def read_images(
    metadata: ModelMetadata, data: DataConfig, config: EvaluationConfig, progress: Progress = no_progress
) -> EvaluatedImages:
    """Read the images to evaluate.

    The data set of the training run, also if it was moved, gets the splits of the training, and a published
    format has its own. Another data set, if no split is asked for, becomes one test split as a whole.

    Raises:
        RamsTransError: The data set cannot be read.
    """
    trained_on = metadata.run_options("data")
    if config.data.root is None or is_same_root(config.data.root, trained_on):
        return EvaluatedImages(*read_drawn(metadata, data, progress), [], False)
    images, held_out = read_drawn(metadata, data, progress, draws=False)
    has_splits = any(record.split != "train" for record in images.records)
    if has_splits:
        data = dataclasses.replace(data, folds=None, fold=None)
    drawn, others = draw_splits(images, data), held_out and draw_splits(held_out, data)
    is_own = metadata.training.get("images") == fingerprint(drawn, data)
    if config.split is not None or is_own or data.name not in _OWN_FORMATS:
        return EvaluatedImages(drawn, others, [], False)
    notes = []
    if has_splits and images.of_split("train"):
        counts = ", ".join(f"{split} {len(images.of_split(split))}" for split in SPLITS)
        notes = [
            f"all {len(images.records)} images of {data.root} are evaluated, of all its splits ({counts}): "
            "if the model was trained on some of them, its accuracy is overstated; --split test takes its "
            "test images only"
        ]
        logger.warning("%s", notes[0])
    whole = whole_test(images)
    return EvaluatedImages(whole, held_out and whole_test(held_out), notes, whole != images)


def whole_test(images: ImageSet) -> ImageSet:
    """All images as test images."""
    return images._replace(records=tuple(record._replace(split="test") for record in images.records))


def with_labels_of(metadata: ModelMetadata, images: ImageSet, split: Split) -> tuple[Record, ...]:
    """Records of a split, labelled by the model's class list.

    Raises:
        DataError: The split is empty, or a class is not the model's.
    """
    records = images.of_split(split)
    if not records:
        raise DataError(f"the data set has no {split} images; choose another --split")
    labels = {name: label for label, name in enumerate(metadata.class_names)}
    found = {images.class_names[label] for record in records for label in record.classes}
    unknown = sorted(found - set(labels))
    if unknown:
        are = "is" if len(unknown) == 1 else "are"
        raise DataError(
            f"{counted(len(unknown), 'class')} {are} not among the model's {len(labels)}, e.g. "
            f"'{unknown[0]}'; evaluate on the classes that it was trained on"
        )
    if metadata.model.multi_label:
        return tuple(
            record._replace(
                label=-1, labels=tuple(sorted(labels[images.class_names[one]] for one in record.classes))
            )
            for record in records
        )
    return tuple(record._replace(label=labels[images.class_names[record.label]]) for record in records)
