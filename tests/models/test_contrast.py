"""Contrasts of two classes: exact where a decomposition exists, and the derivative that they say to be."""

import threading
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ramstrans.errors import ConfigError
from ramstrans.models import contrast
from ramstrans.models.config import ModelConfig
from ramstrans.models.contrast import FixedScales, contrasts, reads_by_attention
from ramstrans.models.methods.build import build_model
from tests.models.builders import OTHERS, noise, other_model, randomise, tiny_config, tiny_model

FIRST, SECOND = torch.tensor([1, 4]), torch.tensor([3, 0])


def run(model, first=FIRST, second=SECOND):
    """The output, and the contrasts, of two images of noise."""
    images = noise((2, 3, *model.image_size))
    with torch.inference_mode():  # as a predictor computes
        output = model(images, last_region=True)
    return output, contrasts(model, images, None, output, first, second)


def logit_differences(stage, first=FIRST, second=SECOND):
    return stage.logits.gather(1, first[:, None])[:, 0] - stage.logits.gather(1, second[:, None])[:, 0]


EXACT = {
    "mean of tokens": lambda: tiny_model(global_pool="avg", backbone_options={"fc_norm": False}),
    "mean of tokens, then a norm": lambda: tiny_model(global_pool="avg", backbone_options={"fc_norm": True}),
    "CNN": lambda: other_model("CNN"),
    "CNN with norms": lambda: other_model("CNN with norms"),
}


@pytest.mark.parametrize("kind", EXACT)
def test_maps_add_up_to_the_difference_where_the_head_is_linear(kind):
    model = randomise(EXACT[kind](), seed=5)
    assert not reads_by_attention(model.encoder)
    output, found = run(model)
    head, norm = model.encoder.get_classifier(), None
    if "norm" in kind:
        own = model.encoder.model
        norm = own.fc_norm if hasattr(own, "fc_norm") else own.head.norm
    bias = head.bias if norm is None else head.bias + head.weight @ norm.bias
    assert len(found) == 2
    for stage, (maps, difference) in zip(output.scales, found, strict=True):
        assert maps.shape == stage.saliency.shape
        torch.testing.assert_close(difference, logit_differences(stage), rtol=1e-4, atol=1e-4)
        total = maps.sum(dim=(1, 2)) + bias[FIRST] - bias[SECOND]
        torch.testing.assert_close(total, difference, rtol=1e-3, atol=1e-3)
        assert maps.abs().sum() > 0


def test_a_map_of_a_mean_is_that_of_cam():
    model = randomise(other_model("CNN"))
    images = noise((2, 3, *model.image_size))
    _, (found, _) = run(model)
    features = model.encoder(images, 0)
    weight = model.encoder.get_classifier().weight
    parts = features.locations @ (weight[FIRST] - weight[SECOND])[:, :, None]
    expected = parts.reshape(2, *features.grid) / features.locations.shape[1]
    torch.testing.assert_close(found.maps, expected, rtol=1e-4, atol=1e-5)


class Scaled(TorchFunctionMode):
    """Multiplies what is read from one location, with the attention weights of a first pass."""

    def __init__(self, weights, location, factor):
        super().__init__()
        self.weights, self.location, self.factor, self.calls = weights, location, factor, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        if self.factor is None:
            scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
            self.weights.append(scores.softmax(dim=-1))
        weights = self.weights[self.calls]
        self.calls += 1
        factors = torch.ones(value.shape[-2], dtype=value.dtype)
        if self.factor is not None:
            factors[self.location] = self.factor
        return weights @ (value * factors[:, None])


@pytest.mark.parametrize("kind", ["ViT", "Eva", "SigLIP"])
def test_a_map_of_what_is_read_is_the_derivative_by_a_factor_on_it(kind):
    """By finite differences in float64, at three locations."""
    model = (tiny_model(num_scales=1) if kind == "ViT" else other_model(kind, num_scales=1)).double()
    images, weights, step = noise((1, 3, *model.image_size)).double(), [], 1e-4
    box, classes = torch.zeros(1, 4), (torch.tensor([2]), torch.tensor([0]))

    def difference(location=0, factor=None):
        with torch.no_grad(), Scaled(weights, location, factor):
            logits = model.forward_scale(images, 0, box, with_region=False).logits
        return float(logits[0, 2] - logits[0, 0])

    expected = difference()
    rows, columns = model.encoder.anatomy.grid
    prefix = model.encoder.anatomy.num_prefix
    images32 = images.float()
    model = model.float()
    output = model(images32, last_region=True)
    (found,) = contrasts(model, images32, None, output, *classes)
    assert found.difference.item() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    model = model.double()
    scale = found.maps.abs().max().item()
    for row, column in ((0, 0), (1, 3), (rows - 1, columns - 1)):
        location = prefix + row * columns + column
        slope = (difference(location, 1 + step) - difference(location, 1 - step)) / (2 * step)
        assert found.maps[0, row, column].item() == pytest.approx(slope, abs=0.01 * scale)


