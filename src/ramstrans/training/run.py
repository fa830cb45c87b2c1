"""One training run, whole: read the images, build, train, evaluate once on the test split, report."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from ramstrans.console import Progress, no_progress
from ramstrans.data.boxes import check_boxes
from ramstrans.data.build import (
    build_image_set,
    build_left_out,
    build_preprocessing,
    check_cache_room,
    drop_unreadable,
)
from ramstrans.data.records import ImageSet
from ramstrans.distributed import SignalHandler, from_first_process
from ramstrans.errors import DataError, UsageError, WeightsError
from ramstrans.evaluation.report.build import Report
from ramstrans.evaluation.unknown_images import UnknownImages, of_held_out
from ramstrans.files import check_room
from ramstrans.models.config import ModelConfig, SaliencyName
from ramstrans.models.methods.build import build_model
from ramstrans.models.methods.method import Method
from ramstrans.plain import counted
from ramstrans.saved.metadata import ModelMetadata, load_metadata
from ramstrans.saved.model import load_state, save_model
from ramstrans.saved.start import build_started, check_model
from ramstrans.training.checkpoint import Checkpoints, RunState
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.finish import calibrate_trained, evaluate_test, trained_model
from ramstrans.training.log import MetricsLog
from ramstrans.training.loop import TrainLoop, TrainResult
from ramstrans.training.optim import check_optimizer, num_steps, schedule_factor
from ramstrans.training.probe import LinearProbe
from ramstrans.training.run_folder import (
    REPORT_FILE,
    RUN_MARK,
    check_output,
    check_unfinished,
    claim_output,
    has_trained,
    options_of,
    read_json,
    resume_hint,
    write_options,
)
from ramstrans.training.setup import (
    Prepared,
    build_accelerator,
    start_processes,
    with_classes_of,
    with_length_for,
)
from ramstrans.training.thresholds import with_thresholds
from ramstrans.training.trackers import check_trackers, closing_trackers, log_test, start_trackers
from ramstrans.training.trainable import check_batch_norms

CHANGED = (
    "the data set is not the one that the run began with: files, classes or splits have changed; "
    "put it back as it was, or start another run"
)

logger = logging.getLogger(__name__)


def prepare(config: RunConfig, progress: Progress = no_progress, *, resumes: bool = False) -> Prepared:
    """Read and check the data, and build the model; nothing is written except a data set to be generated.

    Args:
        config: Options of the run.
        progress: Called with (done, total, what).
        resumes: Whether a run in `config.output` is resumed; `config` may have more epochs than it had.

    Raises:
        RamsTransError: The data, the model or the options cannot be used; the message says why.
    """
    _check_options(config, resumes=resumes)
    state = start_processes(config)
    with state.main_process_first():  # a set that is generated is generated once
        images = build_image_set(config.data, progress=progress)
    num_train, num_val = (len(images.of_split(split)) for split in ("train", "val"))
    config = with_length_for(with_classes_of(config, images), num_train, num_val)
    set_seed(config.seed)
    model = first_model(config, images.class_names, resumes=resumes)
    config = dataclasses.replace(config, model=resolved(config.model, model))
    model.encoder.set_channels_last(config.training.channels_last)  # refused here, and timed as it will be
    check_batch_norms(
        model, config.training, images_per_pass(config.training, num_train, state.num_processes)
    )
    if state.num_processes > 1:
        set_seed(config.seed + state.process_index)  # of dropout
    preprocessing = build_preprocessing(config.data, config.model.input_size, config.model.zoom_source)
    if not resumes:
        check_room(config.output or Path(), bytes_to_write(config, model), "weights and checkpoints")
    check_cache_room(images, config.data, preprocessing.reading)
    images, errors = drop_unreadable(images, config.data, progress)
    if config.model.needs_boxes:  # calcrop has no second look in evaluation
        check_boxes(images.records if model.num_scales > 1 else images.of_split("train"))
    unknown, more = _left_out(config, images, progress)
    _log_sizes(config, images, model)
    return Prepared(config, images, model, preprocessing, (*map(str, errors), *more), resumes, unknown)


def _check_options(config: RunConfig, *, resumes: bool) -> None:
    """Refuse what can be told before the images are read; see `prepare`."""
    if resumes:
        assert config.output is not None, "the folder of the run that is resumed"
        check_unfinished(config.output, config)
    else:
        check_output(config.output, overwrite=config.overwrite)
    check_optimizer(config.training.optimizer)
    check_trackers(config.trackers)
    check_model(dataclasses.replace(config.model, weights=None) if resumes else config.model)


def _left_out(
    config: RunConfig, images: ImageSet, progress: Progress
) -> tuple[UnknownImages | None, list[str]]:
    """Test images of the classes that are left out, if there are some; a line per unreadable file."""
    if config.data.hold_out_classes is None:
        return None, []
    left_out = build_left_out(config.data, images.class_names, progress)
    return from_first_process(lambda: of_held_out(left_out, "test", config.data, progress))


def _log_sizes(config: RunConfig, images: ImageSet, model: Method) -> None:
    """Log how large the data set and the model are, and what the model does."""
    counts = ", ".join(f"{len(images.of_split(split))} {split}" for split in ("train", "val", "test"))
    logger.info("%s: %d classes, %s images", config.data.name, len(images.class_names), counts)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    logger.info(
        "%s: %.1f M parameters, method %s, %d scale(s)",
        config.model.backbone,
        millions,
        config.model.method,
        config.model.num_scales,
    )
    for line in model.describe():
        logger.info(line)


def images_per_pass(training: TrainingConfig, num_train: int, num_processes: int) -> int:
    """Images of the smallest micro-batch of a process, that of the last step of an epoch too.

    >>> images_per_pass(TrainingConfig(batch_size=16, gradient_accumulation_steps=4), 96, 3)
    1
    >>> [images_per_pass(TrainingConfig(batch_size=32), count, 1) for count in (64, 72, 65)]
    [32, 8, 1]
    """
    smallest = num_train % training.batch_size or min(training.batch_size, num_train)
    return max(smallest // num_processes // training.gradient_accumulation_steps, 1)


def resolved(config: ModelConfig, model: Method) -> ModelConfig:
    """A config with what the backbone decided filled in, so that a saved model is built in the same way."""
    encoder = model.encoder
    return dataclasses.replace(
        config,
        mean=encoder.mean,
        std=encoder.std,
        class_tokens=encoder.class_tokens,
        saliency=cast(SaliencyName, model.saliency_name) if model.own_saliency is None else config.saliency,
    )


def bytes_to_write(config: RunConfig, model: Method) -> int:
    """The bytes of a run's weights and checkpoints: those to keep, the best one, and one being written."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    training = config.training
    if training.checkpoint_every == 0:
        return weights
    state = 1 if training.optimizer == "sgd" else 2  # numbers per weight in the optimiser, for most of them
    copies = 1 + state + (training.ema_decay > 0)
    return weights * (1 + copies * (2 * training.keep_checkpoints + 1))


