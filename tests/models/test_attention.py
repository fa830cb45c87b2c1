"""Attention by matrix products is the fused kernel's function; its weights are the mean of the heads."""

import pytest
import torch
import torch.nn.functional as F

from ramstrans.models import attention
from ramstrans.models.attention import ExplicitAttention, RecordAttention, attend_in_tiles
from tests.models.builders import noise, tiny_model


@pytest.mark.parametrize("tile", [1, 7, 40, 10_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_are_the_whole(monkeypatch, tile, dtype):
    monkeypatch.setattr(attention, "TILE", tile)
    query, key, value = noise(3, 3, 2, 5, 4).to(dtype)
    output, mean = attend_in_tiles(query, key, value)
    weights = (query.double() @ key.double().mT).softmax(dim=-1)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(output.double(), weights @ value.double(), **tolerance)
    torch.testing.assert_close(mean.double(), weights.mean(dim=1), **tolerance)
    assert mean.dtype == torch.float32


@pytest.mark.parametrize("with_grad", [False, True])
@pytest.mark.parametrize("mask", [None, "bias", "bool"])
@pytest.mark.parametrize("heads", [4, 2])
def test_explicit_attention_is_the_fused_kernel(with_grad, mask, heads):
    """With biases, masks and grouped queries; of three calls the last two are recorded."""
    query, (key, value) = noise(2, 4, 5, 3), noise(2, 2, heads, 5, 3, seed=1).requires_grad_(with_grad)
    masks = {"bias": noise(1, 4, 5, 5, seed=2), "bool": (noise(2, 1, 5, 5, seed=3) > 0) | torch.eye(5).bool()}
    options = {"attn_mask": masks.get(mask), "enable_gqa": heads == 2}
    weights, calls = [], []
    with torch.set_grad_enabled(with_grad):
        with ExplicitAttention(weights, skip=1):
            outputs = [F.scaled_dot_product_attention(query, key, value, **options) for _ in range(3)]
        with RecordAttention(calls):
            expected = F.scaled_dot_product_attention(query, key, value, **options)
    assert len(weights) == 2
    for output in outputs:
        torch.testing.assert_close(output, expected)
        assert output.requires_grad is with_grad
    (call,) = calls
    scores = call.scale * call.query @ call.key.mT + (0 if call.bias is None else call.bias)
    torch.testing.assert_close(weights[1], scores.softmax(dim=-1).mean(dim=1))
    assert not weights[1].requires_grad


@pytest.mark.parametrize("fields", [{}, {"saliency": "class_attention"}, {"saliency_layers": 1}])
def test_a_model_answers_alike_by_either_attention(fields):
    model, images = tiny_model(num_scales=3, **fields), noise(3, 3, 48, 80)
    with torch.no_grad():
        assert model.encoder.is_explicit(images, model.num_recorded)
        explicit = model(images)
    recorded = model(images)
    for ours, theirs in zip(explicit.scales, recorded.scales, strict=True):
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.saliency, theirs.saliency, rtol=1e-4, atol=1e-7)
        assert torch.equal(ours.boxes, theirs.boxes)
