import copy
import io

import numpy as np
import pytest
import torch

from ramstrans.errors import ConfigError, UsageError
from ramstrans.models import encoder
from ramstrans.models.methods import method
from ramstrans.models.methods.build import build_model
from ramstrans.models.regions import propose_regions
from ramstrans.models.zoom import zoom
from tests.models.builders import SIZE, every_set_up, noise, tiny_config, tiny_model
from tests.models.oracles import rollout_twin


def whole(batch, height=SIZE[0], width=SIZE[1]):
    return torch.tensor([[0.0, 0.0, width, height]]).expand(batch, -1)


def hot(rows, columns, grid=(4, 6)):
    """A saliency map (1, h, w) with one hot block."""
    saliency = torch.zeros(1, *grid)
    saliency[:, rows, columns] = 1
    return saliency


def with_saliency(model, monkeypatch, *maps):
    """The model, its saliency maps replaced by the given ones, one a scale."""
    given = list(maps)
    monkeypatch.setattr(model, "saliency", lambda features: given.pop(0))
    return model


@every_set_up
@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_shapes_ranges_and_nested_boxes(num_scales, class_tokens, saliency_rows):
    model = tiny_model(num_scales=num_scales, class_tokens=class_tokens, saliency_rows=saliency_rows)
    output = model(noise(7, 3, *SIZE))
    assert len(output.scales) == model.num_scales == num_scales
    outer = whole(7)
    for scale in output.scales:
        assert scale.logits.shape == (7, 5)
        assert scale.saliency.shape == (7, 3, 5)
        assert scale.has_region.dtype == torch.bool
        assert scale.has_region.any()
        assert (scale.boxes[:, :2] >= outer[:, :2] - 1e-4).all()
        assert (scale.boxes[:, 2:] <= outer[:, 2:] + 1e-4).all()
        assert (scale.boxes[:, 2:] > scale.boxes[:, :2]).all()
        outer = scale.boxes
    assert output.probabilities.shape == (num_scales, 7, 5)
    torch.testing.assert_close(output.probabilities.sum(dim=-1), torch.ones(num_scales, 7))
    softmax = [torch.softmax(scale.logits, dim=-1) for scale in output.scales]
    torch.testing.assert_close(output.fused, sum(softmax) / num_scales)


@every_set_up
def test_each_scale_is_a_look_at_the_zoomed_box(class_tokens, saliency_rows):
    model = tiny_model(num_scales=3, class_tokens=class_tokens, saliency_rows=saliency_rows)
    images = noise(5, 3, *SIZE)
    output = model(images)
    seen, outer = images, whole(5)
    for scale, (result, eta) in enumerate(zip(output.scales, (1.2, 1.3, 1.3), strict=True)):
        features = model.encoder(seen, scale)
        saliency, _ = rollout_twin(
            [query.detach() for query in [call.query for call in features.attention]],
            [key.detach() for key in [call.key for call in features.attention]],
            scale=12**-0.5,
            num_prefix=3 if class_tokens == "joint" else 1,
            grid=(3, 5),
            rows=saliency_rows,
            class_index=scale if class_tokens == "joint" else 0,
        )
        np.testing.assert_allclose(result.saliency, saliency, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            result.logits, model.encoder.forward_head(features.pooled), rtol=1e-4, atol=1e-4
        )
        local = propose_regions(result.saliency, SIZE, eta)
        assert torch.equal(local.has_region, result.has_region)
        factor = (outer[:, 2:] - outer[:, :2]) / torch.tensor([80.0, 48.0])
        expected = outer[:, [0, 1, 0, 1]] + local.boxes * factor.repeat(1, 2)
        torch.testing.assert_close(result.boxes, expected, rtol=0, atol=1e-3)
        seen, outer = zoom(images, result.boxes, SIZE), result.boxes


def test_boxes_are_in_the_frame_of_the_input_by_hand(monkeypatch):
    model = tiny_model(image_size=(64, 96), num_scales=3)
    maps = [hot(slice(1, 3), slice(2, 5)), hot(0, slice(0, 3)), torch.ones(1, 4, 6)]
    with_saliency(model, monkeypatch, *maps)
    first, second, third = model(noise(1, 3, 64, 96)).scales
    assert first.boxes[0].tolist() == pytest.approx([32, 16, 80, 48])
    # half of 64 x 96 is 32 x 48: 3 patches across are 24 pixels of the input, 1 down is 8
    assert second.boxes[0].tolist() == pytest.approx([32, 16, 56, 24])
    assert third.boxes[0].tolist() == pytest.approx([32, 16, 56, 24])  # nothing stood out in there
    assert [scale.has_region.item() for scale in (first, second, third)] == [True, True, False]


