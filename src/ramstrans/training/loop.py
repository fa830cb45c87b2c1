"""The one training loop."""

import logging
import math
import signal
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from accelerate import Accelerator
from torch import Tensor

from ramstrans.console import Progress, no_progress
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.loading.loader import ImageLoader
from ramstrans.distributed import SignalHandler, full_state_dict, materialize, to_meta
from ramstrans.errors import StoppedError, TrainingError, first_few
from ramstrans.evaluation.metrics import classification_metrics
from ramstrans.evaluation.predict import predict_split
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.training.checkpoint import Checkpoints, RunState
from ramstrans.training.config import TrainingConfig
from ramstrans.training.ema import build_ema, register_ema
from ramstrans.training.log import MetricsLog
from ramstrans.training.memory import OUT_OF_MEMORY, is_out_of_memory
from ramstrans.training.optim import continue_schedule, num_steps
from ramstrans.training.step import StepResult, build_train_step
from ramstrans.training.trainable import merged_state_dict, set_train_mode, set_trainable

LOG_EVERY = 10
"""Steps between rows of metrics.jsonl."""
MAX_NAMED = 8
"""Images named in an error."""

logger = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """How a training run ended.

    Attributes:
        weights: Of the chosen epoch, on the CPU.
        epoch: The chosen epoch, from 1.
        chosen_on: `validation` or `last epoch`.
        steps: Optimiser steps taken.
        num_skipped: How many of them left the weights unchanged, because something was not finite.
        seconds: Wall-clock time of the training to a tenth, evaluations included.
    """

    weights: dict[str, Tensor]
    epoch: int
    chosen_on: str
    steps: int
    num_skipped: int
    seconds: float


