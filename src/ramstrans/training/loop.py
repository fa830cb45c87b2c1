"""The one training loop."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ramstrans.data.build import Progress
from ramstrans.data.loading import Batch
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.evaluation.evaluate import normalized, predict_split
from ramstrans.evaluation.metrics import classification_metrics
from ramstrans.training.config import TrainingConfig
from ramstrans.training.losses import multi_scale_loss
from ramstrans.training.optimizer import build_optimizer, build_schedule

LOG_EVERY = 10
"""Steps between rows of metrics.jsonl."""


class FitResult(NamedTuple):
    """How a training run ended.

    Attributes:
        state: Weights of the chosen epoch, on the CPU.
        epoch: The chosen epoch, from 1.
        chosen_on: `validation` or `last epoch`.
        steps: Optimiser steps taken.
        seconds: Wall-clock time of the training, evaluations included.
    """

    state: dict[str, Tensor]
    epoch: int
    chosen_on: str
    steps: int
    seconds: float


class MetricsLog:
    """Appends rows to metrics.jsonl and hands their numbers to the trackers."""

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path = path
        self.accelerator = accelerator

    def write(self, row: dict[str, Any], step: int) -> None:
        """Write one row; each is whole on disk when this returns."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        numbers = {f"{row['kind']}/{key}": value for key, value in row.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=step)


def fit(
    model: nn.Module,
    train_loader: DataLoader[Batch],
    val_loader: DataLoader[Batch] | None,
    preprocessing: Preprocessing,
    config: TrainingConfig,
    accelerator: Accelerator,
    log: MetricsLog,
    progress: Progress = lambda *_: None,
) -> FitResult:
    """Train; choose the best epoch on the validation part, or take the last where there is none.

    Args:
        model: On any device.
        train_loader: Its sampler is an `EpochSampler`.
        val_loader: The validation part, or None.
        preprocessing: Mean and standard deviation of the model's input.
        config: The recipe.
        accelerator: Devices and precision.
        log: Where rows go.
        progress: Told after each step.
    """
    steps_per_epoch = len(train_loader)
    total_steps = min(config.epochs * steps_per_epoch, config.max_steps or config.epochs * steps_per_epoch)
    model = accelerator.prepare_model(model)
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, total_steps)
    start, step, epoch = time.perf_counter(), 0, 0
    best_score, chosen = -1.0, FitResult({}, 0, "last epoch", 0, 0.0)
    while step < total_steps:
        train_loader.sampler.epoch = epoch  # type: ignore[attr-defined]
        epoch += 1
        model.train()
        window, window_images = time.perf_counter(), 0
        for batch in train_loader:
            images, source = normalized(batch, preprocessing, accelerator.device)
            labels = batch.labels.to(accelerator.device, non_blocking=True)
            output = model(images, source)
            loss = multi_scale_loss(
                output, labels, label_smoothing=config.label_smoothing, weights=config.loss_weights
            )
            accelerator.backward(loss.total)
            if config.gradient_clip:
                accelerator.clip_grad_norm_(model.parameters(), config.gradient_clip)
            lr = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step, window_images = step + 1, window_images + len(labels)
            if step % LOG_EVERY == 0 or step == total_steps:
                now = time.perf_counter()
                row = {
                    "kind": "train",
                    "step": step,
                    "epoch": epoch,
                    "loss": loss.total.item(),
                    "loss_scales": [part.item() for part in loss.scales],
                    "lr": lr,
                    "images_per_second": window_images / (now - window),
                }
                log.write(row, step)
                window, window_images = now, 0
            progress(step, total_steps, f"epoch {epoch}")
            if step == total_steps:
                break
        is_last = step == total_steps
        if val_loader is not None and (is_last or epoch % config.evaluate_every == 0):
            row = validate(
                accelerator.unwrap_model(model), val_loader, preprocessing, config, accelerator, epoch
            )
            log.write(row, step)
            if row["top1_fused"] > best_score:
                best_score = row["top1_fused"]
                chosen = FitResult(
                    copy_state(accelerator.unwrap_model(model)), epoch, "validation", step, 0.0
                )
    if val_loader is None:
        chosen = FitResult(copy_state(accelerator.unwrap_model(model)), epoch, "last epoch", step, 0.0)
    return chosen._replace(steps=step, seconds=time.perf_counter() - start)


def validate(
    model: nn.Module,
    loader: DataLoader[Batch],
    preprocessing: Preprocessing,
    config: TrainingConfig,
    accelerator: Accelerator,
    epoch: int,
) -> dict[str, Any]:
    """One row of metrics.jsonl about the validation part."""
    predictions, _ = predict_split(
        model, loader, preprocessing, accelerator.device, precision=config.precision
    )
    scales = [classification_metrics(p, predictions.labels).top1 for p in predictions.probabilities]
    fused = classification_metrics(predictions.fused, predictions.labels).top1
    return {"kind": "validation", "epoch": epoch, "top1_scales": scales, "top1_fused": fused}


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights, copied to the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