def test_margin_by_hand(monkeypatch):
    model = tiny_model(image_size=(64, 96), num_scales=3, zoom_margin=0.5)
    maps = [hot(slice(1, 3), slice(2, 5)), hot(0, slice(0, 2)), torch.ones(1, 4, 6)]
    with_saliency(model, monkeypatch, *maps)
    first, second, third = model(noise(1, 3, 64, 96)).scales
    # a quarter of 48 x 32 on each side: 12 across, 8 down
    assert first.boxes[0].tolist() == pytest.approx([20, 8, 92, 56])
    # in that look: (0, 0, 32, 16) with margin (0, 0, 40, 20), cut at its edges, times 72/96 and 48/64
    assert second.boxes[0].tolist() == pytest.approx([20, 8, 50, 23])
    assert third.boxes[0].tolist() == pytest.approx([20, 8, 50, 23])


def test_small_and_long_regions_grow_in_what_their_scale_saw(monkeypatch):
    model = tiny_model(image_size=(64, 96), num_scales=3, min_region=0.5, max_aspect=2)
    maps = [hot(0, slice(0, 6)), hot(slice(1, 3), 5), torch.ones(1, 4, 6)]
    with_saliency(model, monkeypatch, *maps)
    first, second, third = model(noise(1, 3, 64, 96)).scales
    # a strip of 96 x 16: half of the 64 rows, then half of the 96 pixels
    assert first.boxes[0].tolist() == pytest.approx([0, 0, 96, 48])
    # in that: 16 x 32 at (80, 16), half of the 96 across, shifted inside; 48 x 32, then times 1 and 48/64
    assert second.boxes[0].tolist() == pytest.approx([48, 12, 96, 36])
    assert third.boxes[0].tolist() == pytest.approx([48, 12, 96, 36])


def test_the_margin_comes_before_the_limits(monkeypatch):
    model = tiny_model(image_size=(64, 96), zoom_margin=1.0, max_aspect=1)
    with_saliency(model, monkeypatch, hot(slice(0, 2), 0), torch.ones(1, 4, 6))
    # 16 x 32 and half of that on each side: 24 x 48 within the image; as wide as high
    assert model(noise(1, 3, 64, 96)).scales[0].boxes[0].tolist() == pytest.approx([0, 0, 48, 48])


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ("centre", [[24, 16, 72, 48], [40, 28, 56, 36]]),  # 48 x 32; in it a third by a quarter
        ("whole", [[0, 0, 96, 64], [0, 0, 96, 64]]),
    ],
)
def test_controls_place_regions_elsewhere(placement, expected, monkeypatch):
    model = tiny_model(image_size=(64, 96), num_scales=3, region_placement=placement)
    maps = [hot(slice(0, 2), slice(0, 3)), hot(0, slice(0, 2)), torch.ones(1, 4, 6)]
    with_saliency(model, monkeypatch, *maps)
    first, second, third = model(noise(1, 3, 64, 96)).scales
    assert [first.boxes[0].tolist(), second.boxes[0].tolist()] == expected
    assert third.has_region.tolist() == [False]


def test_the_component_of_the_largest_saliency(monkeypatch):
    saliency = torch.zeros(1, 4, 6)
    saliency[:, 3, :4] = 1
    saliency[:, 0, 5] = 9
    for component, box in (("count", [0, 48, 64, 64]), ("saliency", [80, 0, 96, 16])):
        model = with_saliency(
            tiny_model(image_size=(64, 96), component=component, thresholds=(0.1, 0.1)),
            monkeypatch, saliency, torch.ones(1, 4, 6),
        )  # fmt: skip
        assert model(noise(1, 3, 64, 96)).scales[0].boxes[0].tolist() == pytest.approx(box)


