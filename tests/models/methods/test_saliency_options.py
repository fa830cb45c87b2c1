"""Saliency averaged over mirrored views, and smoothed: off by default, the same regions by hand where on."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ramstrans.bench.flops import macs_of
from ramstrans.errors import ConfigError
from ramstrans.models.regions import propose_regions, smoothed
from tests.models.builders import SIZE, noise, other_model, tiny_config, tiny_model


def test_saliency_of_mirrored_views_is_a_mean():
    images = noise(3, 3, *SIZE)
    plain, mirrored = tiny_model(), tiny_model(saliency_mirrored=True)
    with torch.no_grad():
        one, other = plain(images).scales[0], plain(images.flip(-1)).scales[0]
        found = mirrored(images).scales[0]
    assert torch.equal(found.logits, one.logits)
    assert torch.allclose(found.saliency, (one.saliency + other.saliency.flip(-1)) / 2)
    assert not torch.allclose(found.saliency, one.saliency, atol=1e-4)
    assert torch.equal(found.boxes, propose_regions(found.saliency, SIZE, 1.2, patch_size=(16, 16)).boxes)


@pytest.mark.parametrize("name", ["CNN", "SigLIP"])
def test_regions_of_mirrored_images_are_mirrored(name):
    """What the mean is for: a region does not depend on the side from which the bird is seen."""
    model = other_model(
        name, saliency_mirrored=True, component="saliency"
    )  # by count, the first one of equals
    images, width = noise(4, 3, *model.image_size), model.image_size[1]
    with torch.no_grad():
        boxes, mirrored = (model(pixels).scales[0].boxes for pixels in (images, images.flip(-1)))
    x0, y0, x1, y1 = mirrored.unbind(dim=1)
    assert torch.allclose(torch.stack([width - x1, y0, width - x0, y1], dim=1), boxes)


def test_training_uses_the_mean_too_and_descends_the_image_alone():
    images = noise(2, 3, *SIZE)
    plain, mirrored = tiny_model().train(), tiny_model(saliency_mirrored=True).train()
    with torch.no_grad():
        expected = tiny_model(saliency_mirrored=True)(images).scales[0].boxes
    for model in (plain, mirrored):
        stage = next(model.stages(images))
        stage.logits.sum().backward()
    assert torch.equal(stage.boxes, expected)
    for one, other in zip(plain.parameters(), mirrored.parameters(), strict=True):
        assert one.grad is other.grad is None or torch.equal(one.grad, other.grad)


def test_a_mirrored_view_costs_a_pass_for_each_region():
    """Three scales have two regions: five passes, four of them rolled out, three with the head."""
    one, two, three, five = (
        macs_of(tiny_config(num_scales=count, saliency_mirrored=mirrored, class_tokens="separate"))
        for count, mirrored in ((1, False), (2, False), (3, False), (3, True))
    )
    rolled_out = two - one
    assert five == one + 4 * rolled_out - 2 * (24 * 5)
    assert three == one + 2 * rolled_out


@pytest.mark.parametrize("sigma", [0.3, 0.7, 2.5])
def test_smoothing_is_scipys(sigma):
    saliency = noise(3, 5, 7).abs()
    reach = int(np.ceil(3 * sigma))
    theirs = [gaussian_filter(one, sigma, mode="nearest", radius=reach) for one in saliency.numpy()]
    assert smoothed(saliency, sigma).numpy() == pytest.approx(np.stack(theirs), abs=1e-6)
    assert torch.allclose(smoothed(torch.ones(1, 3, 4), sigma), torch.ones(1, 3, 4))


def test_smoothing_joins_what_lies_close():
    """Two hot spots with one cool location between them: apart, and one region once smoothed."""
    saliency = torch.zeros(1, 6, 7)
    saliency[0, 2, [1, 3]] = 1
    model = tiny_model(image_size=(96, 112), saliency_blur=0.8)
    assert propose_regions(saliency, (96, 112)).boxes.tolist() == [[16, 32, 32, 48]]
    (x0, y0, x1, y1), _ = model.propose(saliency, 0)[0][0].tolist(), None
    assert x0 <= 16
    assert x1 >= 64
    assert y0 <= 32 < y1


def test_saliency_that_is_shown_is_not_smoothed():
    images = noise(2, 3, *SIZE)
    with torch.no_grad():
        plain, blurred = tiny_model()(images).scales[0], tiny_model(saliency_blur=0.5)(images).scales[0]
    assert torch.equal(plain.saliency, blurred.saliency)
    assert not smoothed(torch.full((1, 2, 2), torch.nan), 1.0).isfinite().any()


def test_what_does_not_go_with_the_options():
    with pytest.raises(ConfigError, match=r"model\.saliency_blur is -1; give 0 or more"):
        tiny_config(saliency_blur=-1)
    with pytest.warns(UserWarning, match="model.saliency_mirrored is ignored without model.method rams"):
        tiny_config(saliency_mirrored=True, method="transfg")
    with pytest.warns(UserWarning, match="model.saliency_blur is ignored without model.method rams"):
        tiny_config(saliency_blur=1.0, method="glsim")
