"""Calibrate a saved model on images that it was not trained on, in one pass over them.

Nothing is fitted on the test split. If the epoch to keep was chosen on the same images, they are not quite
exchangeable with new ones any more: what is fitted is a little too sure, the less the more images there are.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ramstrans.calibration.fit import Fitted, check_enough, fit_calibration
from ramstrans.calibration.fitted import CALIBRATION_FILE, Calibration, load_calibration, save_calibration
from ramstrans.calibration.rank_table import read_rank_table
from ramstrans.calibration.scores import NEEDS, Reference
from ramstrans.calibration.taxonomy import Taxonomy
from ramstrans.calibration.unknown import Seen
from ramstrans.calibration.wanted import Wanted
from ramstrans.console import Progress, no_progress
from ramstrans.data.build import fingerprint
from ramstrans.data.config import DataConfig
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.records import ImageSet, Record
from ramstrans.errors import ConfigError, DataError, UsageError
from ramstrans.evaluation.config import CalibrationConfig
from ramstrans.evaluation.early_exit import choose_exit
from ramstrans.evaluation.images import (
    data_config,
    dataset_of,
    is_same_root,
    read_drawn,
    some_of_each,
    trained_images,
)
from ramstrans.evaluation.metrics import FEW_IMAGES, true_ranks
from ramstrans.evaluation.predict import Predictions, choose_precision, predict_split
from ramstrans.evaluation.ranks import taxonomy_of_images
from ramstrans.evaluation.report.ranks import rank_lines
from ramstrans.evaluation.report.trust import METHOD_NAMES, score_name
from ramstrans.evaluation.trust import answers_of, trust_report
from ramstrans.evaluation.unknown_images import of_folder
from ramstrans.files import check_output
from ramstrans.hub import is_address
from ramstrans.models.methods.method import Method
from ramstrans.plain import counted
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.saved.model import load_model, save_metadata, weights_digest

logger = logging.getLogger(__name__)

NOTHING_FITTED = (
    "nothing is calibrated: {reason}; `ramstrans calibrate {run} --data.root FOLDER` takes any labelled set "
    "that the model was not trained on"
)


class Calibrated(NamedTuple):
    """A calibration, and what it does to the probabilities of the images that it was fitted on.

    Attributes:
        fitted: The calibration, and the scores it was chosen from.
        report: What it comes to on the images that it was fitted on, see `trust_report`.
        predictions: For these images, by the scales that answer.
    """

    fitted: Fitted
    report: dict[str, Any]
    predictions: Predictions

    def lines(self) -> list[str]:
        """What was fitted, a line each."""
        calibration = self.fitted.calibration
        rule, found = calibration.fused[len(self.predictions.probabilities) - 1], []
        fused = self.report["calibration"]["fused"]
        before, now = (fused[when]["nll"] for when in ("before", "after"))
        found.append(
            f"calibrated on {counted(calibration.num_images, 'image')} ({calibration.fitted_on}), "
            f"temperature {rule.temperature:.2f}: their log loss was {before:.3f}, and is {now:.3f} now"
        )
        if rule.unknown is not None:
            how = {"name": "as asked", "default": "by default"}.get(
                rule.unknown.chosen_by, f"chosen on {rule.unknown.chosen_by}"
            )
            figures = ""
            if rule.unknown.auroc is not None:
                figures = f" (AUROC {rule.unknown.auroc:.1f} %, FPR95 {rule.unknown.fpr95:.1f} %)"
            if rule.unknown.chosen_by == "classes left out":
                figures += "; the network was trained on them, so new classes are harder to tell"
            found.append(
                f"unknown: {score_name(dataclasses.asdict(rule.unknown))}, {how}{figures}; above "
                f"{rule.unknown.threshold:.4g}, which rejects {100 * rule.unknown.reject:g} % of the known"
            )
        if rule.sets is not None:
            sets = self.report["sets"]["methods"][rule.sets.method]
            found.append(
                f"prediction sets: {METHOD_NAMES[rule.sets.method]}, {100 * rule.sets.coverage:g} % "
                f"{'of each class' if rule.sets.per_class else 'of all images'}, "
                f"{sets['mean_size']:.2f} classes on average"
            )
        return [*found, *rank_lines(self.report)]


def calibrate_run(config: CalibrationConfig, progress: Progress = no_progress) -> Calibrated:
    """Calibrate a saved model, and write calibration.json beside it.

    A confidence for early exit that was chosen for the model before is chosen again, since it is one of
    calibrated probabilities now.

    Raises:
        RamsTransError: The folder, the data or the options cannot be used; the message says why.
    """
    model, metadata = load_model(config.run, config.device)
    if metadata.model.multi_label:
        raise UsageError(
            "a calibration is for classes of which an image has one, and images of this model may have "
            "several labels (multi_label)"
        )
    if is_address(config.run):
        raise UsageError(f"{config.run} is a copy from the hub, which is only read; give a run folder")
    check_output(config.run / CALIBRATION_FILE, overwrite=True)
    data = data_config(metadata.run_options("data"), config.data)
    without = "the unknown is told by a score that needs none of them"
    own = trained_images(metadata, data, config.data, without, progress)
    taxonomy = ranks_for(config, metadata, own)
    known, fitted_on = images_to_fit_on(metadata, data, config, own, progress)
    known_set, left_out = dataset_of(metadata, known, "val", data, progress)
    check_enough(
        np.array([record.label for record in known_set.records]), config.wanted, metadata.class_names
    )
    trained_on = None if own is None else dataset_of(metadata, own, "train", data, progress)[0]
    references = None if trained_on is None else reference_set(trained_on, len(metadata.class_names))
    unknown_set, more = None, list[str]()
    if config.unknown is not None:
        compared = [*known_set.records, *(references.records if references else ())]
        images, more = of_folder(config.unknown, metadata.class_names, compared, data, progress)
        unknown_set = replace(known_set, records=images.records)
    for line in left_out + more:
        logger.warning("%s", line)
    if unknown_set is not None and len(unknown_set) < FEW_IMAGES:
        logger.warning(
            "the score of the unknown is chosen by %d unknown images only: another %d might choose another; "
            "give %d or more",
            *(len(unknown_set), len(unknown_set), FEW_IMAGES),
        )
    calibrated = calibrate(
        model,
        metadata,
        known_set,
        references,
        unknown_set,
        wanted=config.wanted,
        fitted_on=fitted_on,
        taxonomy=taxonomy,
        precision=choose_precision(config.precision, metadata, model.device),
        loading={"batch_size": config.batch_size, "timeout": data.read_timeout},
        progress=progress,
    )
    save_calibration(config.run, calibrated.fitted.calibration)
    if metadata.early_exit is not None:
        choice = choose_exit(calibrated.predictions, calibration=calibrated.fitted.calibration)
        save_metadata(config.run, replace(metadata, early_exit=choice))
        logger.info("the confidence of early exit was chosen again: %.3f", choice.confidence)
    return calibrated


def calibrate(
    model: Method,
    metadata: ModelMetadata,
    known_set: ImageDataset,
    references: ImageDataset | None,
    unknown_set: ImageDataset | None = None,
    *,
    wanted: Wanted,
    fitted_on: str,
    taxonomy: Taxonomy | None = None,
    precision: str,
    loading: dict[str, Any],
    progress: Progress = no_progress,
) -> Calibrated:
    """Fit a calibration; nothing is written. Several processes share the passes, and each gets all of it.

    There are rules for all scales that were trained, also where fewer answer by default, as of `calcrop`.

    Args:
        model: In eval mode.
        metadata: Of the model.
        known_set: Held-out images of its classes.
        references: Training images; None: only scores that need none can be chosen.
        unknown_set: Images of no class of the model, to choose the score of the unknown on.
        wanted: What is asked for.
        fitted_on: Which images `known_set` has.
        taxonomy: Ranks of the classes that answers roll up by; None: there are none.
        precision: Of autocast.
        loading: Options of `build_loader`.
        progress: Called with (done, total, what).
    """

    def seen(dataset: ImageDataset, what: str) -> Predictions:
        loader = build_loader(dataset, shuffle=False, with_high_res=model.needs_high_res, **loading)
        return predict_split(model, loader, precision=precision, progress=progress, keep=True, what=what)

    if references is not None and wanted.score != "auto" and "features" not in NEEDS[wanted.score]:
        references = None
    with all_scales(model):
        predictions = seen(known_set, "calibrating")
        true_ranks(predictions.fused, predictions.labels)  # finite?
        compared = None if references is None else seen(references, "features to compare with")
        unknown = None if unknown_set is None else as_seen(seen(unknown_set, "unknown images"))
    fitted = fit_calibration(
        as_seen(predictions),
        wanted,
        metadata.class_names,
        fitted_on=fitted_on,
        weights=weights_digest(model.state_dict()),
        num_scales=model.num_scales,
        references=[] if compared is None else references_of(model, compared),
        unknown=unknown,
    )
    fitted = fitted._replace(calibration=replace(fitted.calibration, taxonomy=taxonomy))
    warn_of_doubts(fitted.calibration)
    predictions = predictions.first(model.num_scales)
    given = answers_of(fitted.calibration, predictions)
    report = trust_report(fitted.calibration, predictions, given, {})
    return Calibrated(fitted, report, predictions)


@contextmanager
def all_scales(model: Method) -> Iterator[None]:
    """Let a model use all scales that were trained, unless it would look at true boxes that it needs not."""
    answering = model.num_scales
    model.limit_scales(model.num_trained)
    if model.needs_boxes:
        model.limit_scales(answering)
    try:
        yield
    finally:
        model.limit_scales(answering)


def warn_of_doubts(calibration: Calibration) -> None:
    """Warn of what makes a calibration less certain: notes of the fit, and few images."""
    for note in calibration.notes:
        logger.warning("%s", note)
    count = calibration.num_images
    if count < FEW_IMAGES:
        logger.warning(
            "calibrated on %d images only: temperatures, thresholds and sets of other %d would differ; hold "
            "out %d or more",
            *(count, count, FEW_IMAGES),
        )


def ranks_for(config: CalibrationConfig, metadata: ModelMetadata, own: ImageSet | None) -> Taxonomy | None:
    """The ranks of the model's classes: of the table that is given, of its data set, or from before.

    Raises:
        DataError: The table cannot be used.
    """
    found = None
    if config.taxonomy is not None:
        found = read_rank_table(config.taxonomy, metadata.class_names)
    elif own is not None:
        source = str(metadata.run_options("data").get("name", "the data set"))
        found = taxonomy_of_images(own, metadata.class_names, source)
    if found is None:
        with suppress(ConfigError):  # of a calibration that is replaced
            before = load_calibration(config.run)
            found = None if before is None else before.taxonomy
    if found is None:
        if config.rank_confidence is not None:
            logger.warning("--rank_confidence is ignored: there are no ranks; --taxonomy TABLE gives some")
        return None
    return found if config.rank_confidence is None else replace(found, confidence=config.rank_confidence)


def as_seen(predictions: Predictions) -> Seen:
    """Predictions as what a calibration is fitted to."""
    assert predictions.logits is not None, "kept"
    assert predictions.features is not None, "kept"
    return Seen(predictions.probabilities, predictions.logits, predictions.features, predictions.labels)


def references_of(model: Method, predictions: Predictions) -> list[Reference]:
    """What the scores of each scale compare with."""
    assert predictions.features is not None, "kept"
    head = linear_head(model)
    return [Reference(features, predictions.labels, head) for features in predictions.features]


def linear_head(model: Method) -> tuple[np.ndarray, np.ndarray] | None:
    """`(weight (C, D), bias (C,))` of the classifier; None unless it is one linear layer."""
    head = model.encoder.get_classifier()
    if not isinstance(head, nn.Linear | nn.Conv2d):
        return None
    bias = torch.zeros(len(head.weight)) if head.bias is None else head.bias
    weight, bias = (tensor.detach().float().cpu() for tensor in (head.weight.flatten(1), bias))
    return weight.numpy(), bias.numpy()


def reference_set(training: ImageDataset, num_classes: int) -> ImageDataset:
    """Centre views of the training images to compare with: all, or as many of each class, evenly spaced."""
    return replace(training, records=some_of_each(training.records, num_classes), augmentation=None)


def images_to_fit_on(
    metadata: ModelMetadata,
    data: DataConfig,
    config: CalibrationConfig,
    own: ImageSet | None,
    progress: Progress,
) -> tuple[ImageSet, str]:
    """The images to fit on, as a validation split, and what they are.

    Of the run's own data set its validation split; of another one its own validation split, or all but its
    test split.

    Raises:
        DataError: There is no validation split, or the images are test images of the run.
    """
    trained_on = metadata.run_options("data")
    if config.data.root is None or is_same_root(config.data.root, trained_on):
        assert own is not None, "read"
        if not own.of_split("val"):
            raise DataError(
                "the run held out no validation images, and nothing is calibrated on test images; give a "
                "labelled set that the model was not trained on: --data.root FOLDER, or train with "
                "--data.val_fraction 0.1"
            )
        drawn_before = metadata.training.get("images")
        if data.on_unreadable == "stop" and drawn_before not in (None, fingerprint(own, data)):
            logger.warning(
                "the data set has changed since the training: some of its validation images may have been "
                "trained on, and what is fitted on them is too sure"
            )
        return own, "val"
    images = read_drawn(metadata, data, progress, draws=False).images
    chosen = images.of_split("val") or images.of_split("train")
    if not chosen:
        raise DataError(f"{data.root} has test images only, and nothing is calibrated on those; give others")
    if own is not None:
        check_not_of_run(chosen, own)
    records = tuple(record._replace(split="val") for record in chosen)
    return images._replace(records=records), str(data.root)


def check_not_of_run(chosen: Sequence[Record], own: ImageSet) -> None:
    """Raise if some images are test or training images of the run, by their paths.

    Raises:
        DataError: Some are.
    """
    paths = {record.path.resolve() for record in chosen}
    for split, why in (("test", "nothing is calibrated on those"), ("train", "it would be too sure")):
        shared = sum(record.path.resolve() in paths for record in own.of_split(split))  # type: ignore[arg-type]
        if shared:
            raise DataError(
                f"{counted(shared, 'image')} of {len(chosen)} {'is a' if shared == 1 else 'are'} {split} "
                f"{'image' if shared == 1 else 'images'} of the run, and {why}; give other images"
            )
