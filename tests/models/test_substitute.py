"""Calls with other tensors leave a module as it was."""

import pytest
import torch
from torch import nn

from ramstrans.models.substitute import call_with


class Twice(nn.Module):
    """A module that is part of two others, and a weight that two modules have."""

    def __init__(self):
        super().__init__()
        shared = nn.Linear(2, 2)
        self.first, self.second = nn.Sequential(shared), nn.Sequential(shared)
        self.tied = nn.Linear(2, 2, bias=False)
        self.tied.weight = shared.weight
        self.register_buffer("offset", torch.tensor([1.0, 2.0]))

    def forward(self, values):
        return self.tied(self.second(self.first(values))) + self.offset


def test_shared_modules_and_tied_weights_get_them_and_are_given_back():
    module = Twice()
    before = {name: id(tensor) for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    found = call_with(module, torch.ones_like, torch.tensor([[1.0, 2.0]]))
    assert found.tolist() == [[19, 19]]  # 3 + 1 each, then 4 + 4 + 1, then 9 + 9 and the buffer
    after = {name: id(tensor) for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    assert after == before
    assert module.first[0].weight is module.second[0].weight is module.tied.weight


def test_it_is_given_back_after_an_error():
    module = Twice()
    before = [id(tensor) for tensor in module.parameters()]
    with pytest.raises(RuntimeError, match="shapes"):
        call_with(module, torch.ones_like, torch.ones(1, 3))
    assert [id(tensor) for tensor in module.parameters()] == before
