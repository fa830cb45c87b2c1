import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.training.contrastive import contrastive_loss
from tests.models.builders import noise


def twin(tokens, labels, margin):
    """Pair after pair, in double precision."""
    total = 0.0
    for first, one in zip(tokens.double(), labels, strict=True):
        for second, other in zip(tokens.double(), labels, strict=True):
            cosine = float(first @ second / (first.norm() * second.norm()))
            total += 1 - cosine if one == other else max(cosine - margin, 0)
    return total / len(tokens) ** 2


@given(st.integers(0, 997), st.integers(1, 11), st.floats(-1, 1))
def test_it_is_the_sum_over_pairs(seed, num_images, margin):
    tokens = noise(num_images, 7, seed=seed)
    labels = torch.arange(num_images) % 3
    assert float(contrastive_loss(tokens, labels, margin)) == pytest.approx(
        twin(tokens, labels, margin), abs=1e-5
    )


def test_it_is_as_worked_by_hand():
    """60 degrees apart: one class pays 1 - 0.5 a pair, two classes 0.5 - 0.4; two of four pairs count."""
    tokens = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]]) * torch.tensor([[3.0], [0.1]])
    assert float(contrastive_loss(tokens, torch.tensor([4, 4]))) == pytest.approx(0.25)
    assert float(contrastive_loss(tokens, torch.tensor([4, 1]))) == pytest.approx(0.05)
    assert float(contrastive_loss(tokens, torch.tensor([4, 1]), margin=0.6)) == 0


def test_one_image_costs_nothing():
    tokens = noise(1, 5).requires_grad_()
    loss = contrastive_loss(tokens, torch.tensor([2]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert tokens.grad.abs().max() < 1e-6


def test_descending_pulls_a_class_together_and_others_apart():
    tokens, labels = noise(8, 5).requires_grad_(), torch.arange(8) % 2
    for _ in range(199):
        contrastive_loss(tokens, labels).backward()
        with torch.no_grad():
            tokens -= 5 * tokens.grad
            tokens.grad = None
    directions = torch.nn.functional.normalize(tokens.detach(), dim=1)
    cosines = directions @ directions.T
    same = labels[:, None] == labels
    assert cosines[same].min() > 0.98
    assert cosines[~same].max() < 0.42


def test_half_precision_is_left_for_float32():
    tokens, labels = noise(5, 7), torch.arange(5) % 2
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(tokens, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, contrastive_loss(tokens, labels))
    assert contrastive_loss(tokens.bfloat16(), labels).dtype == torch.float32