def test_a_soft_region_of_two_patches_by_hand(monkeypatch):
    saliency = hot(1, 1) + hot(3, 3)  # centres 24 and 56, three times the variance is 3 * 16^2 + 16^2 / 4
    model = tiny_model(image_size=(64, 96), component="soft")
    with_saliency(model, monkeypatch, saliency, torch.ones(1, 4, 6))
    low, high = 40 - 832**0.5, 40 + 832**0.5
    assert model(noise(1, 3, 64, 96)).scales[0].boxes[0].tolist() == pytest.approx([low, low, high, 64])


def test_boxes_of_overlapping_patches_by_hand(monkeypatch):
    model = tiny_model(image_size=(55, 88), patch_stride=12)  # 4 x 7 patches and 3 rows of pixels left over
    with_saliency(model, monkeypatch, hot(slice(1, 4), 6, (4, 7)), torch.ones(1, 4, 7))
    assert model(noise(1, 3, 55, 88)).scales[0].boxes[0].tolist() == pytest.approx([72, 12, 88, 52])


@pytest.mark.parametrize("zoom_source", ["input", "full"])
def test_later_looks_at_another_size(zoom_source):
    model = tiny_model(num_scales=3, zoom_source=zoom_source, region_size=(80, 64))
    images = noise(5, 3, *SIZE)
    high_res = noise(5, 3, 96, 160, seed=1) if zoom_source == "full" else None
    output = model(images, high_res)
    assert [scale.saliency.shape[1:] for scale in output.scales] == [(3, 5), (5, 4), (5, 4)]
    cut_from, factor = (images, 1) if high_res is None else (high_res, 2)
    for scale in (1, 2):
        crop = zoom(cut_from, factor * output.scales[scale - 1].boxes, (80, 64))
        features = model.encoder(crop, scale)
        torch.testing.assert_close(
            model.encoder.forward_head(features.pooled),
            output.scales[scale].logits,
            rtol=1e-4,
            atol=1e-4,
        )
        box = propose_regions(output.scales[scale].saliency, (80, 64), 1.3).boxes
        outer = output.scales[scale - 1].boxes
        step = (outer[:, 2:] - outer[:, :2]) / torch.tensor([64.0, 80.0])
        expected = outer[:, [0, 1, 0, 1]] + box * step.repeat(1, 2)
        torch.testing.assert_close(output.scales[scale].boxes, expected, rtol=0, atol=1e-3)


def test_images_of_another_size_are_refused():
    with pytest.raises(UsageError, match="images are 64x80 pixels; this model takes 48x80"):
        tiny_model()(noise(1, 3, 64, 80))


def test_thresholds_are_the_configs():
    images = noise(5, 3, *SIZE)
    found = [scale.has_region for scale in tiny_model(thresholds=(0.5, 50.0))(images).scales]
    assert found[0].all()
    assert not found[1].any()


@pytest.mark.parametrize("std", [0.0, 0.3])
def test_nothing_found_is_the_whole_image(std):
    model = tiny_model(num_scales=2, class_tokens="separate")
    vit = model.encoder.model
    for block in vit.blocks:  # no queries: attention is uniform, whatever the keys
        block.attn.qkv.weight.data[:24] = block.attn.qkv.bias.data[:24] = 0
    vit.cls_token.data[:, 1] = vit.cls_token.data[:, 0]
    vit.pos_embed.data[:, 1] = vit.pos_embed.data[:, 0]
    first, second = model(std * noise(3, 3, *SIZE)).scales
    for scale in (first, second):
        assert scale.has_region.tolist() == [False] * 3
        torch.testing.assert_close(scale.boxes, whole(3))
    torch.testing.assert_close(first.logits, second.logits, rtol=1e-4, atol=1e-4)  # the same image again


def test_broken_image_is_found_false_and_alone():
    images = noise(3, 3, *SIZE)
    expected = tiny_model()(images)
    images[1, 0, 0, 0] = torch.nan
    for scale, good in zip(tiny_model()(images).scales, expected.scales, strict=True):
        assert not scale.has_region[1]
        torch.testing.assert_close(scale.boxes[1:2], whole(1))
        torch.testing.assert_close(scale.logits[[0, 2]], good.logits[[0, 2]], rtol=1e-4, atol=1e-4)


