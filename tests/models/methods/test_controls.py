"""Fewer scales than were trained, crops in training alone, and regions that lie elsewhere."""

from typing import get_args

import pytest
import torch

from ramstrans.bench.flops import macs_of
from ramstrans.errors import ConfigError, UsageError
from ramstrans.models.config import MethodName
from ramstrans.models.methods.boxes import draws_of, moved, within
from ramstrans.models.methods.build import METHODS
from ramstrans.models.methods.early_exit import exit_early
from ramstrans.models.zoom import zoom
from tests.models.builders import SIZE, noise, tiny_config, tiny_model


def test_every_method_has_its_name():
    assert list(METHODS) == list(get_args(MethodName))
    for name, method in METHODS.items():
        assert type(tiny_model(method=name)) is method


@pytest.mark.parametrize("class_tokens", ["joint", "separate", "shared"])
@pytest.mark.parametrize("count", [1, 2])
def test_the_first_scales_are_those_of_the_whole_model(class_tokens, count):
    model, images = tiny_model(num_scales=3, class_tokens=class_tokens), noise(3, 3, *SIZE)
    with torch.no_grad():
        expected = model(images).scales
        model.limit_scales(count)
        found = model(images)
    assert len(found.scales) == count == model.num_scales
    assert model.scale_sizes == (SIZE,) * count
    for scale, want in zip(found.scales, expected, strict=False):
        assert torch.equal(scale.logits, want.logits)
        assert torch.equal(scale.boxes, want.boxes)
    assert torch.equal(found.fused, sum(scale.logits.softmax(dim=1) for scale in expected[:count]) / count)
    model.train()
    assert len(model(images).scales) == 3  # training has all


def test_more_scales_than_were_trained_are_refused():
    for count in (0, 3):
        with pytest.raises(UsageError, match=f"num_scales is {count}; this model has 2 scales: give 1 to 2"):
            tiny_model().limit_scales(count)
    with pytest.raises(UsageError, match="this model has 1 scale: leave it out"):
        tiny_model(method="plain").limit_scales(2)


def test_one_scale_of_several_needs_no_other_resolution():
    model = tiny_model(zoom_source="full")
    assert model.needs_high_res
    model.limit_scales(1)
    assert not model.needs_high_res
    assert len(model(noise(1, 3, *SIZE)).scales) == 1


def test_plain_is_one_scale_by_its_own_name():
    plain, one, images = tiny_model(method="plain"), tiny_model(num_scales=1), noise(2, 3, *SIZE)
    assert plain.state_dict().keys() == one.state_dict().keys()
    assert torch.equal(plain(images).fused, one(images).fused)
    with pytest.raises(ConfigError, match=r"model.num_scales is 3; plain has one scale: leave it out"):
        tiny_config(method="plain", num_scales=3)


def test_crops_are_views_of_the_pass_that_evaluation_takes():
    model, plain, images = tiny_model(method="calcrop"), tiny_model(method="plain"), noise(3, 3, *SIZE)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        (only,) = model(images).scales
        assert torch.equal(only.logits, plain(images).scales[0].logits)
        model.train()
        first, second = model(images).scales
        torch.testing.assert_close(first.logits, only.logits)
        crop = plain(zoom(images, first.boxes, SIZE)).scales[0]
    torch.testing.assert_close(second.logits, crop.logits, rtol=1e-4, atol=1e-4)
    assert (model.num_trained, model.num_scales) == (2, 1)
    model.eval()
    model.limit_scales(2)
    assert model.needs_high_res == (model.zoom_source != "input")
    looks = model(images)
    assert [scale.logits.argmax(dim=1).tolist() for scale in looks.scales] == [
        scale.logits.argmax(dim=1).tolist() for scale in (first, second)
    ]
    with pytest.raises(UsageError, match="num_scales is 3; this model has 2 scales: give 1 to 2"):
        model.limit_scales(3)
    with pytest.raises(ConfigError, match=r"model.class_tokens is joint; calcrop trains the pass"):
        tiny_config(method="calcrop", class_tokens="joint")


def test_it_costs_what_the_plain_backbone_costs():
    assert macs_of(tiny_config(method="calcrop")) == macs_of(tiny_config(method="plain"))
    two = macs_of(tiny_config(class_tokens="shared"))
    assert two > 2 * macs_of(tiny_config(method="plain"))


def test_the_looks_of_an_evaluation():
    counts = {name: len(tiny_config(method=name).look_sizes) for name in METHODS}
    assert counts == {"plain": 1, "rams": 2, "transfg": 1, "ffvt": 1, "glsim": 2, "calcrop": 1}


def test_given_boxes_are_looked_at():
    model, images = tiny_model(num_scales=3, region_placement="given"), noise(4, 3, *SIZE)
    nan = float("nan")
    boxes = torch.tensor([[8.0, 16, 40, 48], [-9, 30, 99, 60], [90, 0, 99, 9], [nan] * 4])
    with torch.no_grad():
        first, second, _ = model(images, boxes=boxes).scales
    expected = [[8, 16, 40, 48], [0, 30, 80, 48], [0, 0, 80, 48], [0, 0, 80, 48]]
    assert first.boxes.tolist() == expected
    assert first.has_region.tolist() == [True, True, False, False]
    torch.testing.assert_close(second.crop_box, first.boxes)
    torch.testing.assert_close(second.boxes, first.boxes)  # inside of it there is no more to cut off
    crop = zoom(images, first.boxes, SIZE)
    torch.testing.assert_close(
        second.logits, model.encoder.forward_head(model.encoder(crop, 1).pooled), rtol=1e-4, atol=1e-4
    )


