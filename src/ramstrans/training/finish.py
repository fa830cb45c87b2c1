"""What follows the last step: the chosen weights are calibrated, and evaluated once on the test split."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor

from ramstrans.calibration.fitted import Calibration, save_calibration
from ramstrans.calibration.wanted import Wanted
from ramstrans.console import Progress
from ramstrans.evaluation.calibrate import NOTHING_FITTED, calibrate, reference_set
from ramstrans.evaluation.evaluate import Further, evaluate
from ramstrans.evaluation.ranks import taxonomy_of_images
from ramstrans.evaluation.report.build import Report
from ramstrans.models.methods.build import build_model
from ramstrans.models.methods.method import Method
from ramstrans.plain import counted
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.saved.model import load_into
from ramstrans.training.run_folder import options_of
from ramstrans.training.setup import Prepared

NOT_REPORTED = ("run", "images", "backbone")
"""What the metadata keep of a run, but not its report."""

logger = logging.getLogger(__name__)


def trained_model(prepared: Prepared, weights: Mapping[str, Tensor], accelerator: Accelerator) -> Method:
    """The model with the chosen weights, on its device."""
    config, model = prepared.config, prepared.model
    if accelerator.is_fsdp2 or config.training.finetune == "lora":  # sharded; with adapters
        model = build_model(dataclasses.replace(config.model, weights=None))
    load_into(model, weights)
    return model.to(accelerator.device)


def calibrate_trained(
    output: Path,
    prepared: Prepared,
    model: Method,
    metadata: ModelMetadata,
    accelerator: Accelerator,
    progress: Progress,
) -> Calibration | None:
    """Calibrate on the validation images, and write that beside the model; None if it cannot be done."""
    config, wanted = prepared.config, Wanted()
    if not config.calibrate or config.data.multi_label:
        return None
    known = prepared.dataset("val")
    if len(known) < wanted.min_images:
        reason = "there are no validation images"
        if len(known):
            reason = f"{counted(len(known), 'validation image')}, and {wanted.min_images} are needed"
        logger.info(NOTHING_FITTED.format(reason=reason, run=output))
        return None
    calibrated = calibrate(
        model,
        metadata,
        known,
        reference_set(prepared.dataset("train"), len(metadata.class_names)),
        wanted=wanted,
        fitted_on="val",
        taxonomy=taxonomy_of_images(prepared.images, metadata.class_names, config.data.name),
        precision=config.training.precision,
        loading=prepared.loading(),
        progress=progress,
    )
    if accelerator.is_main_process:
        save_calibration(output, calibrated.fitted.calibration)
    for line in calibrated.lines():
        logger.info("%s", line)
    return calibrated.fitted.calibration


def evaluate_test(
    output: Path,
    prepared: Prepared,
    model: Method,
    metadata: ModelMetadata,
    calibration: Calibration | None,
    command: str,
    progress: Progress,
) -> Report:
    """Evaluate the chosen weights on the test split, and write the report."""
    config = prepared.config
    summary = {key: value for key, value in metadata.training.items() if key not in NOT_REPORTED}
    warnings = [*prepared.unreadable, *summary.pop("warnings", ())]
    report = {"config": options_of(config), "command": command, "warnings": warnings}
    test_set, unknown = prepared.dataset("test"), {}
    if prepared.unknown is not None:
        left_out = dataclasses.replace(test_set, records=prepared.unknown.records)
        unknown = {prepared.unknown.name: prepared.loader(left_out)}
    return evaluate(
        model,
        metadata,
        prepared.loader(test_set),
        output,
        Further(calibration=calibration, unknown=unknown),
        precision=config.training.precision,
        extra=report | summary,
        progress=progress,
    )
