"""An exponential moving average of the weights, to be judged and kept instead of the last ones."""

from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim.swa_utils import AveragedModel

from ramstrans.distributed import local_shard

FOLDER = "average"
"""Of a checkpoint, with each process's part of an average that is shared."""


def ema_weight(num_averaged: Tensor, decay: float) -> Tensor:
    """How much of the present weights enters the average, `1 - min(decay, (1 + n) / (10 + n))`.

    The decay warms up, so that a short run is not judged by its random head: that is the `num_updates` of
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.

    Args:
        num_averaged: () int64, n: steps that are in the average already, 1 or more.
        decay: In [0, 1).

    >>> import torch
    >>> [round(float(ema_weight(torch.tensor(n), 0.99)), 4) for n in (1, 10, 890, 892)]
    [0.8182, 0.45, 0.01, 0.01]
    """
    return (9 / (10 + num_averaged)).clamp(min=1 - decay)


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows it: call `update_parameters(model)` after each optimiser step.

    The first call copies the weights, each later one moves the average by `ema_weight` towards them.
    Buffers are copied, not averaged. The average itself is `.module`, a model like the other, which needs
    no gradients. `state_dict` holds all that goes on: average, buffers and number of steps. Where processes
    share the weights (FSDP2), each averages its own part, and holds no more.

    Args:
        model: On its device, its parts frozen and its adapters added. Of a shared one, an `outline` that is
            `filled` with its parts: FSDP2 lets nobody copy the model itself.
        decay: In [0, 1); 0.999 averages over the last thousand steps or so.
    """
    assert 0 <= decay < 1, f"decay is {decay}, not in [0, 1)"

    def move(averages: list[Tensor], weights: list[Tensor], num_averaged: Tensor | int) -> None:
        assert isinstance(num_averaged, Tensor), "AveragedModel hands its own count"
        weight = ema_weight(num_averaged, decay)  # stays on the device: a number would wait for it
        for ema, present in zip(averages, weights, strict=True):
            local_shard(ema).lerp_(local_shard(present), weight.to(ema.dtype))

    ema = AveragedModel(model, multi_avg_fn=move)  # type: ignore[arg-type]  # tuples of tensors or lists
    ema.module.requires_grad_(False)
    return ema


def register_ema(ema: AveragedModel, accelerator: Accelerator) -> None:
    """Have an average saved and loaded with Accelerate's state; parts of tensors by every process."""
    if not accelerator.is_fsdp2:
        accelerator.register_for_checkpointing(ema)
        return

    def save_parts(_models: list[nn.Module], _weights: list[dict[str, Tensor]], folder: str) -> None:
        save(ema.state_dict(), checkpoint_id=Path(folder, FOLDER))

    def load_parts(_models: list[nn.Module], folder: str) -> None:
        load(ema.state_dict(), checkpoint_id=Path(folder, FOLDER))  # into the tensors themselves

    accelerator.register_save_state_pre_hook(save_parts)
    accelerator.register_load_state_pre_hook(load_parts)