def first_model(config: RunConfig, class_names: Sequence[str], *, resumes: bool) -> Method:
    """The model to begin with; that of a resumed run needs its first weights only if nothing was saved yet.

    Raises:
        WeightsError: The weights are missing or do not fit.
    """
    output = config.output
    if not resumes or output is None:
        return build_started(config.model, class_names)
    if checkpoints_of(output, config).steps() or has_trained(output, config):
        return build_model(dataclasses.replace(config.model, weights=None))
    try:
        return build_started(config.model, class_names)
    except WeightsError as error:
        raise WeightsError(
            f"{output} has no checkpoint yet, and the weights that the run began with cannot be read again "
            f"({error}); start another run"
        ) from error


def checkpoints_of(output: Path, config: RunConfig) -> Checkpoints:
    """The checkpoints in a run folder."""
    return Checkpoints(output / "checkpoints", config.training.keep_checkpoints)


def train(prepared: Prepared, output: Path, *, command: str = "", progress: Progress = no_progress) -> Report:
    """Train into a run folder, then evaluate the chosen epoch on the test split, once.

    The folder holds run.yaml, model.safetensors, config.json, metrics.jsonl, TensorBoard events,
    checkpoints and the report.

    Args:
        prepared: From `prepare`.
        output: The run folder; created here, unless a run is resumed.
        command: The line that started the run, for the report.
        progress: Called with (step, total steps, what) after each step.

    Returns:
        The report on the test split, in every process; the first one writes.

    Raises:
        StoppedError: A signal came; the run is saved.
        RamsTransError: The run cannot go on; the message says why.
    """
    config = prepared.config
    accelerator = build_accelerator(config, output, prepared.model.encoder.block_names)
    if accelerator.is_main_process and not prepared.resumes:
        claim_output(output, overwrite=config.overwrite)
        write_options(output, config)
    accelerator.wait_for_everyone()
    signals = SignalHandler()
    with signals.installed(), closing_trackers(accelerator):
        if prepared.resumes and has_trained(output, config):
            metadata, weights = trained_before(output, prepared, accelerator)
            start_trackers(accelerator, config, output, metadata.training.get("steps", 0) + 1)
        else:
            result = train_into(output, prepared, accelerator, progress, signals)
            metadata, weights = metadata_of(prepared, result), result.weights
            if config.data.multi_label and prepared.images.of_split("val"):
                loader = prepared.loader(prepared.dataset("val"))
                model = trained_model(prepared, weights, accelerator)
                metadata = with_thresholds(metadata, model, loader, config.training.precision)
            if accelerator.is_main_process:
                save_model(output, weights, metadata)
        checking = signals.checking(progress, resume_hint(output))
        model = trained_model(prepared, weights, accelerator)
        calibration = calibrate_trained(output, prepared, model, metadata, accelerator, checking)
        report = evaluate_test(output, prepared, model, metadata, calibration, command, checking)
        log_test(accelerator, report)
    accelerator.end_training()
    return report


