"""One training run, whole: read the photographs, build, train, judge once on the test split, report."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from ramstrans.data.build import (
    Progress,
    build_cache,
    build_image_set,
    build_preprocessing,
    drop_unreadable,
)
from ramstrans.data.loading import PhotographDataset, PhotographLoader, build_loader
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import ImageSet, Split
from ramstrans.data.transforms import Augmentation
from ramstrans.devices import choose_device
from ramstrans.errors import ConfigError, OutputError, UsageError
from ramstrans.evaluation.judge import judge
from ramstrans.evaluation.report import Report
from ramstrans.model.folder import ModelCard, load_into, save_model
from ramstrans.model.rams import RamsTrans, build_model
from ramstrans.training.config import RunConfig
from ramstrans.training.loop import MetricsLog, fit

Say = Callable[[str], None]

RUN_MARK = "metrics.jsonl"
"""File that tells a run folder from any other, so that `overwrite` cannot empty somebody's home."""


class Prepared(NamedTuple):
    """Everything that a run needs before its first step.

    Attributes:
        config: The run's config, with what the data decided filled in.
        images: The data set, unreadable files gone.
        model: With its initial weights, on the CPU.
        preprocessing: How photographs become inputs.
        left_out: A line on each unreadable file.
    """

    config: RunConfig
    images: ImageSet
    model: RamsTrans
    preprocessing: Preprocessing
    left_out: tuple[str, ...] = ()


def prepare(config: RunConfig, say: Say = lambda _: None, progress: Progress = lambda *_: None) -> Prepared:
    """Read and check the data, and build the model; nothing is written but a data set to be drawn.

    Args:
        config: Of the run.
        say: Told, a line at a time, what was found.
        progress: Told (done, total, what).

    Raises:
        RamsTransError: The data, the model or the options cannot be used; the message says why.
    """
    check_output(config.output, overwrite=config.overwrite)
    images = build_image_set(config.data, progress=progress)
    left_out: list[str] = []
    images = drop_unreadable(images, config.data, say=left_out.append, progress=progress)
    for line in left_out:
        say(line)
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
    statistics = model.backbone.vit.pretrained_cfg
    preprocessing = build_preprocessing(
        config.data, config.model.input_size, config.model.zoom_source, statistics["mean"], statistics["std"]
    )
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    say(f"{config.model.backbone}: {millions:.1f} M parameters, {config.model.num_scales} scale(s)")
    return Prepared(config, images, model, preprocessing, tuple(left_out))


def train(
    prepared: Prepared, output: Path, *, command: str = "", progress: Progress = lambda *_: None
) -> Report:
    """Train into a run folder, then judge the chosen epoch on the test split, once.

    The folder holds run.yaml, model.safetensors, config.json, metrics.jsonl, TensorBoard events, and the
    report.

    Args:
        prepared: From `prepare`.
        output: The run folder; made here.
        command: The line that started the run, for the report.
        progress: Told (step, total steps, what) after each step.

    Returns:
        The report on the test split.
    """
    config, model = prepared.config, prepared.model
    accelerator = build_accelerator(config, output)
    claim_output(output, overwrite=config.overwrite)
    run = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    (output / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
    accelerator.init_trackers("tensorboard")
    train_loader, val_loader = build_loaders(prepared, pin_memory=accelerator.device.type == "cuda")
    model.backbone.use_fused_attention(use_fused_attention(config, accelerator))
    log = MetricsLog(output / RUN_MARK, accelerator)
    result = fit(
        model, train_loader, val_loader, prepared.preprocessing, config.training, accelerator, log, progress
    )
    accelerator.end_training()
    summary = {
        "epoch": result.epoch,
        "chosen_on": result.chosen_on,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
    }
    card = ModelCard(
        config.model, prepared.images.class_names, prepared.preprocessing, training={"run": run} | summary
    )
    save_model(output, result.state, card)
    load_into(model, result.state)
    model.backbone.use_fused_attention(True)
    return judge(
        model,
        card,
        build_dataset(prepared, "test"),
        output,
        precision=config.training.precision,
        batch_size=config.training.batch_size,
        num_workers=config.data.num_workers,
        extra={"config": run, "command": command, "warnings": prepared.left_out} | summary,
        progress=progress,
    )


def build_loaders(
    prepared: Prepared, *, pin_memory: bool = False
) -> tuple[PhotographLoader, PhotographLoader | None]:
    """Loaders of the training and, if there is one, the validation part."""
    config, batch_size = prepared.config, prepared.config.training.batch_size
    options: dict[str, Any] = {
        "with_source": config.model.zoom_source == "full" and config.model.num_scales > 1,
        "num_workers": config.data.num_workers,
        "pin_memory": pin_memory,
    }
    train_set, val_set = build_dataset(prepared, "train"), build_dataset(prepared, "val")
    train_loader = build_loader(train_set, batch_size, shuffle=True, seed=config.seed, **options)
    val_loader = build_loader(val_set, batch_size, shuffle=False, **options) if len(val_set) else None
    return train_loader, val_loader


def build_dataset(prepared: Prepared, split: Split) -> PhotographDataset:
    """The views of one split: at random in training, the centre otherwise."""
    data = prepared.config.data
    return PhotographDataset(
        prepared.images.of_split(split),
        prepared.preprocessing,
        prepared.config.model.input_size,
        augmentation=Augmentation(data.flip, data.color_jitter) if split == "train" else None,
        seed=prepared.config.seed,
        cache=build_cache(data, is_read_once=split == "test"),
        max_pixels=data.max_pixels,
    )


def build_accelerator(config: RunConfig, output: Path) -> Accelerator:
    """Devices and precision by Accelerate."""
    device = choose_device(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    precision = {"fp32": "no"}.get(config.training.precision, config.training.precision)
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("training.precision fp16 needs a GPU; on a CPU take bf16 or fp32")
    # Accelerate keeps the first run's precision and device for the whole process, or refuses others.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        mixed_precision=precision,
        cpu=device.type == "cpu",
        log_with="tensorboard",
        project_dir=output,
    )


def use_fused_attention(config: RunConfig, accelerator: Accelerator) -> bool:
    """Whether blocks keep fused attention in training, see `TrainingConfig.attention`."""
    if config.training.attention != "auto":
        return config.training.attention == "fused"
    return not (accelerator.device.type == "cpu" and config.training.precision == "bf16")


def default_output(config: RunConfig) -> Path:
    """`runs/<data name>-<backbone>-<date and time>`."""
    moment = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{config.data.name}-{config.model.backbone}-{moment}"


def check_output(output: Path | None, *, overwrite: bool) -> None:
    """Raise OutputError if a run folder may not be written there."""
    if output is None:
        return
    nearest = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise OutputError(f"--output {output}: {nearest} is no folder that you can write to; give another")
    if not (output.is_dir() and any(output.iterdir())):
        return
    if not overwrite:
        raise OutputError(f"--output {output} exists; give another, or --overwrite true to replace it")
    if not (output / RUN_MARK).exists():
        raise OutputError(f"--output {output} is not a run folder and will not be replaced; give another")


def claim_output(output: Path, *, overwrite: bool) -> None:
    """Make the run folder, empty; an earlier run there is replaced if the user said so."""
    check_output(output, overwrite=overwrite)
    try:
        if output.is_dir() and overwrite:
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        (output / RUN_MARK).touch()
    except OSError as error:
        raise OutputError(
            f"--output {output} cannot be written: {error.strerror or error}; give another folder"
        ) from error
