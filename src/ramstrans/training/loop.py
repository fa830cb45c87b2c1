"""The one training loop."""

import math
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from accelerate import Accelerator
from torch import Tensor

from ramstrans.console import Progress, no_progress
from ramstrans.data.loading.loader import ImageLoader, worker_errors
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import StoppedError, TrainingError
from ramstrans.evaluation.metrics import classification_metrics
from ramstrans.evaluation.predict import predict_split
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.training.checkpoint import Checkpoints
from ramstrans.training.config import TrainingConfig
from ramstrans.training.ema import build_ema, register_ema
from ramstrans.training.interrupts import SignalHandler
from ramstrans.training.log import MetricsLog
from ramstrans.training.shares import full_state_dict, materialize, to_meta
from ramstrans.training.state import RunState
from ramstrans.training.step import StepResult, build_train_step
from ramstrans.training.trainable import merged_state_dict, set_train_mode, set_trainable

LOG_EVERY = 10
"""Steps between rows of metrics.jsonl."""
MAX_NAMED = 8
"""Images named in an error."""


class TrainResult(NamedTuple):
    """How a training run ended.

    Attributes:
        weights: Of the chosen epoch, on the CPU.
        epoch: The chosen epoch, from 1.
        chosen_on: `validation` or `last epoch`.
        steps: Optimiser steps taken.
        num_skipped: How many of them left the weights alone, because something was not finite.
        seconds: Wall-clock time of the training, evaluations included.
    """

    weights: dict[str, Tensor]
    epoch: int
    chosen_on: str
    steps: int
    num_skipped: int
    seconds: float


class Components(NamedTuple):
    """What a run is made of.

    Attributes:
        model: On any device.
        train_loader: The training images, shared between the processes.
        val_loader: The validation images, dealt to the processes, or None.
        preprocessing: Mean and standard deviation of the model's input.
        config: The recipe.
        accelerator: Devices, processes and precision.
        log: Where rows go.
        checkpoints: Where the run is saved, or None.
    """

    model: RamsTrans
    train_loader: ImageLoader
    val_loader: ImageLoader | None
    preprocessing: Preprocessing
    config: TrainingConfig
    accelerator: Accelerator
    log: MetricsLog
    checkpoints: Checkpoints | None = None


def run_training(
    parts: Components,
    state: RunState | None = None,
    progress: Progress = no_progress,
    say: Callable[[str], None] = lambda _: None,
    interrupts: SignalHandler | None = None,
) -> TrainResult:
    """Train; choose the best epoch on the validation part, or take the last where there is none.

    Args:
        parts: What the run is made of.
        state: Where the run stands: at a checkpoint after some steps, or at its start. None: at its start.
        progress: Told after each step.
        say: Told of skipped steps.
        interrupts: Which signal has come already; None: none.

    Raises:
        StoppedError: A signal came; the run is saved.
        TrainingError: Too many steps in a row were not finite.
        OutputError: A checkpoint cannot be written.
    """
    fitting = TrainLoop(parts, state, interrupts or SignalHandler())
    with fitting.interrupts.installed(), worker_errors(parts.train_loader.dataset.files_being_read):
        while fitting.state.step < fitting.total_steps:
            fitting.train_epoch(progress, say)
    return fitting.result()