def smooth(height, width):
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    wave = torch.sin(7 * y / height)[:, None] * torch.cos(5 * x / width)
    return torch.stack([wave, wave**2, wave.flip(1)])[None]


def test_full_source_of_the_input_enlarged_gives_nearly_the_same():
    fields = {"std": 0.1, "thresholds": (1.01, 1.01)}  # a mild network and a region all the same
    small, full = tiny_model(**fields), tiny_model(**fields, zoom_source="full")
    images, high_res = smooth(*SIZE), smooth(4 * SIZE[0], 3 * SIZE[1])
    x0, y0, x1, y1 = small(images).scales[0].boxes[0].tolist()
    assert (x1 - x0) * (y1 - y0) < SIZE[0] * SIZE[1]
    for scale, other in zip(small(images).scales, full(images, high_res).scales, strict=True):
        torch.testing.assert_close(scale.boxes, other.boxes)
        torch.testing.assert_close(scale.logits, other.logits, rtol=0, atol=0.01)
    assert not torch.equal(small(images).scales[1].logits, full(images, high_res).scales[1].logits)


def test_full_source_is_cut_at_the_enlarged_box():
    model = tiny_model(num_scales=3, zoom_source="full")
    images, high_res = noise(3, 3, *SIZE), noise(3, 3, 2 * SIZE[0], 3 * SIZE[1], seed=1)
    output = model(images, high_res)
    factors = torch.tensor([3.0, 2.0, 3.0, 2.0])
    for scale in (0, 1):
        crop = zoom(high_res, output.scales[scale].boxes * factors, SIZE)
        logits = model.encoder.forward_head(model.encoder(crop, scale + 1).pooled)
        torch.testing.assert_close(logits, output.scales[scale + 1].logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("zoom_source", "given"), [("full", False), ("native", False), ("input", True)])
def test_source_must_go_with_full(zoom_source, given):
    images = noise(1, 3, *SIZE)
    with pytest.raises(UsageError, match=f"'{zoom_source}' and high_res was"):
        tiny_model(zoom_source=zoom_source)(images, images if given else None)


def test_plain_vit_needs_no_source():
    images = noise(1, 3, *SIZE)
    expected = tiny_model(num_scales=1)(images).fused
    assert torch.equal(tiny_model(num_scales=1, zoom_source="full")(images).fused, expected)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_separate_tokens_receive_their_own_scales_gradient(scale):
    model = tiny_model(num_scales=3, class_tokens="separate").train()
    model(noise(2, 3, *SIZE)).scales[scale].logits.square().sum().backward()
    vit = model.encoder.model
    for gradient in (vit.cls_token.grad[0], vit.pos_embed.grad[0, :3]):
        assert gradient.abs().sum(dim=1).nonzero().flatten().tolist() == [scale]


def test_joint_tokens_all_receive_gradient_and_differ():
    model = tiny_model(num_scales=2).train()
    model(noise(2, 3, *SIZE)).scales[0].logits.square().sum().backward()
    gradient = model.encoder.model.cls_token.grad[0]
    assert (gradient.abs().sum(dim=1) > 0).all()
    assert not torch.allclose(gradient[0], gradient[1])


