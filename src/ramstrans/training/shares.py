"""Weights that processes share (FSDP2), each with a part of every tensor; and whole models made of them."""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import TypeVar

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

Model = TypeVar("Model", bound=nn.Module)


def to_meta(model: Model) -> Model:
    """A copy of a model without its weights, which takes no memory; to be `filled`.

    Args:
        model: Whole: one that is shared cannot be copied.
    """
    return copy.deepcopy(model).to("meta")


def materialize(empty: Model, state: Mapping[str, Tensor]) -> Model:
    """A model of its own with these weights themselves, no copies of them; what is frozen stays so.

    Args:
        empty: From `outline`; stays empty.
        state: All weights and buffers, whole or parts.
    """
    model = copy.deepcopy(empty)
    model.load_state_dict(state, assign=True)
    missing = [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_meta]
    assert not missing, "a buffer is not in the state dict"
    return model


def full_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors in place of parts, on their device; every process calls this together."""
    return {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in state.items()
    }


def local_shard(tensor: Tensor) -> Tensor:
    """What this process has of a tensor, with the same memory; of one that is whole, all."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