class TrainLoop:
    """A run under way."""

    def __init__(self, parts: Components, state: RunState | None, interrupts: SignalHandler) -> None:
        model, config, accelerator = parts.model, parts.config, parts.accelerator
        self.parts = parts
        self.interrupts = interrupts
        self.steps_per_epoch = len(parts.train_loader)
        self.total_steps = min(config.epochs * self.steps_per_epoch, config.max_steps or sys.maxsize)
        set_trainable(model, config, parts.train_loader.batch_sampler.seed)
        self.to_meta = to_meta(model) if accelerator.is_fsdp2 else None  # before it is shared
        self.stepper = build_train_step(model, config, accelerator, self.total_steps, self.steps_per_epoch)
        accelerator.register_for_checkpointing(self.stepper.schedule)
        self.ema = None
        if config.ema_decay:
            copied = model if self.to_meta is None else materialize(self.to_meta, model.state_dict())
            self.ema = build_ema(copied, config.ema_decay)
            register_ema(self.ema, accelerator)
        self.state = state or RunState()
        self.chosen: dict[str, Tensor] | None = None
        if self.state.step:
            assert parts.checkpoints is not None, "steps were taken before a checkpoint"
            self.chosen = parts.checkpoints.load(accelerator, self.state)
        parts.log.cut(self.state.log_bytes)
        self.start = time.perf_counter() - self.state.seconds

    def train_epoch(self, progress: Progress, say: Callable[[str], None]) -> None:
        """Take the steps of an epoch that are left; validate and save when it is time."""
        loader, state, parts = self.parts.train_loader, self.state, self.parts
        batches = loader.batch_sampler
        batches.epoch, batches.first_batch = divmod(state.step, self.steps_per_epoch)
        epoch = batches.epoch + 1
        set_train_mode(parts.model)
        watch = Throughput()
        for batch in loader:
            result = self.stepper.step(batch, parts.preprocessing, stop=bool(self.interrupts.received))
            state.step += 1
            if self.ema is not None and not result.was_skipped:
                self.ema.update_parameters(parts.model)
            watch.num_images += batch.weight[1]
            self.count_skipped(result, [int(index) for index in batch.indices], say)
            if state.step % LOG_EVERY == 0 or state.step == self.total_steps:
                row = train_row(result, state.step, epoch) | {"images_per_second": watch.per_second()}
                parts.log.write(row, state.step)
                watch = Throughput()
            is_last = state.step == self.total_steps
            self.validate_and_save(epoch, epoch_ends=is_last or batch.key[2] == self.steps_per_epoch - 1)
            progress(state.step, self.total_steps, f"epoch {epoch}")
            if result.stop and not is_last:
                self.stop()
            if is_last:
                break

    def count_skipped(self, result: StepResult, indices: list[int], say: Callable[[str], None]) -> None:
        """Keep count of steps that were not finite, and end the run after too many in a row."""
        state = self.state
        if not result.was_skipped:
            state.skipped_in_a_row = 0
            return
        state.num_skipped += 1
        if self.parts.accelerator.scaler is not None and math.isfinite(result.loss):
            return  # fp16 finding its scale
        state.skipped_in_a_row += 1
        dataset = self.parts.train_loader.dataset
        images = [str(dataset.records[index].path) for index in indices]
        row = {"kind": "skipped", "step": state.step, "loss_is": str(result.loss), "lr": result.lr}
        self.parts.log.write(row | {"images": images}, state.step)
        say(f"step {state.step} was skipped: the loss is {result.loss}, or a gradient is not finite")
        too_many = state.skipped_in_a_row > self.parts.config.max_skipped_steps
        if too_many or state.step == self.total_steps:  # a run that ends like this is no success
            more = f" and {len(images) - MAX_NAMED} more" if len(images) > MAX_NAMED else ""
            raise TrainingError(
                f"the loss or a gradient was not finite in {state.skipped_in_a_row} steps in a row, last "
                f"(loss {result.loss}) at step {state.step} with learning rate {result.lr:.3g} and images "
                f"{', '.join(images[:MAX_NAMED])}{more}; lower training.lr, lengthen training.warmup_steps, "
                "or take training.precision bf16 or fp32"
            )

    def validate_and_save(self, epoch: int, *, epoch_ends: bool) -> None:
        """Validate at the end of an epoch, if it is its turn; write a checkpoint if one is due."""
        state, config = self.state, self.parts.config
        is_last = state.step == self.total_steps
        if (
            self.parts.val_loader is not None
            and epoch_ends
            and (is_last or epoch % config.evaluate_every == 0)
        ):
            self.validate(epoch)
        every = config.checkpoint_every
        is_due = epoch_ends if every is None else every > 0 and (state.step % every == 0 or is_last)
        if is_due or (every != 0 and state.best_step == state.step):
            self.save()

    def validate(self, epoch: int) -> None:
        """Judge the weights on the validation part; keep them if they are the best so far."""
        parts, state = self.parts, self.state
        assert parts.val_loader is not None
        judged = self.judged()
        row = validate(judged, parts.val_loader, parts.preprocessing, parts.config.precision, epoch)
        parts.log.write(row, state.step)
        set_train_mode(parts.model)
        if row["top1_fused"] > state.best_score:
            state.best_score, state.best_epoch, state.best_step = row["top1_fused"], epoch, state.step
            self.chosen = merged_state_dict(judged)

    def judged(self) -> RamsTrans:
        """The model that would be chosen now, whole, on its device; one that is shared is gathered anew."""
        model = self.parts.model if self.ema is None else cast(RamsTrans, self.ema.module)
        return (
            model if self.to_meta is None else materialize(self.to_meta, full_state_dict(model.state_dict()))
        )

    def save(self) -> None:
        """Write a checkpoint."""
        state, checkpoints = self.state, self.parts.checkpoints
        if checkpoints is None:
            return
        state.seconds = time.perf_counter() - self.start
        state.log_bytes = self.parts.log.num_bytes()
        is_best = state.best_step == state.step
        checkpoints.save(self.parts.accelerator, state, self.chosen if is_best else None)

    def stop(self) -> None:
        """Save, and raise StoppedError."""
        number = self.interrupts.received or signal.SIGTERM
        stopped = (
            f"stopped by {signal.Signals(number).name} after step {self.state.step} of {self.total_steps}"
        )
        checkpoints = self.parts.checkpoints
        if checkpoints is None:
            raise StoppedError(f"{stopped}; nothing was saved (training.checkpoint_every 0)", number)
        if self.state.step not in checkpoints.steps():
            self.save()
        run = checkpoints.folder.parent
        raise StoppedError(f"{stopped}; saved: go on with `ramstrans train --resume {run}`", number)

    def result(self) -> TrainResult:
        """How the run ended."""
        state = self.state
        on_validation = self.parts.val_loader is not None
        return TrainResult(
            weights=self.chosen if self.chosen is not None else merged_state_dict(self.judged()),
            epoch=state.best_epoch if on_validation else -(-state.step // self.steps_per_epoch),
            chosen_on="validation" if on_validation else "last epoch",
            steps=state.step,
            num_skipped=state.num_skipped,
            seconds=time.perf_counter() - self.start,
        )


class Throughput:
    """How many images a second, since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.num_images = 0

    def per_second(self) -> float:
        """Images a second."""
        return self.num_images / (time.perf_counter() - self.start)


def train_row(result: StepResult, step: int, epoch: int) -> dict[str, Any]:
    """One row of metrics.jsonl about a training step; what is not finite is null."""
    return {
        "kind": "train",
        "step": step,
        "epoch": epoch,
        "loss": finite(result.loss),
        "loss_scales": [finite(part) for part in result.scales],
        "lr": result.lr,
    }


def finite(number: float) -> float | None:
    """The number, or None where JSON has none for it.

    >>> finite(0.5), finite(float("nan"))
    (0.5, None)
    """
    return number if abs(number) < float("inf") else None


def validate(
    model: RamsTrans,
    loader: ImageLoader,
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
