"""One optimiser step, whatever the number of processes and parts it is taken in."""

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
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import TrainingError
from ramstrans.evaluation.predict import normalized
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.training.config import TrainingConfig
from ramstrans.training.losses import Look, losses_by_scale
from ramstrans.training.mixing import draw_mixing, mixing_generator
from ramstrans.training.optim import build_optimizer, build_schedule
from ramstrans.training.out_of_memory import advice, out_of_memory


class StepResult(NamedTuple):
    """What one step was.

    Attributes:
        loss: Weighted sum over scales, mean over the images of all processes.
        scales: Each scale's part, before weighting.
        lr: The learning rate that was used.
        was_skipped: Whether the weights were left as they are, because the loss or a gradient was not
            finite.
        stop: Whether any process was asked to stop.
    """

    loss: float
    scales: tuple[float, ...]
    lr: float
    was_skipped: bool
    stop: bool


class Part(NamedTuple):
    """Some of a process's images of a step, which pass together.

    Attributes:
        images: (B, 3, H, W), normalised.
        high_res: As in `RamsTrans.forward`.
        labels: (B,) int64.
        share: Of the step's loss, in [0, 1].
    """

    images: Tensor
    high_res: Tensor | None
    labels: Tensor
    share: float


class TrainStep(NamedTuple):
    """What an optimiser step needs.

    Attributes:
        look: One look of `model`, prepared by Accelerate.
        model: The model itself.
        optimizer: Prepared by Accelerate.
        schedule: Of its learning rate; moves on in skipped steps too.
        config: The recipe.
        accelerator: Devices, processes and precision.
    """

    look: nn.Module
    model: RamsTrans
    optimizer: Optimizer
    schedule: LambdaLR
    config: TrainingConfig
    accelerator: Accelerator

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Weight of each scale's loss."""
        return self.config.loss_weights or (1.0,) * self.model.num_scales

    def step(
        self,
        batch: Batch,
        preprocessing: Preprocessing,
        *,
        stop: bool = False,
    ) -> StepResult:
        """Forward and backward, part by part and look by look; clip; step, if all is finite.

        Args:
            batch: This process's images of the step.
            preprocessing: Mean and standard deviation of the model's input.
            stop: Whether this process was asked to stop.

        Raises:
            TrainingError: Memory ran out; the message says what would fit.
        """
        try:
            return self.take(batch, preprocessing, stop=stop)
        except RuntimeError as error:
            reason = out_of_memory(error)
            if reason is None:
                raise
        # The failed step's frames have gone with its error, and what they held: there is room to measure.
        raise TrainingError(advice(self, batch, preprocessing, reason))

    def take(
        self,
        batch: Batch,
        preprocessing: Preprocessing,
        *,
        stop: bool = False,
    ) -> StepResult:
        """As `step`; that memory ran out is raised as torch does."""
        generator = mixing_generator(*batch.key, self.accelerator.process_index)
        losses = self._descend(self._parts(batch, preprocessing), generator)
        # The norm is wanted even where nothing is clipped: it tells whether every gradient is finite.
        norm = self._gradient_norm(self.config.gradient_clip or math.inf)
        told = self._reduced(torch.cat([losses, losses.new_tensor([float(stop)])]))
        scales, stop = tuple(told[:-1]), told[-1] > 0
        loss = sum(weight * part for weight, part in zip(self.loss_weights, scales, strict=True))
        lr = float(self.schedule.get_last_lr()[0])
        was_skipped = not (math.isfinite(loss) and math.isfinite(norm))
        if self.accelerator.scaler is not None:  # skips by itself, and scales losses down then
            self.optimizer.step()
            was_skipped = self.accelerator.optimizer_step_was_skipped
        elif not was_skipped:
            self.optimizer.step()
        with warnings.catch_warnings():
            # If the very first step is skipped, the schedule takes that for a mistake in the order of calls.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.schedule.step()
        self.optimizer.zero_grad()
        return StepResult(loss, scales, lr, was_skipped, stop)

    def _parts(self, batch: Batch, preprocessing: Preprocessing) -> list[Part]:
        """This process's images in parts, as many as every other process has: FSDP's wait for each other.

        A process that has an image less than others, and so fewer than there are parts, fills in with its
        first one, which does not count.
        """
        device, num_images, (own, whole) = self.accelerator.device, len(batch.labels), batch.weight
        images, high_res = normalized(batch, preprocessing, device)
        labels = batch.labels.to(device, non_blocking=True)
        most = math.ceil(whole / self.accelerator.num_processes)
        parts = []
        for places in np.array_split(
            np.arange(num_images), min(self.config.gradient_accumulation_steps, most)
        ):
            some = slice(places[0], places[-1] + 1) if len(places) else slice(1)
            share = own / whole * len(places) / num_images
            parts.append(
                Part(images[some], None if high_res is None else high_res[some], labels[some], share)
            )
        return parts

    def _descend(self, parts: list[Part], generator: np.random.Generator) -> Tensor:
        """Add up the gradients of all parts and looks; (S,) float32, this process's share of each loss."""
        weights, config = self.loss_weights, self.config
        totals = torch.zeros(len(weights), device=self.accelerator.device)
        for number, part in enumerate(parts, start=1):
            mixing = draw_mixing(
                len(part.labels),
                self.model.image_size,
                generator,
                mixup=config.mixup,
                cutmix=config.cutmix,
                probability=config.mixing_probability,
            )
            losses = losses_by_scale(
                self.look,
                self.model,
                part.images,
                part.high_res,
                part.labels,
                label_smoothing=config.label_smoothing,
                mixing=mixing,
                contrastive=config.contrastive,
            )
            for scale, weight in enumerate(weights):
                # Processes exchange their gradients once, with the last part's last look.
                is_last = number == len(parts) and scale == len(weights) - 1
                with nullcontext() if is_last else self.accelerator.no_sync(self.look):
                    loss = part.share * next(losses)
                    # Gradients are averaged over the processes; the sum of their shares is wanted.
                    self.accelerator.backward(weight * self.accelerator.num_processes * loss)
                totals[scale] += loss.detach()
        return totals

    def _gradient_norm(self, limit: float) -> float:
        """Clip all gradients together to a norm; what it was before."""
        norm = self.accelerator.clip_grad_norm_(self.look.parameters(), limit)
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP has a part of it
        return float(whole)

    def _reduced(self, tensor: Tensor) -> list[float]:
        """The sum of a tensor over all processes, as numbers."""
        if self.accelerator.num_processes > 1:
            tensor = self.accelerator.reduce(tensor, "sum")
        numbers: list[float] = tensor.tolist()
        return numbers


def build_train_step(
    model: RamsTrans,
    config: TrainingConfig,
    accelerator: Accelerator,
    total_steps: int,
    steps_per_epoch: int = 1,
) -> TrainStep:
    """Put a model, and an optimiser of its trained weights, on devices and processes.

    Args:
        model: Its parts frozen and its adapters added; with FSDP2 its weights become parts of tensors.
        config: The recipe.
        accelerator: Devices, processes and precision.
        total_steps: Of the run.
        steps_per_epoch: For a warm-up that is given in epochs.
    """
    precision = config.precision if accelerator.is_fsdp2 else None  # else Accelerate sees to it
    look, optimizer = accelerator.prepare(Look(model, precision), build_optimizer(model, config))
    schedule = build_schedule(optimizer, config, total_steps, steps_per_epoch)
    return TrainStep(look, model, optimizer, schedule, config, accelerator)