def train_into(
    output: Path, prepared: Prepared, accelerator: Accelerator, progress: Progress, signals: SignalHandler
) -> TrainResult:
    """Train, from the newest checkpoint if there is one; or fit a linear probe."""
    config, log = prepared.config, MetricsLog(output / RUN_MARK, accelerator)
    if config.training.is_probe:
        start_trackers(accelerator, config, output)
        folder = config.training.probe_cache or output / "features"
        checking = signals.checking(progress, resume_hint(output))
        return LinearProbe(prepared, folder, accelerator, log).run(checking)
    checkpoints, state = checkpoints_of(output, config), new_state(prepared, accelerator)
    train_loader, val_loader = prepared.loaders()
    first_step = None
    if prepared.resumes:
        saved = checkpoints.newest()
        if saved is None:
            logger.info("no checkpoint yet: from the start")
        else:
            logger.info("from the checkpoint of step %d", saved.step)
            check_same(saved, state)
            check_length(saved, config.training, len(train_loader), output)
            state, first_step = saved, saved.step + 1
        if accelerator.is_main_process:
            write_options(output, config)
    start_trackers(accelerator, config, output, first_step)
    return TrainLoop(
        prepared.model,
        train_loader,
        val_loader,
        config.training,
        accelerator,
        log,
        None if config.training.checkpoint_every == 0 else checkpoints,
        state,
        signals,
    ).run(progress)


def new_state(prepared: Prepared, accelerator: Accelerator) -> RunState:
    """The state of a run before its first step."""
    return RunState(num_processes=accelerator.num_processes, data=prepared.fingerprint())


def trained_before(
    output: Path, prepared: Prepared, accelerator: Accelerator
) -> tuple[ModelMetadata, dict[str, Tensor]]:
    """The model of a run whose evaluation or report is missing.

    Raises:
        DataError: The data have changed.
    """
    logger.info("the run has been trained to its end; what is missing is its evaluation")
    saved, metadata = checkpoints_of(output, prepared.config).newest(), load_metadata(output)
    if saved is not None:
        check_same(saved, new_state(prepared, accelerator))
    elif metadata.class_names != prepared.images.class_names:
        raise DataError(CHANGED)
    return metadata, load_state(output)


def metadata_of(prepared: Prepared, result: TrainResult) -> ModelMetadata:
    """What is saved beside the weights of a run."""
    config = prepared.config
    return ModelMetadata(
        config.model,
        prepared.images.class_names,
        prepared.preprocessing,
        training={
            "run": options_of(config),
            "images": prepared.fingerprint(),
            "backbone": prepared.model.describe(),
        }
        | result.summary(),
    )


def check_same(saved: RunState, now: RunState) -> None:
    """Raise unless the data are those of the checkpoint; warn if the number of processes is another.

    Raises:
        DataError: The data have changed.
    """
    if saved.data != now.data:
        raise DataError(CHANGED)
    if saved.num_processes != now.num_processes:
        logger.warning(
            "%d processes, where %d began: the same batches, but weights will differ in their last bits, and "
            "dropout in its draws",
            now.num_processes,
            saved.num_processes,
        )


def check_length(saved: RunState, config: TrainingConfig, steps_per_epoch: int, output: Path) -> None:
    """Raise unless a resumed run has something left to do; report what another length does to the schedule.

    Raises:
        UsageError: The run has taken more steps already, or has finished with this number of them.
    """
    total, before = num_steps(config, steps_per_epoch), saved.total_steps
    if total < saved.step or total == read_json(output / REPORT_FILE).get("steps"):
        limit = f"--training.epochs {config.epochs}"
        if total == config.max_steps:
            limit = f"--training.max_steps {total}"
        raise UsageError(
            f"the run has taken {counted(saved.step, 'step')} ({steps_per_epoch} per epoch), and {limit} "
            f"ends at step {total}; give more"
        )
    if before in (0, total):
        return
    rates = [
        config.lr * schedule_factor(config, steps, steps_per_epoch)(saved.step) for steps in (before, total)
    ]
    logger.info(
        "%d steps instead of %d: the learning rate falls along one cosine over all of them; at step %d it "
        "goes on with %.3g, where it was %.3g",
        *(total, before, saved.step, rates[1], rates[0]),
    )
