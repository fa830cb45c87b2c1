import math

import pytest
import torch
import torch.nn.functional as F

from ramstrans.model.rams import RamsOutput, ScaleOutput
from ramstrans.training.losses import multi_scale_loss

LABELS = torch.tensor([1])
# cross-entropies ln(4/3) and ln 5, worked by hand: probabilities 3/4 and 1/5 of class 1
LOGITS = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[math.log(4), 0.0]])


def output_of(*logits):
    return RamsOutput(tuple(ScaleOutput(scale, None, None, None) for scale in logits))


def test_the_loss_is_the_sum_over_scales():
    loss = multi_scale_loss(output_of(*LOGITS), LABELS)
    assert [float(part) for part in loss.scales] == pytest.approx([math.log(4 / 3), math.log(5)])
    assert float(loss.total) == pytest.approx(math.log(20 / 3))


def test_weights_weigh_the_total_but_not_the_parts():
    loss = multi_scale_loss(output_of(*LOGITS), LABELS, weights=(0.5, 2.0))
    assert [float(part) for part in loss.scales] == pytest.approx([math.log(4 / 3), math.log(5)])
    assert float(loss.total) == pytest.approx(0.5 * math.log(4 / 3) + 2 * math.log(5))


def test_smoothing_mixes_in_the_mean_over_classes():
    """With smoothing e: (1 - e) * -log p_true + e * mean(-log p)."""
    loss = multi_scale_loss(output_of(LOGITS[0]), LABELS, label_smoothing=0.1)
    mean = (math.log(4) + math.log(4 / 3)) / 2
    assert float(loss.total) == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * mean)


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_the_loss_is_torchs_cross_entropy_of_each_scale(num_scales):
    generator = torch.Generator().manual_seed(num_scales)
    logits = [torch.randn(7, 5, generator=generator) for _ in range(num_scales)]
    labels = torch.randint(5, (7,), generator=generator)
    loss = multi_scale_loss(output_of(*logits), labels, label_smoothing=0.2)
    expected = sum(F.cross_entropy(scale, labels, label_smoothing=0.2) for scale in logits)
    torch.testing.assert_close(loss.total, expected)
    assert len(loss.scales) == num_scales


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.tensor([[0.0, 9.0]], dtype=torch.bfloat16)
    loss = multi_scale_loss(output_of(logits), LABELS)
    assert loss.total.dtype == torch.float32
    assert float(loss.total) == pytest.approx(math.log1p(math.exp(-9)), rel=1e-3)


def test_every_scale_gets_its_gradient():
    logits = [scale.clone().requires_grad_() for scale in LOGITS]
    multi_scale_loss(output_of(*logits), LABELS, weights=(1.0, 3.0)).total.backward()
    assert logits[0].grad[0].tolist() == pytest.approx([0.25, -0.25])  # softmax - one-hot
    assert logits[1].grad[0].tolist() == pytest.approx([2.4, -2.4])


def test_as_many_weights_as_scales():
    with pytest.raises(ValueError, match="zip"):
        multi_scale_loss(output_of(*LOGITS), LABELS, weights=(1.0,))
