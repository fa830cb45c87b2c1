"""Optimiser and learning-rate schedule."""

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ramstrans.training.config import TrainingConfig

WITHOUT_DECAY = ("cls_token", "reg_token", "pos_embed")


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """SGD or AdamW; biases, norms, tokens and position embeddings are not decayed."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_plain = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in WITHOUT_DECAY
        (plain if is_plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum)
    return AdamW(groups, lr=config.lr, fused=next(model.parameters()).device.type in ("cpu", "cuda"))


def lr_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Factor on the peak learning rate: linear warm-up, then a half cosine to 0.

    Args:
        step: From 0.
        warmup_steps: Step at which the peak is reached.
        total_steps: Step at which 0 is reached.

    >>> [round(lr_factor(step, 2, 6), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def build_schedule(optimizer: Optimizer, config: TrainingConfig, total_steps: int) -> LambdaLR:
    """The schedule of `lr_factor`; warm-up is cut to the run's first half where the run is short."""
    warmup_steps = min(config.warmup_steps, total_steps // 2)
    return LambdaLR(optimizer, lambda step: lr_factor(step, warmup_steps, total_steps))
