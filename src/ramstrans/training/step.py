"""One optimiser step, whatever the number of processes and micro-batches."""

import math
import warnings
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ramstrans.data.loading.dataset import Batch
from ramstrans.models.methods.base import HighRes
from ramstrans.models.methods.method import Method
from ramstrans.training.config import TrainingConfig
from ramstrans.training.losses import ScaleForward, losses_by_scale
from ramstrans.training.mixing import draw_mixing, mixing_generator
from ramstrans.training.optim import build_optimizer, schedule_factor


class StepResult(NamedTuple):
    """What one step gave.

    Attributes:
        loss: Weighted sum over scales, mean over the images of all processes.
        scales: Loss of each scale, before weighting.
        lr: The learning rate that was used.
        was_skipped: Whether the weights were left unchanged, because the loss or a gradient was not finite.
        stop: Whether any process was asked to stop.
    """

    loss: float
    scales: tuple[float, ...]
    lr: float
    was_skipped: bool
    stop: bool


class MicroBatch(NamedTuple):
    """Some of a process's images of a step, which pass together.

    Attributes:
        images: (B, 3, H, W), normalised.
        high_res: As in `Method.forward`.
        labels: (B,) int64, or (B, num_classes) float32, see `losses_by_scale`.
        share: Of the step's loss, in [0, 1].
        boxes: As in `Method.forward`.
    """

    images: Tensor
    high_res: HighRes | None
    labels: Tensor
    share: float
    boxes: Tensor | None = None


class TrainStep(NamedTuple):
    """What an optimiser step needs.

    Attributes:
        forward_scale: One scale of `model`, prepared by Accelerate.
        model: The model itself.
        optimizer: Prepared by Accelerate.
        schedule: Of its learning rate; moves on in skipped steps too.
        config: The recipe.
        accelerator: Devices, processes and precision.
        class_weights: (num_classes,) factors on the cross-entropy by class, on the device; None: 1 each.
    """

    forward_scale: nn.Module
    model: Method
    optimizer: Optimizer
    schedule: LambdaLR
    config: TrainingConfig
    accelerator: Accelerator
    class_weights: Tensor | None = None

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Weight of each scale's loss."""
        return self.config.loss_weights or (1.0,) * self.model.num_trained

    @property
    def contrastive(self) -> float:
        """Weight of the contrastive loss: as given, or that of the method."""
        given = self.config.contrastive
        return self.model.contrastive if given is None else given

    def run(self, batch: Batch, *, stop: bool = False) -> StepResult:
        """Forward and backward, by micro-batch and scale; clip; step, if everything is finite.

        Args:
            batch: This process's images of the step; its key determines how they are mixed.
            stop: Whether this process was asked to stop.
        """
        generator = mixing_generator(*batch.key, self.accelerator.process_index)
        losses = self._backward(self._micro_batches(batch), generator)
        # The norm is needed even where nothing is clipped: it says whether every gradient is finite.
        limit = self.config.gradient_clip or math.inf
        norm = self.accelerator.clip_grad_norm_(self.forward_scale.parameters(), limit)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # FSDP has a shard of it
        sums = self.accelerator.reduce(torch.cat([losses, losses.new_tensor([float(stop)])]), "sum")
        *scales, num_stopping = sums.tolist()
        loss = sum(weight * part for weight, part in zip(self.loss_weights, scales, strict=True))
        lr = float(self.schedule.get_last_lr()[0])
        was_skipped = not (math.isfinite(loss) and math.isfinite(norm))
        if self.accelerator.scaler is not None:  # skips by itself, and lowers its scale then
            self.optimizer.step()
            was_skipped |= self.accelerator.optimizer_step_was_skipped  # of fused ones it does not know
        elif not was_skipped:
            self.optimizer.step()
        with warnings.catch_warnings():
            # If the very first step is skipped, the schedule takes that for a mistake in the order of calls.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.schedule.step()
        self.optimizer.zero_grad()
        return StepResult(loss, tuple(scales), lr, was_skipped, num_stopping > 0)

    def _micro_batches(self, batch: Batch) -> list[MicroBatch]:
        """This process's images in as many micro-batches as every other process has, since FSDP's wait.

        A process that has an image less than others, and so fewer than there are micro-batches, fills in with
        its first one, which does not count.
        """
        device, num_images, (own, whole) = self.accelerator.device, len(batch.labels), batch.weight
        images, high_res = self.model.normalize(batch.images, batch.high_res)
        labels = batch.labels.to(device, non_blocking=True)
        most = math.ceil(whole / self.accelerator.num_processes)
        micro_batches = []
        for indices in np.array_split(
            np.arange(num_images), min(self.config.gradient_accumulation_steps, most)
        ):
            some = slice(indices[0], indices[-1] + 1) if len(indices) else slice(1)
            share = own / whole * len(indices) / num_images
            more = None if high_res is None else high_res[some]
            boxes = None if batch.boxes is None else batch.boxes[some]
            micro_batches.append(MicroBatch(images[some], more, labels[some], share, boxes))
        return micro_batches

    def _backward(self, micro_batches: list[MicroBatch], generator: np.random.Generator) -> Tensor:
        """Sum the gradients of all micro-batches and scales; return (S,) float32, this process's losses."""
        weights, config = self.loss_weights, self.config
        totals = torch.zeros(len(weights), device=self.accelerator.device)
        for number, micro_batch in enumerate(micro_batches, start=1):
            mixing = draw_mixing(
                len(micro_batch.labels),
                self.model.image_size,
                generator,
                mixup=config.mixup,
                cutmix=config.cutmix,
                probability=config.mixing_probability,
            )
            losses = losses_by_scale(
                self.forward_scale,
                self.model,
                micro_batch.images,
                micro_batch.high_res,
                micro_batch.labels,
                label_smoothing=config.label_smoothing,
                mixing=mixing,
                contrastive=self.contrastive,
                class_weights=self.class_weights,
                boxes=micro_batch.boxes,
                fused_target=config.fused_target if len(weights) > 1 else 0.0,
                loss_name=config.loss,
            )
            for scale, weight in enumerate(weights):
                # Processes exchange their gradients once, with the last micro-batch's last scale.
                is_last = number == len(micro_batches) and scale == len(weights) - 1
                with nullcontext() if is_last else self.accelerator.no_sync(self.forward_scale):
                    loss = micro_batch.share * next(losses)
                    # Gradients are averaged over the processes; the sum of their shares is wanted.
                    self.accelerator.backward(weight * self.accelerator.num_processes * loss)
                totals[scale] += loss.detach()
        return totals


