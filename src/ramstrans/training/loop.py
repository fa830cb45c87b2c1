"""The one training loop."""

import logging
import math
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from ramstrans.console import Progress, no_progress
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.loading.loader import ImageLoader
from ramstrans.distributed import SignalHandler, full_state_dict, materialize, to_meta
from ramstrans.errors import StoppedError, TrainingError, first_few
from ramstrans.evaluation.predict import predict_split
from ramstrans.models.methods.method import Method
from ramstrans.plain import counted
from ramstrans.training.checkpoint import Checkpoints, RunState
from ramstrans.training.config import TrainingConfig
from ramstrans.training.ema import build_ema, register_ema
from ramstrans.training.log import MetricsLog, epoch_line
from ramstrans.training.losses import balanced_class_weights, positive_weights
from ramstrans.training.memory import out_of_memory_errors
from ramstrans.training.optim import continue_schedule, num_steps
from ramstrans.training.run_folder import resume_hint
from ramstrans.training.step import StepResult, build_train_step
from ramstrans.training.trainable import merged_state_dict, set_train_mode, set_trainable
from ramstrans.training.validation import choice_warnings, rank, validation_row

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
        stopped_early: Whether `training.patience` ended it.
        l2: Strength of a linear probe's regularisation; None if there was none.
        warnings: What a reader of the results must know, one line each.
    """

    weights: dict[str, Tensor]
    epoch: int
    chosen_on: str
    steps: int
    num_skipped: int
    seconds: float
    stopped_early: bool = False
    l2: float | None = None
    warnings: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Everything but the weights, and what does not apply."""
        values = {key: value for key, value in self._asdict().items() if key != "weights"}
        return {key: value for key, value in values.items() if value is not None}


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

    model: Method
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
        class_weights = None
        if config.class_weights == "balanced":
            records, num_classes = self.train_loader.dataset.records, model.encoder.num_classes
            if model.multi_label:
                class_weights = positive_weights([record.classes for record in records], num_classes)
            else:
                labels = torch.tensor([record.label for record in records])
                class_weights = balanced_class_weights(labels, num_classes)
        self.train_step = build_train_step(
            model, config, accelerator, self.total_steps, self.steps_per_epoch, class_weights
        )
        accelerator.register_for_checkpointing(self.train_step.schedule)
        self.ema = None
        if config.ema_decay:
            copied = model if self.empty_model is None else materialize(self.empty_model, model.state_dict())
            self.ema = build_ema(copied, config.ema_decay)
            register_ema(self.ema, accelerator)
        self.best_weights: dict[str, Tensor] | None = None
        if config.patience is not None and self.val_loader is None:
            logger.warning("training.patience is ignored: there are no validation images")

    @property
    def stopped_early(self) -> bool:
        """Whether there were as many evaluations without a better epoch as `patience` says."""
        return self.config.patience is not None and self.state.num_not_better >= self.config.patience

    @property
    def is_over(self) -> bool:
        """Whether no step follows."""
        return self.state.step == self.total_steps or self.stopped_early

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
            if self.stopped_early:
                logger.warning(
                    "nothing is trained: training.patience ended this run at step %d", self.state.step
                )
        self.log.cut(self.state.log_bytes)
        self.start = time.perf_counter() - self.state.seconds
        with self.signals.installed():
            while not self.is_over:
                self.train_epoch(progress)
        return self.result()

    def train_epoch(self, progress: Progress) -> None:
        """Take the remaining steps of an epoch; validate and save when due."""
        state, batches = self.state, self.train_loader.batch_sampler
        batches.epoch, batches.first_batch = divmod(state.step, self.steps_per_epoch)
        if batches.first_batch == 0:
            state.epoch_loss, state.epoch_images = 0.0, 0
        epoch = batches.epoch + 1
        set_train_mode(self.model)
        whole, latest = Speed(), Speed()
        for batch in self.train_loader:
            result = self.take_step(batch)
            is_last = state.step == self.total_steps
            whole.num_images += batch.weight[1]
            latest.num_images += batch.weight[1]
            if state.step % LOG_EVERY == 0 or is_last:
                row = {"kind": "train", "step": state.step, "epoch": epoch, "loss": result.loss}
                row |= {"loss_scales": result.scales, "lr": result.lr}
                self.log.write(row | {"images_per_second": latest.images_per_second()}, state.step)
                latest = Speed()
            epoch_ends = is_last or batch.key[2] == self.steps_per_epoch - 1
            if epoch_ends:
                self.finish_epoch(epoch, result.lr, whole.images_per_second())
            self.save_if_due(epoch_ends=epoch_ends)
            progress(state.step, self.total_steps, f"epoch {epoch}, loss {self.epoch_loss():.3f}")
            if self.is_over:
                break
            if result.stop:
                self.stop()

    def epoch_loss(self) -> float:
        """Mean loss of the images of the current epoch so far, those of skipped steps left out."""
        return self.state.epoch_loss / self.state.epoch_images if self.state.epoch_images else math.nan

    def take_step(self, batch: Batch) -> StepResult:
        """Take one step; move the average, or count a step that was skipped."""
        model, is_found = self.model, self.model.region_placement in ("found", "centre")
        elsewhere = is_found and batch.key[1] < self.config.random_region_epochs
        with out_of_memory_errors(), model.placed_at_random() if elsewhere else nullcontext():
            result = self.train_step.run(batch, stop=bool(self.signals.received))
        self.state.step += 1
        if result.was_skipped:
            self.count_skipped(result, batch)
        else:
            self.state.skipped_in_a_row = 0
            self.state.epoch_loss += result.loss * batch.weight[1]
            self.state.epoch_images += batch.weight[1]
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
                f"the loss or a gradient was not finite in {counted(state.skipped_in_a_row, 'step')} "
                f"in a row, last (loss {result.loss}) at step {state.step} with learning rate "
                f"{result.lr:.3g} and images "
                f"{first_few(images, MAX_NAMED)}; lower training.lr, lengthen training.warmup_steps, "
                "or take training.precision bf16 or fp32"
            )

    def finish_epoch(self, epoch: int, lr: float, images_per_second: float) -> None:
        """Validate, if it is the epoch's turn; log the epoch in one line."""
        state, row = self.state, None
        is_turn = state.step == self.total_steps or epoch % self.config.evaluate_every == 0
        if self.val_loader is not None and is_turn:
            row = self.validate(epoch)
        seconds = (time.perf_counter() - self.start) / state.step
        line = epoch_line(
            epoch,
            math.ceil(self.total_steps / self.steps_per_epoch),
            self.epoch_loss(),
            row,
            lr,
            images_per_second,
            seconds * (self.total_steps - state.step),
        )
        logger.info(line)
        if self.stopped_early:
            stopped = {"kind": "stopped", "step": state.step, "epoch": epoch, "best_epoch": state.best_epoch}
            self.log.write(stopped | {"num_not_better": state.num_not_better}, state.step)
            logger.info(
                "training stops: %d evaluations without a better epoch than %d (training.patience)",
                state.num_not_better,
                state.best_epoch,
            )

    def save_if_due(self, *, epoch_ends: bool) -> None:
        """Write a checkpoint, if one is due."""
        state, every = self.state, self.config.checkpoint_every
        is_due = epoch_ends if every is None else every > 0 and (state.step % every == 0 or self.is_over)
        if is_due or (every != 0 and state.best_step == state.step):
            self.save()

    def validate(self, epoch: int) -> dict[str, Any]:
        """Evaluate the weights on the validation part; keep them if none were better. Returns the row."""
        assert self.val_loader is not None
        model, state = self.evaluated_model(), self.state
        row = validate(model, self.val_loader, self.config.precision, epoch)
        best = state.best_score, -state.best_loss
        state.num_not_better = 0 if rank(row) > best else state.num_not_better + 1
        row["is_best"] = rank(row) >= best  # of equal epochs the last, which was trained the longest
        self.log.write(row, state.step)
        set_train_mode(self.model)
        if row["is_best"]:
            state.best_score, state.best_loss = rank(row)[0], row["loss_fused"]
            state.best_epoch, state.best_step = epoch, state.step
            self.best_weights = merged_state_dict(model)
        return row

    def evaluated_model(self) -> Method:
        """The model that would be chosen now, whole, on its device; a sharded one is gathered."""
        model = self.model if self.ema is None else cast(Method, self.ema.module)
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
        raise StoppedError(f"{stopped}; saved: {resume_hint(self.checkpoints.folder.parent)}", number)

    def result(self) -> TrainResult:
        """How the run ended."""
        state, weights, warnings = self.state, self.best_weights, []
        if self.val_loader is not None:
            chosen = f"epoch {state.best_epoch}"
            num_images = len(self.val_loader.dataset)
            top1 = None if self.model.multi_label else state.best_score
            warnings = choice_warnings(chosen, top1, num_images, "the last epoch is taken")
        return TrainResult(
            weights=merged_state_dict(self.evaluated_model()) if weights is None else weights,
            epoch=state.best_epoch or -(-state.step // self.steps_per_epoch),
            chosen_on="last epoch" if self.val_loader is None else "validation",
            steps=state.step,
            num_skipped=state.num_skipped,
            seconds=round(time.perf_counter() - self.start, 1),
            stopped_early=self.stopped_early,
            warnings=tuple(warnings),
        )


class Speed:
    """Images per second since it was made; `num_images` is to be counted up."""

    def __init__(self) -> None:
        self.num_images, self.since = 0, time.perf_counter()

    def images_per_second(self) -> float:
        """So far."""
        return self.num_images / (time.perf_counter() - self.since)


def validate(model: Method, loader: ImageLoader, precision: str, epoch: int) -> dict[str, Any]:
    """One row of metrics.jsonl about the validation part."""
    predictions = predict_split(model, loader, precision=precision)
    scores = validation_row(predictions.probabilities, predictions.labels)
    return {"kind": "validation", "epoch": epoch} | scores
