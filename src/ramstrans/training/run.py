"""One training run, whole: read the photographs, build, train, judge once on the test split, report."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.utils import set_seed

from ramstrans.console import Progress, no_progress
from ramstrans.data.build import build_image_set, build_preprocessing, drop_unreadable
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import ImageSet
from ramstrans.errors import ConfigError, DataError
from ramstrans.evaluation.evaluate import evaluate
from ramstrans.evaluation.report.build import Report
from ramstrans.models.methods.rams import RamsTrans, build_model
from ramstrans.saved.model import ModelMetadata, load_into, save_model
from ramstrans.training.checkpoint import Checkpoints
from ramstrans.training.config import RunConfig
from ramstrans.training.interrupts import SignalHandler
from ramstrans.training.log import MetricsLog
from ramstrans.training.loop import Components, TrainResult, run_training
from ramstrans.training.run_folder import (
    RUN_MARK,
    check_output,
    check_unfinished,
    claim_output,
    options_of,
    write_options,
)
from ramstrans.training.setup import (
    build_accelerator,
    build_dataset,
    build_loaders,
    evaluation_batch_size,
    start_processes,
    use_fused_attention,
)
from ramstrans.training.state import RunState

Say = Callable[[str], None]


class Prepared(NamedTuple):
    """Everything that a run needs before its first step.

    Attributes:
        config: The run's config, with what the data decided filled in.
        images: The data set, unreadable files gone.
        model: With its initial weights, on the CPU.
        preprocessing: How photographs become inputs.
        left_out: A line on each unreadable file.
        resumes: Whether an unfinished run in `config.output` is to be taken up again.
    """

    config: RunConfig
    images: ImageSet
    model: RamsTrans
    preprocessing: Preprocessing
    left_out: tuple[str, ...] = ()
    resumes: bool = False


def prepare(
    config: RunConfig,
    say: Say = lambda _: None,
    progress: Progress = no_progress,
    *,
    resumes: bool = False,
) -> Prepared:
    """Read and check the data, and build the model; nothing is written but a data set to be drawn.

    Args:
        config: Of the run.
        say: Told, a line at a time, what was found.
        progress: Told (done, total, what).
        resumes: Whether an unfinished run in `config.output` is to be taken up again.

    Raises:
        RamsTransError: The data, the model or the options cannot be used; the message says why.
    """
    if resumes:
        assert config.output is not None, "the folder of the run that is resumed"
        check_unfinished(config.output)
    else:
        check_output(config.output, overwrite=config.overwrite)
    state = start_processes(config)
    with state.main_process_first():  # a set that is drawn is drawn once
        images = build_image_set(config.data, progress=progress)
    images, unreadable = drop_unreadable(images, config.data, progress)
    counts = ", ".join(f"{len(images.of_split(split))} {split}" for split in ("train", "val", "test"))
    say(f"{config.data.name}: {len(images.class_names)} classes, {counts} images")
    num_classes = len(images.class_names)
    if config.model.num_classes not in (None, num_classes):
        raise ConfigError(
            f"model.num_classes is {config.model.num_classes}; the data set has {num_classes}: leave it out"
        )
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=num_classes))
    set_seed(config.seed)
    model = build_model(config.model, say)
    if state.num_processes > 1:
        set_seed(config.seed + state.process_index)  # of dropout
    statistics = model.backbone.vit.pretrained_cfg
    preprocessing = build_preprocessing(
        config.data, config.model.input_size, config.model.zoom_source, statistics["mean"], statistics["std"]
    )
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    say(f"{config.model.backbone}: {millions:.1f} M parameters, {config.model.num_scales} scale(s)")
    left_out = tuple(f"left out: {error}" for error in unreadable)
    return Prepared(config, images, model, preprocessing, left_out, resumes)


def train(
    prepared: Prepared,
    output: Path,
    *,
    command: str = "",
    progress: Progress = no_progress,
    say: Say = lambda _: None,
) -> Report:
    """Train into a run folder, then judge the chosen epoch on the test split, once.

    The folder holds run.yaml, model.safetensors, config.json, metrics.jsonl, TensorBoard events,
    checkpoints and the report.

    Args:
        prepared: From `prepare`.
        output: The run folder; made here, unless a run is resumed.
        command: The line that started the run, for the report.
        progress: Told (step, total steps, what) after each step.
        say: Told of checkpoints and skipped steps.

    Returns:
        The report on the test split, in every process; the first one writes.

    Raises:
        StoppedError: A signal came; the run is saved.
        RamsTransError: The run cannot go on; the message says why.
    """
    config = prepared.config
    accelerator = build_accelerator(config, output)
    if accelerator.is_main_process and not prepared.resumes:
        claim_output(output, overwrite=config.overwrite)
        write_options(output, config)
    accelerator.wait_for_everyone()
    interrupts = SignalHandler()
    with interrupts.installed():
        result = train_into(output, prepared, accelerator, progress, say, interrupts)
        checking = interrupts.checking(progress, f"go on with `ramstrans train --resume {output}`")
        report = save_and_evaluate(output, prepared, result, accelerator, command, checking)
    accelerator.end_training()
    return report


def save_and_evaluate(
    output: Path,
    prepared: Prepared,
    result: TrainResult,
    accelerator: Accelerator,
    command: str,
    progress: Progress,
) -> Report:
    """Write the chosen weights and evaluate them."""
    config = prepared.config
    summary = {
        "epoch": result.epoch,
        "chosen_on": result.chosen_on,
        "steps": result.steps,
        "num_skipped": result.num_skipped,
        "seconds": round(result.seconds, 1),
    }
    options = options_of(config)
    metadata = ModelMetadata(
        config.model, prepared.images.class_names, prepared.preprocessing, training={"run": options} | summary
    )
    if accelerator.is_main_process:
        save_model(output, result.weights, metadata)
    test_set = build_dataset(config, prepared.images, prepared.preprocessing, "test")
    return evaluate(
        model_of(prepared, result, accelerator),
        metadata,
        test_set,
        output,
        precision=config.training.precision,
        batch_size=evaluation_batch_size(config),
        num_workers=config.data.num_workers,
        read_timeout=config.data.read_timeout,
        extra={"config": options, "command": command, "warnings": prepared.left_out} | summary,
        progress=progress,
    )


def train_into(
    output: Path,
    prepared: Prepared,
    accelerator: Accelerator,
    progress: Progress,
    say: Say,
    interrupts: SignalHandler,
) -> TrainResult:
    """Train, from the newest checkpoint if there is one."""
    config, every = prepared.config, prepared.config.training.checkpoint_every
    checkpoints = Checkpoints(output / "checkpoints", config.training.keep_checkpoints)
    fresh = RunState(num_processes=accelerator.num_processes, data=fingerprint(prepared.images, config))
    state = checkpoints.newest(say) if prepared.resumes else None
    if prepared.resumes:
        say(
            "no checkpoint yet: from the start"
            if state is None
            else f"from the checkpoint of step {state.step}"
        )
    if state is not None:
        check_same(state, fresh, say)
    purge: dict[str, Any] = {} if state is None else {"tensorboard": {"purge_step": state.step + 1}}
    accelerator.init_trackers("tensorboard", init_kwargs=purge)
    train_loader, val_loader = build_loaders(
        config, prepared.images, prepared.preprocessing, pin_memory=accelerator.device.type == "cuda"
    )
    backbone = prepared.model.backbone
    backbone.use_fused_attention(use_fused_attention(config, accelerator))
    backbone.gradient_checkpointing = config.training.gradient_checkpointing
    parts = Components(
        prepared.model,
        train_loader,
        val_loader,
        prepared.preprocessing,
        config.training,
        accelerator,
        MetricsLog(output / RUN_MARK, accelerator),
        None if every == 0 else checkpoints,
    )
    return run_training(parts, state or fresh, progress, say, interrupts)


def fingerprint(images: ImageSet, config: RunConfig) -> str:
    """A hash of which files are in which class and split, wherever the folder lies."""
    digest = hashlib.sha256("\n".join(images.class_names).encode(errors="surrogateescape"))
    root = config.data.root
    for record in images.records:
        is_below = root is not None and record.path.is_relative_to(root)
        path = record.path.relative_to(root) if is_below and root is not None else record.path
        digest.update(f"\n{record.split} {record.label} {path}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def check_same(state: RunState, now: RunState, say: Say) -> None:
    """Raise unless the data are those of the checkpoint; tell if the processes are not.

    Raises:
        DataError: They are others.
    """
    if state.data != now.data:
        raise DataError(
            "the data set is not the one that the run began with: files, classes or splits have changed; "
            "put it back as it was, or start another run"
        )
    if state.num_processes != now.num_processes:
        say(
            f"{now.num_processes} processes, where {state.num_processes} began: the same batches, but "
            "weights will differ in their last bits, and dropout in its draws"
        )


def model_of(prepared: Prepared, result: TrainResult, accelerator: Accelerator) -> RamsTrans:
    """The model with its chosen weights, ready to be judged."""
    model = prepared.model
    if accelerator.is_fsdp2 or prepared.config.training.finetune == "lora":  # parts of tensors; adapters
        model = build_model(dataclasses.replace(prepared.config.model, weights=None))
    load_into(model, result.weights)
    model.backbone.use_fused_attention(True)
    return model.to(accelerator.device)