@pytest.mark.parametrize("training", [True, False])
def test_no_gradient_through_the_crop(training):
    model = tiny_model().train(training)
    images = noise(2, 3, *SIZE).requires_grad_()
    first, second = model(images).scales
    assert torch.autograd.grad(first.logits.sum(), images, retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(second.logits.sum(), images, allow_unused=True) == (None,)
    assert not first.saliency.requires_grad
    assert not first.boxes.requires_grad


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_training_skips_the_saliency_nobody_needs(num_scales, monkeypatch):
    model, calls = tiny_model(num_scales=num_scales), []
    saliency = model.saliency
    monkeypatch.setattr(model, "saliency", lambda features: calls.append(1) or saliency(features))
    evaluated = model.eval()(noise(2, 3, *SIZE))
    assert len(calls) == num_scales
    trained = model.train()(noise(2, 3, *SIZE))
    assert len(calls) == num_scales + num_scales - 1
    assert trained.scales[-1][3:] == (None, None, None)
    assert all(None not in scale for scale in (*trained.scales[:-1], *evaluated.scales))
    for one, other in zip(trained.scales, evaluated.scales, strict=True):
        torch.testing.assert_close(one.logits, other.logits)  # no dropout in this model


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_a_last_region_that_is_not_asked_for_is_left_out(num_scales, monkeypatch):
    model, images, calls = tiny_model(num_scales=num_scales), noise(3, 3, *SIZE), []
    saliency = model.saliency
    monkeypatch.setattr(model, "saliency", lambda features: calls.append(1) or saliency(features))
    whole = model(images)
    brief = model(images, last_region=False)
    assert len(calls) == num_scales + num_scales - 1
    assert brief.scales[-1][3:] == (None, None, None)
    assert torch.equal(brief.scales[-1].logits, whole.scales[-1].logits)
    for one, other in zip(brief.scales[:-1], whole.scales[:-1], strict=True):
        assert all(torch.equal(got, want) for got, want in zip(one, other, strict=True))


@pytest.mark.parametrize("least", [1, 30, 10**6])
def test_parts_of_a_batch_give_the_same(least, monkeypatch):
    model, images, sizes = tiny_model(num_scales=2), noise(7, 3, *SIZE), []
    expected = [model(images[[image]]) for image in range(7)]
    monkeypatch.setattr(encoder, "MAX_EXPLICIT_TOKENS", 0)
    monkeypatch.setattr(method, "MIN_CHUNK_TOKENS", least)
    model.encoder.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    with torch.no_grad():
        output = model(images)
    # a share of 10 / 16 for 3 layers; 15 patches an image
    assert sizes == 2 * {1: [4, 3], 30: [4, 3], 10**6: [7]}[least]
    for image in range(7):
        for scale, one in zip(output.scales, expected[image].scales, strict=True):
            for values, value in zip(scale, one, strict=True):
                torch.testing.assert_close(values[[image]], value, rtol=1e-4, atol=1e-4)


def test_recorded_queries_and_keys_keep_nothing_else_alive():
    encoder = tiny_model().encoder
    with torch.no_grad():
        features = encoder(noise(2, 3, *SIZE), 0)
    for call in features.attention:
        for tensor in (call.query, call.key):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    assert encoder(noise(2, 3, *SIZE), 0, num_layers=0).attention == ()


def test_chunks_keep_their_class_tokens_alone(monkeypatch):
    model, kept = tiny_model(), []
    encode = model.encode

    def recorded(*arguments, **options):
        kept.append(encode(*arguments, **options))
        return kept[-1]

    monkeypatch.setattr(encoder, "MAX_EXPLICIT_TOKENS", 0)
    monkeypatch.setattr(method, "MIN_CHUNK_TOKENS", 1)
    monkeypatch.setattr(model, "encode", recorded)
    with torch.no_grad():
        model.forward_scale(noise(7, 3, *SIZE), 0, whole(7))
    assert len(kept) == 2
    for token, saliency in kept:
        for tensor in (token, saliency):
            assert tensor.untyped_storage().nbytes() <= 5 * 24 * 4  # at most 4 images of 24 numbers


def test_images_of_a_batch_do_not_meet():
    model, images = tiny_model(num_scales=3), noise(7, 3, *SIZE)
    together = model(images)
    for image in range(7):
        alone = model(images[[image]])
        for scale, one in zip(together.scales, alone.scales, strict=True):
            for values, value in zip(scale, one, strict=True):
                torch.testing.assert_close(values[[image]], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clone", ["deepcopy", "save"])
def test_a_copy_gives_the_same(clone):
    model, images = tiny_model(), noise(2, 3, *SIZE)
    expected = model(images)
    if clone == "deepcopy":
        twin = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    del model
    assert torch.equal(twin(images).fused, expected.fused)


def test_bfloat16_model_keeps_boxes_in_float32():
    first, second = tiny_model().bfloat16()(noise(2, 3, *SIZE).bfloat16()).scales
    assert first.logits.dtype == second.logits.dtype == torch.bfloat16
    assert first.boxes.dtype == first.saliency.dtype == torch.float32


def test_autocast_on_cpu():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = tiny_model()(noise(2, 3, *SIZE))
    assert output.scales[0].boxes.dtype == output.fused.dtype == torch.float32


def test_number_of_classes_must_be_known():
    with pytest.raises(ConfigError, match="num_classes is not set"):
        build_model(tiny_config(num_classes=None))
