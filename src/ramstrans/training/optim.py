"""Optimiser and learning-rate schedule."""

import math
import sys
from collections.abc import Callable

from timm.optim import create_optimizer_v2, list_optimizers
from timm.optim import param_groups_layer_decay as layer_decay_groups
from timm.optim import param_groups_weight_decay as weight_decay_groups
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ramstrans.errors import ConfigError
from ramstrans.training.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """Build an optimiser of everything that is not frozen.

    Biases, norms and what the model's `no_weight_decay` names are not decayed. With `layer_decay` the
    learning rate falls from the head, which has the peak, by that factor per layer to the embedding
    (https://arxiv.org/abs/2106.08254); layers are those of the model's `group_matcher`.

    Args:
        model: A `RamsTrans` or any timm model; frozen parameters have `requires_grad` False.
        config: The recipe.

    Returns:
        An optimiser whose first group has the highest learning rate.

    Raises:
        ConfigError: It needs a GPU or a library that is not here.
    """
    names: set[str] = getattr(model, "no_weight_decay", set)()
    if config.layer_decay < 1:
        groups = layer_decay_groups(model, config.weight_decay, names, layer_decay=config.layer_decay)
    else:
        groups = weight_decay_groups(model, config.weight_decay, no_weight_decay_list=names)
    assert groups, "every parameter is frozen"
    for group in groups:
        group["lr"] = config.lr * group.pop("lr_scale", 1.0)
    groups.sort(key=lambda group: -group["lr"])
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum)
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, fused=groups[0]["params"][0].device.type in ("cpu", "cuda"))
    try:
        optimizer: Optimizer = create_optimizer_v2(
            groups, opt=config.optimizer, lr=config.lr, momentum=config.momentum
        )
    except (AssertionError, ImportError) as error:  # a GPU or a library that is not here
        raise ConfigError(
            f"training.optimizer {config.optimizer} cannot be used here ({error}); give another, e.g. adamw"
        ) from error
    return optimizer


def check_optimizer(name: str) -> None:
    """Raise ConfigError unless `build_optimizer` knows the optimiser.

    >>> check_optimizer("adamw")
    """
    if name == "adahessian":
        raise ConfigError("training.optimizer adahessian needs second derivatives, which no step has")
    if name not in list_optimizers():  # sgd and adamw among them
        raise ConfigError(
            f"training.optimizer is '{name}'; give sgd, adamw, or a name of timm.optim.list_optimizers(), "
            "e.g. lamb"
        )


def lr_factor(step: int, warmup_steps: int, total_steps: int, min_factor: float = 0.0) -> float:
    """Factor on the peak learning rate: linear warm-up, then a half cosine down to `min_factor`.

    Args:
        step: From 0.
        warmup_steps: Step at which the peak is reached.
        total_steps: Step at which `min_factor` is reached.
        min_factor: In [0, 1].

    >>> [round(lr_factor(step, 2, 6), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    >>> [round(lr_factor(step, 2, 6, 0.1), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.868, 0.55, 0.232, 0.1]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    height = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return min_factor + (1 - min_factor) * height


def schedule_factor(
    config: TrainingConfig, total_steps: int, steps_per_epoch: int = 1
) -> Callable[[int], float]:
    """The factor on the peak learning rate by step, see `lr_factor`; a warm-up ends in a run's first half.

    Args:
        config: The recipe.
        total_steps: Of the run.
        steps_per_epoch: For a warm-up that is given in epochs.
    """
    warmup_steps, epochs = config.warmup_steps, config.warmup_epochs
    if epochs is not None:  # at least one step if there is any part of an epoch
        warmup_steps = max(round(epochs * steps_per_epoch), int(epochs > 0))
    warmup_steps = min(warmup_steps, total_steps // 2)
    return lambda step: lr_factor(step, warmup_steps, total_steps, config.min_lr_factor)


def continue_schedule(schedule: LambdaLR) -> None:
    """Set the learning rates of a schedule whose state was loaded: its run may be longer than it was."""
    factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    rates = [rate * factor for rate, factor in zip(schedule.base_lrs, factors, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def num_steps(config: TrainingConfig, steps_per_epoch: int) -> int:
    """Optimiser steps of a whole run.

    >>> num_steps(TrainingConfig(epochs=3), 7), num_steps(TrainingConfig(epochs=3, max_steps=20), 7)
    (21, 20)
    """
    assert config.epochs is not None, "filled in by the number of images"
    return min(config.epochs * steps_per_epoch, config.max_steps or sys.maxsize)
