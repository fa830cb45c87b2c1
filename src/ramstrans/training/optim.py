"""Optimiser and learning-rate schedule."""

import math
import re
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ramstrans.training.config import TrainingConfig

WITHOUT_DECAY = ("cls_token", "reg_token", "pos_embed")
EMBEDDING = re.compile(r"\bvit\.(patch_embed|norm_pre|cls_token|reg_token|pos_embed)\b")
BLOCK = re.compile(r"\bvit\.blocks\.(\d+)\.")


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """SGD or AdamW over what is not frozen; biases, norms, tokens and position embeddings are not decayed.

    Args:
        model: Its frozen parameters have `requires_grad` False.
        config: The recipe; for `layer_decay` see `layers`.

    Returns:
        An optimiser whose first group has the highest learning rate, which is the head's.
    """
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert trained, "every parameter is frozen"
    depths = layers(name for name, _ in model.named_parameters())
    factors = {name: config.layer_decay ** (max(depths.values()) - depths[name]) for name in trained}
    groups = []
    for factor in sorted(set(factors.values()), reverse=True):
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for name, parameter in trained.items():
            is_plain = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in WITHOUT_DECAY
            if factors[name] == factor:
                (plain if is_plain else decayed).append(parameter)
        lr = config.lr * factor
        groups += [
            {"params": decayed, "weight_decay": config.weight_decay, "lr": lr},
            {"params": plain, "weight_decay": 0.0, "lr": lr},
        ]
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum)
    return AdamW(groups, lr=config.lr, fused=next(model.parameters()).device.type in ("cpu", "cuda"))


def layers(names: Iterable[str]) -> dict[str, int]:
    """The layer of each parameter, for learning rates that decay by layers (https://arxiv.org/abs/2106.08254).

    Patch embedding, position embeddings and tokens are layer 0, block i of L from 0 is layer i + 1, and what
    comes after the blocks (final LayerNorm, head) is layer L + 1, whose learning rate is the peak; that of
    layer l is `layer_decay ** (L + 1 - l)` of it.

    >>> layers(["backbone.vit.cls_token", "backbone.vit.blocks.1.norm1.bias", "backbone.vit.head.bias"])
    {'backbone.vit.cls_token': 0, 'backbone.vit.blocks.1.norm1.bias': 2, 'backbone.vit.head.bias': 3}
    """
    names = list(names)
    blocks = {name: int(found[1]) for name in names if (found := BLOCK.search(name))}
    top = max(blocks.values(), default=-1) + 2
    return {
        name: blocks[name] + 1 if name in blocks else 0 if EMBEDDING.search(name) else top for name in names
    }


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


def build_schedule(
    optimizer: Optimizer, config: TrainingConfig, total_steps: int, steps_per_epoch: int = 1
) -> LambdaLR:
    """The schedule of `lr_factor`; warm-up is cut to the run's first half where the run is short.

    Args:
        optimizer: Each of its groups is scheduled from its own learning rate.
        config: The recipe.
        total_steps: Of the run.
        steps_per_epoch: For a warm-up that is given in epochs.
    """
    warmup_steps = config.warmup_steps
    if config.warmup_epochs is not None:
        warmup_steps = steps_of_epochs(config.warmup_epochs, steps_per_epoch)
    warmup_steps = min(warmup_steps, total_steps // 2)
    return LambdaLR(optimizer, lambda step: lr_factor(step, warmup_steps, total_steps, config.min_lr_factor))


def steps_of_epochs(epochs: float, steps_per_epoch: int) -> int:
    """Whole steps that some epochs take, at least one where there is any part of an epoch.

    >>> steps_of_epochs(1.5, 7), steps_of_epochs(0.01, 7), steps_of_epochs(0, 7)
    (10, 1, 0)
    """
    return max(round(epochs * steps_per_epoch), int(epochs > 0))
