"""The one training loop."""

import json
import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from ramstrans.data.build import Progress
from ramstrans.data.loading import Batch
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import TrainingError
from ramstrans.evaluation.evaluate import normalized, predict_split
from ramstrans.evaluation.metrics import classification_metrics
from ramstrans.model.rams import RamsTrans
from ramstrans.training.config import TrainingConfig
from ramstrans.training.losses import Look, MultiScaleLoss, losses_by_look
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
    model: RamsTrans,
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
    total_steps = min(config.epochs * len(train_loader), config.max_steps or sys.maxsize)
    look = accelerator.prepare_model(Look(model))
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, total_steps)
    stepper = Stepper(look, model, accelerator.prepare_optimizer(optimizer), schedule, config, accelerator)
    start, step, epoch, best_score = time.perf_counter(), 0, 0, -1.0
    chosen = FitResult({}, 0, "last epoch", 0, 0.0)
    while step < total_steps:
        train_loader.sampler.epoch = epoch  # type: ignore[attr-defined]
        epoch += 1
        model.train()
        window, window_images = time.perf_counter(), 0
        for batch in train_loader:
            loss, lr = stepper.step(batch, preprocessing)
            step, window_images = step + 1, window_images + len(batch.labels)
            if step % LOG_EVERY == 0 or step == total_steps:
                seconds = time.perf_counter() - window
                log.write(
                    train_row(loss, lr, step, epoch) | {"images_per_second": window_images / seconds}, step
                )
                window, window_images = time.perf_counter(), 0
            progress(step, total_steps, f"epoch {epoch}")
            if step == total_steps:
                break
        if val_loader is None:
            chosen = FitResult({}, epoch, "last epoch", step, 0.0)
        elif step == total_steps or epoch % config.evaluate_every == 0:
            row = validate(model, val_loader, preprocessing, config.precision, epoch)
            log.write(row, step)
            if row["top1_fused"] > best_score:
                best_score = row["top1_fused"]
                chosen = FitResult(copy_state(model), epoch, "validation", step, 0.0)
    state = chosen.state or copy_state(model)
    return chosen._replace(state=state, steps=step, seconds=time.perf_counter() - start)


class Stepper(NamedTuple):
    """What one optimiser step needs."""

    look: nn.Module
    model: RamsTrans
    optimizer: Optimizer
    schedule: LambdaLR
    config: TrainingConfig
    accelerator: Accelerator

    def step(self, batch: Batch, preprocessing: Preprocessing) -> tuple[MultiScaleLoss, float]:
        """Forward and backward look by look, clip, step; the loss, and the learning rate that was used."""
        device = self.accelerator.device
        labels = batch.labels.to(device, non_blocking=True)
        losses = losses_by_look(
            self.look,
            self.model,
            *normalized(batch, preprocessing, device),
            labels,
            label_smoothing=self.config.label_smoothing,
        )
        weights = self.config.loss_weights or (1.0,) * self.model.num_scales
        parts: list[Tensor] = []
        for scale, weight in enumerate(weights, start=1):
            # processes exchange their gradients once, with the last look's
            with nullcontext() if scale == len(weights) else self.accelerator.no_sync(self.look):
                part = next(losses)
                self.accelerator.backward(weight * part)
            parts.append(part.detach())
        total = torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()
        if self.config.gradient_clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        lr = float(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return MultiScaleLoss(total, tuple(parts)), lr


def train_row(loss: MultiScaleLoss, lr: float, step: int, epoch: int) -> dict[str, Any]:
    """One row of metrics.jsonl about a training step.

    Raises:
        TrainingError: The loss is not finite.
    """
    total = loss.total.item()
    if not math.isfinite(total):
        raise TrainingError(
            f"the loss is {total} at step {step} (learning rate {lr:.3g}); lower training.lr, "
            "lengthen training.warmup_steps, or take training.precision bf16 or fp32"
        )
    parts = [part.item() for part in loss.scales]
    return {"kind": "train", "step": step, "epoch": epoch, "loss": total, "loss_scales": parts, "lr": lr}


def validate(
    model: RamsTrans,
    loader: DataLoader[Batch],
    preprocessing: Preprocessing,
    precision: str,
    epoch: int,
) -> dict[str, Any]:
    """One row of metrics.jsonl about the validation part."""
    device = next(model.parameters()).device
    predictions, _ = predict_split(model, loader, preprocessing, device, precision=precision)
    scales = [classification_metrics(p, predictions.labels).top1 for p in predictions.probabilities]
    fused = classification_metrics(predictions.fused, predictions.labels).top1
    return {"kind": "validation", "epoch": epoch, "top1_scales": scales, "top1_fused": fused}


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights, copied to the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