def uses_explicit_attention(config: TrainingConfig, device: torch.device) -> bool:
    """Whether attention is computed by matrix products in training, see `TrainingConfig.attention`."""
    if config.attention != "auto":
        return config.attention == "math"
    return device.type == "cpu" and config.precision == "bf16" and not config.gradient_checkpointing


def build_train_step(
    model: Method,
    config: TrainingConfig,
    accelerator: Accelerator,
    total_steps: int,
    steps_per_epoch: int = 1,
    class_weights: Tensor | None = None,
) -> TrainStep:
    """Put a model, and an optimiser of its trained weights, on devices and processes.

    Args:
        model: Its parts frozen and its adapters added; with FSDP2 its weights become shards.
        config: The recipe.
        accelerator: Devices, processes and precision.
        total_steps: Of the run.
        steps_per_epoch: For a warm-up that is given in epochs.
        class_weights: (num_classes,) factors on the cross-entropy by class; None: 1 each.
    """
    model.encoder.set_grad_checkpointing(config.gradient_checkpointing)
    model.encoder.set_channels_last(config.channels_last)
    module = ScaleForward(
        model,
        config.precision if accelerator.is_fsdp2 else None,  # else Accelerate sees to it
        explicit_attention=uses_explicit_attention(config, accelerator.device),
    )
    forward_scale, optimizer = accelerator.prepare(module, build_optimizer(model, config))
    schedule = LambdaLR(optimizer, schedule_factor(config, total_steps, steps_per_epoch))
    if class_weights is not None:
        class_weights = class_weights.to(accelerator.device)
    return TrainStep(forward_scale, model, optimizer, schedule, config, accelerator, class_weights)
