import math

import pytest
import torch
import torch.nn.functional as F

from ramstrans.models.methods.base import Stage
from ramstrans.training.contrastive import contrastive_loss
from ramstrans.training.losses import ScaleForward, cross_entropy, losses_by_scale
from ramstrans.training.mixing import Mixing, mix, partner_shares
from tests.models.builders import noise, tiny_model

LABELS = torch.tensor([1])
SIZE = (48, 80)


class Scripted:
    """A model whose stages are given, and which records what it was asked to look at."""

    def __init__(self, *stages):
        self.scripted = stages
        self.seen = []

    def stages(self, images, _high_res, **_):
        for stage in self.scripted:
            self.seen.append(images)
            yield stage


def stage_of(logits, crop_box=None):
    return Stage(logits, logits, crop_box, None, None, None)


def loss_of(logits, **options):
    model = Scripted(stage_of(logits))
    (loss,) = losses_by_scale(None, model, torch.zeros(1, 3, 2, 2), None, LABELS, **options)
    return loss


def test_cross_entropy_by_hand():
    assert float(loss_of(torch.tensor([[0.0, math.log(3)]]))) == pytest.approx(math.log(4 / 3))


def test_the_fused_answer_as_a_target_by_hand():
    """Probabilities of class 1 are 3/4 and 1/4, so the fused answer is even."""
    stages = [stage_of(torch.tensor([[0.0, value]])) for value in (math.log(3), -math.log(3))]
    model = Scripted(*stages)
    losses = list(losses_by_scale(None, model, torch.zeros(1, 3, 2, 2), None, LABELS, fused_target=0.25))
    even = (math.log(4) + math.log(4 / 3)) / 2
    assert float(losses[0]) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * even)
    assert float(losses[1]) == pytest.approx(0.75 * math.log(4) + 0.25 * even)


def test_class_weights_count_for_the_fused_target_too():
    model = Scripted(stage_of(torch.tensor([[0.0, 1.0], [0.5, 0.0]])))
    images, labels, weights = torch.zeros(2, 3, 2, 2), torch.tensor([0, 1]), torch.tensor([0.0, 3.0])

    def loss(some, **options):
        (one,) = losses_by_scale(None, model, images, None, some, class_weights=weights, **options)
        return float(one)

    assert loss(torch.tensor([0, 0]), fused_target=0.5) == 0
    entropy = [
        float(torch.distributions.Categorical(logits=row).entropy()) for row in model.scripted[0].logits
    ]
    assert loss(labels, fused_target=0.25) == pytest.approx(0.75 * loss(labels) + 0.25 * 3 * entropy[1] / 2)


def test_no_gradient_flows_into_the_fused_answer():
    model, images = tiny_model().train(), noise(2, 3, *SIZE)
    labels = torch.tensor([0, 1])
    with torch.no_grad():
        target = model(images).fused
    first = next(losses_by_scale(ScaleForward(model), model, images, None, labels, fused_target=0.5))
    first.backward()
    found = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    logits = next(model.stages(images)).logits
    (0.5 * F.cross_entropy(logits, labels) + 0.5 * F.cross_entropy(logits, target)).backward()
    for grad, parameter in zip(found, model.parameters(), strict=True):
        assert grad is parameter.grad is None or torch.allclose(grad, parameter.grad, atol=1e-6)


def test_smoothing_mixes_in_the_mean_over_classes():
    """With smoothing e: (1 - e) * -log p_true + e * mean(-log p)."""
    loss = loss_of(torch.tensor([[0.0, math.log(3)]]), label_smoothing=0.1)
    mean = (math.log(4) + math.log(4 / 3)) / 2
    assert float(loss) == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * mean)


