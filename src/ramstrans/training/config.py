"""Options of a training run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ramstrans.data.config import DataConfig
from ramstrans.errors import ConfigError
from ramstrans.model.config import ModelConfig


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are found; the defaults are the paper's, but for length and batch.

    Attributes:
        epochs: Passes over the training images.
        max_steps: Stop after this many optimiser steps; None: after `epochs`. The schedule ends there.
        batch_size: Images a step.
        optimizer: `sgd` (the paper) or `adamw`.
        lr: Peak learning rate.
        momentum: Of SGD.
        weight_decay: Not applied to biases, norms, tokens and position embeddings.
        warmup_steps: Steps of linear warm-up before the cosine to zero.
        gradient_clip: Largest norm of all gradients together; 0 is off.
        label_smoothing: In [0, 1).
        loss_weights: Weight of each scale's cross-entropy, `num_scales` of them; None: 1 each (paper).
        precision: Autocast precision of forward and loss.
        attention: `fused` keeps the backbone's fused attention; `math` multiplies matrices, which
            trains faster on CPUs with bf16 units; `auto` takes `math` for bf16 on CPU, else `fused`.
        evaluate_every: Epochs between evaluations on the validation part.
    """

    epochs: int = 50
    max_steps: int | None = None
    batch_size: int = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup_steps: int = 500
    gradient_clip: float = 1.0
    label_smoothing: float = 0.0
    loss_weights: tuple[float, ...] | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    attention: Literal["auto", "fused", "math"] = "auto"
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} is {getattr(self, name)}; give 1 or more")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"training.max_steps is {self.max_steps}; give 1 or more")
        for name in ("weight_decay", "warmup_steps", "gradient_clip", "momentum"):
            if getattr(self, name) < 0:
                raise ConfigError(f"training.{name} is {getattr(self, name)}; give 0 or more")
        if self.lr <= 0:
            raise ConfigError(f"training.lr is {self.lr}; give more than 0")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"training.label_smoothing is {self.label_smoothing}; give a number in [0, 1)")


@dataclass(frozen=True)
class RunConfig:
    """One training run, whole.

    Attributes:
        data: Which photographs.
        model: Which network.
        training: Which recipe.
        output: Run folder; None: `runs/<data name>-<backbone>-<date>`.
        overwrite: Replace an existing run folder.
        seed: Of initial weights, order and augmentation.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    output: Path | None = None
    overwrite: bool = False
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}; give 0 to {2**32 - 1}")
        weights = self.training.loss_weights
        if weights is not None and len(weights) != self.model.num_scales:
            raise ConfigError(
                f"training.loss_weights has {len(weights)} values; "
                f"give one for each of the {self.model.num_scales} scales"
            )
