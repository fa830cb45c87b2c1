"""Outlines of models and whole ones; parts of tensors are met by real processes in `test_processes`."""

import pytest
import torch
from torch import nn

from ramstrans.distributed import full_state_dict, local_shard, materialize, to_meta
from ramstrans.training.trainable import freeze_blocks
from tests.tiny import same_state, tiny_model


def test_an_outline_holds_nothing_and_is_filled_with_the_weights_themselves():
    model = tiny_model()
    freeze_blocks(model, 1)
    empty = to_meta(model)
    assert all(parameter.is_meta for parameter in empty.parameters())
    twin = materialize(empty, model.state_dict())
    assert same_state(twin.state_dict(), model.state_dict())
    assert all(parameter.is_meta for parameter in empty.parameters())  # for the next one
    for own, other in zip(twin.parameters(), model.parameters(), strict=True):
        assert own.data_ptr() == other.data_ptr()
        assert own.requires_grad == other.requires_grad


def test_a_filled_model_looks_like_the_first():
    model = tiny_model().eval()
    twin = materialize(to_meta(model), model.state_dict()).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(twin(images).scales[1].logits, model(images).scales[1].logits)


def test_whole_tensors_are_left_as_they_are():
    tensor = torch.ones(3)
    assert full_state_dict({"weight": tensor})["weight"] is local_shard(tensor) is tensor


def test_a_buffer_that_cannot_be_filled_is_our_own_mistake():
    model = nn.Linear(2, 2)
    model.register_buffer("table", torch.ones(2), persistent=False)
    with pytest.raises(AssertionError, match="not in the state dict"):
        materialize(to_meta(model), model.state_dict())