def test_given_boxes_have_margin_and_limits_too():
    model = tiny_model(region_placement="given", max_aspect=1, zoom_margin=0.5)
    box = torch.tensor([[32.0, 8, 48, 40]])
    # half of 16 x 32 more is 24 x 48; a square of 48
    found = model(noise(1, 3, *SIZE), boxes=box).scales[0].boxes
    assert found[0].tolist() == pytest.approx([16, 0, 64, 48], abs=1e-4)


def test_given_boxes_must_be_there_where_they_are_looked_at():
    images = noise(1, 3, *SIZE)
    with pytest.raises(UsageError, match="looks at the true boxes, and there are none"):
        tiny_model(region_placement="given")(images)
    one = tiny_model(region_placement="given")
    one.limit_scales(1)
    assert len(one(images).scales) == 1
    assert len(tiny_model(method="calcrop", region_placement="given")(images).scales) == 1


def test_given_boxes_go_on_with_their_images():
    model, images = tiny_model(region_placement="given"), noise(3, 3, *SIZE)
    boxes = torch.tensor([[0.0, 0, 16, 16], [16, 16, 48, 32], [64, 32, 80, 48]])
    with torch.no_grad():
        certain = model(images, boxes=boxes).scales[0].logits.softmax(dim=1).amax(dim=1)
        output = exit_early(model, images, boxes=boxes, confidence=float(certain.sort().values[1]))
    assert output.indices[1].tolist() == [int(certain.argmin())]
    assert torch.equal(output.scales[1].crop_box, boxes[output.indices[1]])


def test_random_regions_have_the_sides_of_those_found_and_lie_in_the_image():
    found, elsewhere = tiny_model(), tiny_model(region_placement="random")
    images = noise(9, 3, *SIZE)
    with torch.no_grad():
        first, placed = found(images).scales[0], elsewhere(images).scales[0]
    sides = first.boxes[:, 2:] - first.boxes[:, :2]
    torch.testing.assert_close(placed.boxes[:, 2:] - placed.boxes[:, :2], sides)
    assert not torch.equal(placed.boxes, first.boxes)
    assert (placed.boxes[:, :2] >= 0).all()
    assert (placed.boxes[:, 2:] <= torch.tensor([80.0, 48.0]) + 1e-4).all()


def test_random_regions_follow_from_the_image_whatever_the_batch():
    model, images = tiny_model(num_scales=3, region_placement="random"), noise(5, 3, *SIZE)
    with torch.no_grad():
        together = model(images).scales
        alone = [model(image[None]).scales for image in images]
        again = model(images.flip(0)).scales
    assert torch.equal(together[0].boxes, torch.cat([scales[0].boxes for scales in alone]))
    assert torch.equal(together[0].boxes.flip(0), again[0].boxes)


def test_random_regions_are_drawn_again_in_each_step():
    model, images = tiny_model(region_placement="random", thresholds=(1.0, 1.0)).train(), noise(5, 3, *SIZE)
    torch.manual_seed(3)
    first, second = (model(images).scales[0].boxes for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(model(images).scales[0].boxes, first)
    assert not torch.equal(first, second)


def test_other_placements_draw_nothing():
    images = noise(2, 3, *SIZE)
    for placement in ("found", "centre", "whole"):
        torch.manual_seed(0)
        tiny_model(region_placement=placement).train()(images)
        state = torch.get_rng_state()
        torch.manual_seed(0)
        tiny_model(region_placement=placement)
        assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_spread_evenly():
    draws = draws_of(noise(2000, 1, 2, 2))
    assert draws.shape == (2000, 2)
    assert ((draws >= 0) & (draws < 1)).all()
    for axis in (0, 1):
        counts = torch.histc(draws[:, axis], 10, 0, 1)
        assert ((counts - 200).abs() < 60).all()
    assert abs(torch.corrcoef(draws.T)[0, 1]) < 0.1


def test_boxes_move_and_become_shares_by_hand():
    crop = torch.tensor([[10.0, 20, 50, 40]])
    box = torch.tensor([[10.0, 20, 20, 25]])
    assert moved(box, crop, torch.tensor([[0.0, 0.5]])).tolist() == [[10, 27.5, 20, 32.5]]
    shares, is_inside = within(torch.tensor([[0.0, 25, 30, 99]]), crop)
    assert shares.tolist() == [[0, 0.25, 0.5, 1]]
    assert is_inside.tolist() == [True]


@pytest.mark.parametrize("placement", ["random", "given"])
def test_glsim_has_no_such_control(placement):
    with pytest.raises(ConfigError, match="goes with the methods rams and calcrop; for glsim give found"):
        tiny_config(method="glsim", region_placement=placement)
