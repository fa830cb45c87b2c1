import math

import pytest
import torch
import torch.nn.functional as F

from ramstrans.model.rams import ScaleOutput
from ramstrans.training.losses import Look, losses_by_look
from tests.model.builders import noise, tiny_model

LABELS = torch.tensor([1])
SIZE = (48, 80)


class Said:
    """A model of one scale whose logits are given."""

    num_scales = 1

    def source_of(self, images, _source):
        return images


def loss_of(logits, **options):
    def look(*_, **__):
        return ScaleOutput(logits, None, None, None)

    (loss,) = losses_by_look(look, Said(), torch.zeros(1, 3, 2, 2), None, LABELS, **options)
    return loss


def test_cross_entropy_by_hand():
    assert float(loss_of(torch.tensor([[0.0, math.log(3)]]))) == pytest.approx(math.log(4 / 3))


def test_smoothing_mixes_in_the_mean_over_classes():
    """With smoothing e: (1 - e) * -log p_true + e * mean(-log p)."""
    loss = loss_of(torch.tensor([[0.0, math.log(3)]]), label_smoothing=0.1)
    mean = (math.log(4) + math.log(4 / 3)) / 2
    assert float(loss) == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * mean)


def test_half_precision_logits_are_summed_in_float32():
    loss = loss_of(torch.tensor([[0.0, 9.0]], dtype=torch.bfloat16))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log1p(math.exp(-9)), rel=1e-3)


def gradients(model):
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("num_scales", [1, 2, 3])
@pytest.mark.parametrize("zoom_source", ["input", "full"])
def test_look_by_look_is_the_loss_of_the_whole_model(num_scales, zoom_source):
    model = tiny_model(num_scales=num_scales, zoom_source=zoom_source).train()
    images, labels = noise(7, 3, *SIZE), torch.arange(7) % 5
    source = noise(7, 3, 96, 160, seed=1) if zoom_source == "full" and num_scales > 1 else None
    output = model(images, source)
    whole = [F.cross_entropy(scale.logits, labels, label_smoothing=0.2) for scale in output.scales]
    sum(whole).backward()
    expected = gradients(model)
    losses = []
    for loss in losses_by_look(Look(model), model, images, source, labels, label_smoothing=0.2):
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses, [loss.detach() for loss in whole])
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=name)