def test_class_weights_multiply_the_loss_of_each_image_smoothed_or_mixed():
    logits, labels = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]), torch.tensor([1, 0])
    whole = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).expand(2, 4)
    weights = torch.tensor([0.5, 3.0])
    plain = (3 * math.log(4 / 3) + 0.5 * math.log(2)) / 2  # the mean over images, not over weights
    assert float(cross_entropy(logits, labels, whole, None, 0.0, weights)) == pytest.approx(plain)
    mean = (math.log(4) + math.log(4 / 3)) / 2
    smooth = (3 * (0.9 * math.log(4 / 3) + 0.1 * mean) + 0.5 * math.log(2)) / 2
    assert float(cross_entropy(logits, labels, whole, None, 0.1, weights)) == pytest.approx(smooth)
    ones = torch.ones(2)
    for mixing in (None, Mixing(torch.tensor([1, 0]), 0.25)):
        expected = cross_entropy(logits, labels, whole, mixing, 0.1)
        torch.testing.assert_close(cross_entropy(logits, labels, whole, mixing, 0.1, ones), expected)
    mixed = cross_entropy(logits, labels, whole, Mixing(torch.tensor([1, 0]), 0.25), 0.0, weights)
    partners = (0.5 * math.log(4) + 3 * math.log(2)) / 2  # the same logits, the other image's class
    assert float(mixed) == pytest.approx(torch.lerp(*map(torch.tensor, (plain, partners)), 0.25).item())


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
def test_scale_by_scale_is_the_loss_of_the_whole_model(num_scales, zoom_source):
    model = tiny_model(num_scales=num_scales, zoom_source=zoom_source).train()
    images, labels = noise(7, 3, *SIZE), torch.arange(7) % 5
    high_res = noise(7, 3, 96, 160, seed=1) if zoom_source == "full" and num_scales > 1 else None
    output = model(images, high_res)
    whole = [F.cross_entropy(scale.logits, labels, label_smoothing=0.2) for scale in output.scales]
    sum(whole).backward()
    expected = gradients(model)
    losses = []
    for loss in losses_by_scale(ScaleForward(model), model, images, high_res, labels, label_smoothing=0.2):
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses, [loss.detach() for loss in whole])
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_scale_that_sees_one_class_has_that_class_as_target():
    """CutMix pastes the right 6 of 8 columns; the second scale sees the left 2, or 4, of them."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    whole = torch.tensor([0.0, 0.0, 8.0, 4.0]).expand(2, 4)
    boxes = torch.tensor([[0.0, 0.0, 2.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
    mixing = Mixing(torch.tensor([1, 0]), 0.75, (2, 0, 8, 4))
    model = Scripted(stage_of(logits, whole), stage_of(logits, boxes))
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(-1, 3, 4, 8)
    losses = losses_by_scale(None, model, images, None, torch.tensor([0, 1]), mixing=mixing)
    first, second = (float(loss) for loss in losses)
    zero, one = math.log(4), math.log(4 / 3)  # what each class costs
    assert first == pytest.approx(((0.25 * zero + 0.75 * one) + (0.25 * one + 0.75 * zero)) / 2)
    assert second == pytest.approx((zero + (0.5 * one + 0.5 * zero)) / 2)
    for mixed in model.seen:
        assert mixed[0, 0, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
        assert mixed[1, 0, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


MIXINGS = {
    "mixup": Mixing(torch.tensor([3, 0, 2, 1, 4]), 0.3),
    "cutmix": Mixing(torch.tensor([3, 0, 2, 1, 4]), 21 * 36 / (48 * 80), (10, 4, 31, 40)),
}


@pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS)
@pytest.mark.parametrize("zoom_source", ["input", "full"])
def test_mixed_losses_are_those_of_soft_targets(mixing, zoom_source):
    """The slow way: images mixed before, a distribution over classes written down for each look."""
    model = tiny_model(num_scales=2, zoom_source=zoom_source).train()
    images, labels = noise(5, 3, *SIZE), torch.tensor([0, 1, 2, 1, 4])
    high_res = noise(5, 3, 96, 160, seed=1) if zoom_source == "full" else None
    with torch.no_grad():
        scales = model(*mix(images, high_res, mixing)).scales
    crop_boxes = torch.tensor([0.0, 0.0, 80.0, 48.0]).expand(5, 4), scales[0].boxes
    expected = []
    for scale, crop_box in zip(scales, crop_boxes, strict=True):
        shares = partner_shares(mixing, crop_box)
        targets = torch.zeros(5, 5)
        for index, partner in enumerate(mixing.partners):
            targets[index, labels[index]] += 1 - shares[index]
            targets[index, labels[partner]] += shares[index]
        assert targets.sum(dim=1).tolist() == pytest.approx([1] * 5)
        smoothed = 0.8 * targets + 0.2 / 5
        expected.append(-(smoothed * scale.logits.log_softmax(dim=1)).sum(dim=1).mean())
    found = losses_by_scale(
        ScaleForward(model), model, images, high_res, labels, label_smoothing=0.2, mixing=mixing
    )
    torch.testing.assert_close([loss.detach() for loss in found], expected)


def test_shares_differ_between_the_images_of_a_look():
    """Else the test above would say little."""
    model = tiny_model(num_scales=2).train()
    output = model(*mix(noise(5, 3, *SIZE), None, MIXINGS["cutmix"]))
    shares = partner_shares(MIXINGS["cutmix"], output.scales[0].boxes)
    assert len(set(shares.tolist())) > 1
    assert (shares - MIXINGS["cutmix"].share).abs().max() > 0.05


def test_a_mixing_of_own_partners_changes_nothing():
    logits, labels = noise(5, 7), torch.tensor([0, 1, 2, 1, 4])
    crop_box = torch.tensor([[3.0, 5.0, 44.0, 36.0]]).expand(5, 4)
    plain = cross_entropy(logits, labels, crop_box, None, 0.1)
    for mixing in MIXINGS.values():
        own = mixing._replace(partners=torch.arange(5))
        torch.testing.assert_close(cross_entropy(logits, labels, crop_box, own, 0.1), plain)


def test_each_scale_adds_its_contrastive_loss():
    model = tiny_model(num_scales=2).train()
    images, labels = noise(5, 3, *SIZE), torch.tensor([0, 1, 0, 1, 4])
    plain = list(losses_by_scale(ScaleForward(model), model, images, None, labels))
    both = list(losses_by_scale(ScaleForward(model), model, images, None, labels, contrastive=0.7))
    tokens, crop_box = [], torch.tensor([0.0, 0.0, 80.0, 48.0]).expand(5, 4)
    for scale in range(2):
        output = ScaleForward(model)(images, scale, crop_box, with_region=scale == 0)
        tokens.append(output.feature)
        assert torch.equal(model.encoder.forward_head(output.feature), output.logits)
        if output.boxes is not None:
            crop_box, images = output.boxes, model.crop_regions(images, output.boxes, 1)
    for loss, cross, token in zip(both, plain, tokens, strict=True):
        torch.testing.assert_close(loss, cross + 0.7 * contrastive_loss(token, labels))
        assert contrastive_loss(token, labels) > 0.01


def test_the_contrastive_loss_reaches_the_backbone():
    model = tiny_model(num_scales=2).train()
    model.encoder.model.head.requires_grad_(False).weight.zero_()  # so that cross-entropy does not
    labels = torch.tensor([0, 1, 0])
    for loss in losses_by_scale(
        ScaleForward(model), model, noise(3, 3, *SIZE), None, labels, contrastive=1.0
    ):
        loss.backward()
    assert model.encoder.model.patch_embed.proj.weight.grad.abs().max() > 0


def test_mixed_images_are_not_contrasted():
    model = tiny_model(num_scales=2)
    images, labels, mixing = noise(5, 3, *SIZE), torch.arange(5), MIXINGS["mixup"]
    losses = losses_by_scale(ScaleForward(model), model, images, None, labels, mixing=mixing, contrastive=1.0)
    with pytest.raises(AssertionError, match="does not have one class"):
        next(losses)