@dataclass
class TrainLoop:
    """A run under way: steps, validation, checkpoints.

    Attributes:
        model: On any device.
        train_loader: The training images, shared between the processes.
        val_loader: The validation images, distributed over the processes, or None.
        config: The recipe.
        accelerator: Devices, processes and precision.
        log: Where rows go.
        checkpoints: Where the run is saved, or None.
        state: Where the run stands: at its start, or at a checkpoint, which `run` loads.
        signals: Which signal has come already.
    """

    model: RamsTrans
    train_loader: ImageLoader
    val_loader: ImageLoader | None
    config: TrainingConfig
    accelerator: Accelerator
    log: MetricsLog
    checkpoints: Checkpoints | None = None
    state: RunState = field(default_factory=RunState)
    signals: SignalHandler = field(default_factory=SignalHandler)

    def __post_init__(self) -> None:
        model, config, accelerator = self.model, self.config, self.accelerator
        self.steps_per_epoch = len(self.train_loader)
        self.total_steps = self.state.total_steps = num_steps(config, self.steps_per_epoch)
        set_trainable(model, config, self.train_loader.batch_sampler.seed)
        self.empty_model = to_meta(model) if accelerator.is_fsdp2 else None  # before it is sharded
        self.train_step = build_train_step(model, config, accelerator, self.total_steps, self.steps_per_epoch)
        accelerator.register_for_checkpointing(self.train_step.schedule)
        self.ema = None
        if config.ema_decay:
            copied = model if self.empty_model is None else materialize(self.empty_model, model.state_dict())
            self.ema = build_ema(copied, config.ema_decay)
            register_ema(self.ema, accelerator)
        self.best_weights: dict[str, Tensor] | None = None

    def run(self, progress: Progress = no_progress) -> TrainResult:
        """Train; choose the best epoch on the validation part, or take the last one if there is none.

        Args:
            progress: Called after each step.

        Raises:
            StoppedError: A signal came; the run is saved.
            TrainingError: Too many steps in a row were not finite.
            OutputError: A checkpoint cannot be written.
        """
        if self.state.step:
            assert self.checkpoints is not None, "steps were taken before a checkpoint"
            self.best_weights = self.checkpoints.load(self.accelerator, self.state)
            continue_schedule(self.train_step.schedule)
        self.log.cut(self.state.log_bytes)
        self.start = time.perf_counter() - self.state.seconds
        with self.signals.installed():
            while self.state.step < self.total_steps:
                self.train_epoch(progress)
        return self.result()

    def train_epoch(self, progress: Progress) -> None:
        """Take the remaining steps of an epoch; validate and save when due."""
        state, batches = self.state, self.train_loader.batch_sampler
        batches.epoch, batches.first_batch = divmod(state.step, self.steps_per_epoch)
        epoch = batches.epoch + 1
        set_train_mode(self.model)
        num_images, since = 0, time.perf_counter()
        for batch in self.train_loader:
            result = self.take_step(batch)
            is_last = state.step == self.total_steps
            num_images += batch.weight[1]
            if state.step % LOG_EVERY == 0 or is_last:
                seconds = time.perf_counter() - since
                row = {"kind": "train", "step": state.step, "epoch": epoch, "loss": result.loss}
                row |= {"loss_scales": result.scales, "lr": result.lr}
                self.log.write(row | {"images_per_second": num_images / seconds}, state.step)
                num_images, since = 0, time.perf_counter()
            self.validate_and_save(epoch, epoch_ends=is_last or batch.key[2] == self.steps_per_epoch - 1)
            progress(state.step, self.total_steps, f"epoch {epoch}")
            if result.stop and not is_last:
                self.stop()
            if is_last:
                break

    def take_step(self, batch: Batch) -> StepResult:
        """Take one step; move the average, or count a step that was skipped."""
        try:
            result = self.train_step.run(batch, stop=bool(self.signals.received))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise TrainingError(OUT_OF_MEMORY) from error
            raise
        self.state.step += 1
        if result.was_skipped:
            self.count_skipped(result, batch)
        else:
            self.state.skipped_in_a_row = 0
            if self.ema is not None:
                self.ema.update_parameters(self.model)
        return result

    def count_skipped(self, result: StepResult, batch: Batch) -> None:
        """Count a step that was not finite, and end the run after too many in a row."""
        state = self.state
        state.num_skipped += 1
        if self.accelerator.scaler is not None and math.isfinite(result.loss):
            return  # fp16 finding its scale
        state.skipped_in_a_row += 1
        images = [str(self.train_loader.dataset.records[index].path) for index in batch.indices]
        row = {"kind": "skipped", "step": state.step, "loss_is": str(result.loss), "lr": result.lr}
        self.log.write(row | {"images": images}, state.step)
        logger.warning(
            "step %d was skipped: the loss is %s, or a gradient is not finite", state.step, result.loss
        )
        too_many = state.skipped_in_a_row > self.config.max_skipped_steps
        if too_many or state.step == self.total_steps:  # a run that ends like this has failed
            raise TrainingError(
                f"the loss or a gradient was not finite in {state.skipped_in_a_row} steps in a row, last "
                f"(loss {result.loss}) at step {state.step} with learning rate {result.lr:.3g} and images "
                f"{first_few(images, MAX_NAMED)}; lower training.lr, lengthen training.warmup_steps, "
                "or take training.precision bf16 or fp32"
            )

    def validate_and_save(self, epoch: int, *, epoch_ends: bool) -> None:
        """Validate at the end of an epoch, if it is its turn; write a checkpoint if one is due."""
        state, config = self.state, self.config
        is_last = state.step == self.total_steps
        is_turn = is_last or epoch % config.evaluate_every == 0
        if self.val_loader is not None and epoch_ends and is_turn:
            self.validate(epoch)
        every = config.checkpoint_every
        is_due = epoch_ends if every is None else every > 0 and (state.step % every == 0 or is_last)
        if is_due or (every != 0 and state.best_step == state.step):
            self.save()

    def validate(self, epoch: int) -> None:
        """Evaluate the weights on the validation part; keep them if they are the best so far."""
        assert self.val_loader is not None
        model, state = self.evaluated_model(), self.state
        row = validate(model, self.val_loader, self.config.precision, epoch)
        self.log.write(row, state.step)
        set_train_mode(self.model)
        if row["top1_fused"] > state.best_score:
            state.best_score, state.best_epoch, state.best_step = row["top1_fused"], epoch, state.step
            self.best_weights = merged_state_dict(model)

    def evaluated_model(self) -> RamsTrans:
        """The model that would be chosen now, whole, on its device; a sharded one is gathered."""
        model = self.model if self.ema is None else cast(RamsTrans, self.ema.module)
        if self.empty_model is None:
            return model
        return materialize(self.empty_model, full_state_dict(model.state_dict()))

    def save(self) -> None:
        """Write a checkpoint."""
        if self.checkpoints is None:
            return
        state = self.state
        state.seconds = time.perf_counter() - self.start
        state.log_bytes = self.log.num_bytes()
        is_best = state.best_step == state.step
        self.checkpoints.save(self.accelerator, state, self.best_weights if is_best else None)

    def stop(self) -> None:
        """Save, and raise StoppedError."""
        number = self.signals.received or signal.SIGTERM
        stopped = (
            f"stopped by {signal.Signals(number).name} after step {self.state.step} of {self.total_steps}"
        )
        if self.checkpoints is None:
            raise StoppedError(f"{stopped}; nothing was saved (training.checkpoint_every 0)", number)
        if self.state.step not in self.checkpoints.steps():
            self.save()
        run = self.checkpoints.folder.parent
        raise StoppedError(f"{stopped}; saved: go on with `ramstrans train --resume {run}`", number)

    def result(self) -> TrainResult:
        """How the run ended."""
        state, on_validation = self.state, self.val_loader is not None
        weights = self.best_weights
        return TrainResult(
            weights=merged_state_dict(self.evaluated_model()) if weights is None else weights,
            epoch=state.best_epoch if on_validation else -(-state.step // self.steps_per_epoch),
            chosen_on="validation" if on_validation else "last epoch",
            steps=state.step,
            num_skipped=state.num_skipped,
            seconds=round(time.perf_counter() - self.start, 1),
        )


def validate(model: RamsTrans, loader: ImageLoader, precision: str, epoch: int) -> dict[str, Any]:
    """One row of metrics.jsonl about the validation part."""
    predictions = predict_split(model, loader, precision=precision)
    scales = [classification_metrics(p, predictions.labels).top1 for p in predictions.probabilities]
    fused = classification_metrics(predictions.fused, predictions.labels).top1
    return {"kind": "validation", "epoch": epoch, "top1_scales": scales, "top1_fused": fused}
