"""An exponential moving average (EMA) of the weights, evaluated and saved instead of the last ones."""

from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint import load, save  # type: ignore[attr-defined]  # exported by its __init__
from torch.optim.swa_utils import AveragedModel

from ramstrans.distributed import local_shard

FOLDER = "average"
"""Folder in a checkpoint that holds each process's shard of the average."""


def ema_weight(num_averaged: Tensor, decay: float) -> Tensor:
    """Weight of the present weights in the average, `1 - min(decay, (1 + n) / (10 + n))`.

    The decay warms up, so that a short run is not dominated by its random head, as with `num_updates` in
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.

    Args:
        num_averaged: () int64, n: steps already in the average, 1 or more.
        decay: Final decay, in [0, 1).

    >>> import torch
    >>> [round(float(ema_weight(torch.tensor(n), 0.99)), 4) for n in (1, 10, 890, 892)]
    [0.8182, 0.45, 0.01, 0.01]
    """
    return (9 / (10 + num_averaged)).clamp(min=1 - decay)


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Copy a model and average its weights: call `update_parameters(model)` after each optimiser step.

    The first call copies the weights, each later one moves the average by `ema_weight` towards them.
    Buffers are copied, not averaged. The averaged model is `.module`; its parameters need no gradients.
    `state_dict` holds everything: average, buffers and number of steps. Under FSDP2 each process averages and
    holds only its own shards.

    Args:
        model: On its device, after freezing and adding adapters. Instead of a sharded model, which FSDP2 does
            not let anyone copy, its materialised meta copy.
        decay: In [0, 1); 0.999 averages over the last thousand steps or so.
    """
    assert 0 <= decay < 1, f"decay is {decay}, not in [0, 1)"

    def move(averages: list[Tensor], weights: list[Tensor], num_averaged: Tensor | int) -> None:
        assert isinstance(num_averaged, Tensor), "AveragedModel passes its own count"
        weight = ema_weight(num_averaged, decay)  # stays on the device: a float would synchronise
        for ema, present in zip(averages, weights, strict=True):
            local_shard(ema).lerp_(local_shard(present), weight.to(ema.dtype))

    ema = AveragedModel(model, multi_avg_fn=move)  # type: ignore[arg-type]  # tuples of tensors or lists
    ema.module.requires_grad_(False)
    return ema


def register_ema(ema: AveragedModel, accelerator: Accelerator) -> None:
    """Save and load an average with Accelerate's state; under FSDP2 every process handles its shards."""
    if not accelerator.is_fsdp2:
        accelerator.register_for_checkpointing(ema)
        return

    def save_shards(_models: list[nn.Module], _weights: list[dict[str, Tensor]], folder: str) -> None:
        save(ema.state_dict(), checkpoint_id=Path(folder, FOLDER))

    def load_shards(_models: list[nn.Module], folder: str) -> None:
        load(ema.state_dict(), checkpoint_id=Path(folder, FOLDER))  # into the tensors themselves

    accelerator.register_save_state_pre_hook(save_shards)
    accelerator.register_load_state_pre_hook(load_shards)