def test_one_layer_by_hand():
    """One query reads two values with weights 1/4 and 3/4: each location's part is weight times value."""
    values = []
    query = torch.zeros(1, 1, 1, 2)
    key = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]]])
    bias = torch.log(torch.tensor([[[[0.25, 0.75]]]]))
    value = torch.tensor([[[[4.0, 0.0], [8.0, 4.0]]]], requires_grad=True)
    with contrast.KeepValues(values):
        read = F.scaled_dot_product_attention(query, key, value, bias)
    products = contrast._times_gradient((read * torch.tensor([1.0, -1.0])).sum(dim=(1, 2, 3)), values)
    assert products[0].sum(dim=(1, 3)).tolist() == [[1.0, 3.0]]  # 4/4, and 3/4 of 8 - 4


def test_a_value_that_two_calls_read_counts_once():
    """As in differential attention: 1/2 of each value, less 1/4 and 3/4 of them."""
    values = []
    query, key = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 2, 2)
    bias = torch.log(torch.tensor([[[[0.25, 0.75]]]]))
    value = torch.tensor([[[[4.0, 0.0], [8.0, 4.0]]]], requires_grad=True)
    with contrast.KeepValues(values):
        read = F.scaled_dot_product_attention(query, key, value)
        read = read - F.scaled_dot_product_attention(query, key, value, bias)
    products = contrast._times_gradient((read * torch.tensor([1.0, -1.0])).sum(dim=(1, 2, 3)), values)
    assert [one.sum(dim=(1, 3)).tolist() for one in products] == [[[1.0, -1.0]]]


@pytest.mark.parametrize("name", ["ViT", *OTHERS])
def test_the_other_way_round_is_the_negative(name):
    model = tiny_model() if name == "ViT" else other_model(name)
    for forth, back in zip(run(model)[1], run(model, SECOND, FIRST)[1], strict=True):
        torch.testing.assert_close(forth.maps, -back.maps, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(forth.difference, -back.difference)


@pytest.mark.parametrize("method", ["plain", "rams", "transfg", "ffvt", "glsim", "calcrop"])
def test_every_method_has_a_contrast(method):
    one = {} if method in ("rams", "calcrop") else {"num_scales": 1}
    model = randomise(build_model(tiny_config(method=method, **one)), seed=3)
    output, found = run(model)
    assert len(found) == len(output.scales)
    for stage, (maps, difference) in zip(output.scales, found, strict=True):
        assert maps.shape == stage.saliency.shape
        assert maps.abs().sum() > 0
        torch.testing.assert_close(difference, logit_differences(stage), rtol=1e-3, atol=1e-3)


def test_a_token_that_is_no_parameter_of_the_model_is_read_by_attention_or_refused():
    patches = {"embed_dim": 16, "depth": 2, "num_heads": 2}
    config = ModelConfig("naflexvit_base_patch16_par_gap", num_classes=5, image_size=64, num_scales=1)
    config = replace(config, global_pool="token", backbone_options=patches | {"class_token": True})
    assert all(found.maps.abs().sum() > 0 for found in run(randomise(build_model(config), seed=3))[1])
    coat = build_model(ModelConfig("coat_lite_tiny", num_classes=5, image_size=64, num_scales=1)).eval()
    with pytest.raises(ConfigError, match="leave --against out"):
        run(coat)


def test_without_attention_over_the_locations_there_is_no_contrast():
    with pytest.raises(ConfigError, match="leave --against out"):
        contrast._of_locations([torch.zeros(1, 2, 40, 8)], count=15, num_prefix=1)


def test_norms_stay_what_they_are():
    values, weight, bias = noise((3, 7)), noise((7,)), noise((7,))
    expected = F.layer_norm(values, (7,), weight, bias, 1e-6)
    with FixedScales():
        torch.testing.assert_close(F.layer_norm(values, (7,), weight, bias, 1e-6), expected)


def test_a_pass_of_another_thread_is_not_taken_for_its_own():
    model = other_model("CNN")
    seen = contrast._Seen(model.encoder)
    with seen:
        thread = threading.Thread(target=lambda: model.encoder(noise((1, 3, *model.image_size)), 0))
        thread.start()
        thread.join()
    assert seen.features == []
    assert not model.encoder._forward_hooks
