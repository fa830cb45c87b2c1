"""Class activation map, cosine and attention row, worked out by hand; which one a backbone can have."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ramstrans.errors import ConfigError
from ramstrans.models.attention import AttentionCall, join_heads
from ramstrans.models.encoder import Encoder, Features
from ramstrans.models.saliency import SALIENCIES, choose_saliency
from ramstrans.models.saliency.cam import class_map
from ramstrans.models.saliency.class_attention import attention_row
from ramstrans.models.saliency.cosine import cosine_map
from tests.models.builders import OTHERS, noise, other_model, tiny_model, tiny_vit


def features_of(locations, pooled=None, grid=(1, 2), **fields):
    locations = torch.tensor(locations)
    pooled = locations.mean(dim=1) if pooled is None else torch.tensor(pooled)
    defaults = {"attention": (), "pool_attention": None, "class_index": None, "num_prefix": 0}
    defaults["whole"] = locations
    return Features(pooled, locations, grid=grid, **defaults | fields)


def head_of(weight, bias, convolution=False):
    """An encoder that only has a head."""
    weight = torch.tensor(weight)
    head = nn.Conv2d(*weight.T.shape, 1) if convolution else nn.Linear(*weight.T.shape)
    with torch.no_grad():
        head.weight.copy_(weight.view_as(head.weight))
        head.bias.copy_(torch.tensor(bias))
    return SimpleNamespace(
        get_classifier=lambda: head, forward_head=lambda pooled: pooled @ weight.T + torch.tensor(bias)
    )


@pytest.mark.parametrize("convolution", [False, True])
def test_cam_by_hand(convolution):
    """Two locations (1, 2) and (5, -6): logits are 3 + 10, with weights (1, 0), and -2 - 20, with (0, 1)."""
    encoder = head_of([[1.0, 0.0], [0.0, 1.0]], [10.0, -20.0], convolution)
    features = features_of([[[1.0, 2.0], [5.0, -6.0]]])
    for label, parts in ((0, [0.5, 2.5]), (1, [1.0, -3.0])):
        found = class_map(features, encoder, torch.tensor([label]))
        assert found.tolist() == [[parts]]
    assert class_map(features, encoder).tolist() == [[[0.5, 2.5]]]  # of the higher logit
    encoder = head_of([[1.0, 0.0], [0.0, 1.0]], [-20.0, 10.0], convolution)
    saliency = SALIENCIES["cam"].compute(features, encoder, "all")
    assert saliency.tolist() == [[[1.0, 0.0]]]  # what speaks against the class is not salient


def test_cam_is_float32_in_half_precision():
    encoder = head_of([[1.0, 0.0], [0.0, 1.0]], [10.0, -20.0])
    features = features_of([[[1.0, 2.0], [5.0, -6.0]]])
    half = features._replace(pooled=features.pooled.bfloat16(), locations=features.locations.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = SALIENCIES["cam"].compute(half, encoder, "all")
    assert found.dtype == torch.float32
    assert found.tolist() == [[[0.5, 2.5]]]


def test_cosine_by_hand():
    """Of (3, 4) with itself 1, with (4, -3) 0, with (-4, 3) 0, with (-3, -4) -1; above the lowest."""
    locations = [[[3.0, 4.0], [8.0, -6.0], [-4.0, 3.0], [-0.3, -0.4]]]
    features = features_of(locations, [[30.0, 40.0]], grid=(2, 2))
    torch.testing.assert_close(
        cosine_map(features.pooled, features.locations), torch.tensor([[1.0, 0.0, 0.0, -1.0]])
    )
    saliency = SALIENCIES["cosine"].compute(features, None, "all")
    torch.testing.assert_close(saliency, torch.tensor([[[2.0, 1.0], [1.0, 0.0]]]))


def test_cosine_with_the_mean_where_the_pooled_vector_is_of_another_space():
    features = features_of([[[2.0, 0.0], [0.0, 2.0]]], [[1.0, 2.0, 3.0]])  # the mean is (1, 1)
    found = cosine_map(features.pooled, features.locations)
    torch.testing.assert_close(found, torch.full((1, 2), 0.5**0.5))


def test_an_attention_row_by_hand():
    """Scores ln 3 and 0 in one head, 0 and 0 in the other: (3/4 + 1/2) / 2 and (1/4 + 1/2) / 2."""
    query = torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1).expand(1, 2, 2, 1) * torch.tensor(
        [1.0, 5.0]
    ).view(2, 1)
    key = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1).expand(1, 2, 2, 1)
    torch.testing.assert_close(
        attention_row(AttentionCall(query, key, 1.0), 0), torch.tensor([[0.625, 0.375]])
    )
    bias = torch.tensor([[0.0, 3.0], [0.0, 0.0]]).log().view(1, 1, 2, 2)  # no weight on the first token
    row = attention_row(AttentionCall(query, key, 1.0, bias.clamp(min=-1e9)), 0)
    torch.testing.assert_close(row, torch.tensor([[0.0, 1.0]]))


def test_heads_of_parallel_attentions_are_those_of_one():
    calls = [AttentionCall(noise(1, 2, 3, 4, seed=i), noise(1, 2, 3, 4, seed=i + 9), 0.5) for i in range(2)]
    joined = join_heads(calls)
    assert joined.query.shape == (1, 4, 3, 4)
    rows = torch.stack([attention_row(call, 1) for call in calls]).mean(dim=0)
    torch.testing.assert_close(attention_row(joined, 1), rows)
    weights = [torch.stack([attention_row(call, row) for row in range(3)], dim=1) for call in calls]
    torch.testing.assert_close(join_heads(weights)[:, 1], rows)
    assert join_heads(calls[:1]) is calls[0]


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("CNN", {"cosine", "cam"}),
        ("CNN with norms", {"cosine"}),
        ("Eva", {"rollout", "class_attention", "cosine"}),
        ("SigLIP", {"rollout", "pool_attention", "cosine"}),
    ],
)
def test_every_saliency_is_computed_or_refused_in_one_line(name, possible):
    model = other_model(name)
    images = noise(2, 3, *model.image_size)
    for saliency in SALIENCIES:
        if saliency in possible:
            model.set_saliency(saliency)
            assert (model.saliency_name, model.saliency_reason) == (saliency, "as asked for")
            with torch.no_grad():
                scales = model(images).scales
            assert all((scale.saliency >= 0).all() for scale in scales)
            assert scales[0].saliency.shape == (2, *model.encoder.anatomy.grid)
        else:
            with pytest.raises(ConfigError, match=f"model.saliency is {saliency}, which this ") as caught:
                model.set_saliency(saliency)
            assert str(caught.value).endswith(
                f"give auto or {' or '.join(sorted(possible, key=list(SALIENCIES).index))}"
            )


def test_an_average_pooled_vit_without_norm_after_it_has_an_exact_cam():
    """timm's ViTs have a norm before the pooling or after it."""
    for fc_norm, expected in ((False, True), (True, False)):
        vit = tiny_vit(global_pool="avg", backbone_options={"fc_norm": fc_norm})
        encoder = Encoder(vit, 1)
        assert encoder.sums_locations == expected
        assert (SALIENCIES["cam"].unfit(encoder, "all") is None) == expected
        assert choose_saliency(encoder)[0] == "rollout"
    assert not Encoder(tiny_vit(), 1).sums_locations


def test_cam_of_an_average_pooled_vit_is_its_logit():
    encoder = Encoder(tiny_vit(global_pool="avg", backbone_options={"fc_norm": False, "reg_tokens": 2}), 1)
    images, labels = noise(3, 3, 48, 80), torch.tensor([4, 0, 2])
    with torch.no_grad():
        features = encoder(images, 0)
        parts = class_map(features, encoder, labels)
        logits = encoder.model(images)
    found = parts.sum(dim=(1, 2)) + encoder.model.head.bias[labels]
    torch.testing.assert_close(found, logits[range(3), labels], rtol=1e-4, atol=1e-5)


def test_what_is_recorded_is_what_is_needed():
    model = tiny_model(num_scales=2)
    for saliency, count in (("rollout", 3), ("class_attention", 1), ("cosine", 0)):
        model.set_saliency(saliency)
        assert model.num_recorded == count
    for layers, count in ((1, 1), (2, 2), (3, 3), (99, 3)):
        assert tiny_model(num_scales=2, saliency_layers=layers).num_recorded == count


@pytest.mark.parametrize("name", OTHERS)
def test_what_was_decided_is_told(name):
    lines = other_model(name).describe()
    pooled = {
        "Eva": "the class token; 2 class tokens, all in every pass",
        "SigLIP": "an attention pool; the same",
    }
    assert lines[0].startswith(f"the head reads {pooled.get(name, 'the mean of all locations; the same')}")
    grid = "2x3" if "CNN" in name else "3x5"
    by = {"CNN": "cam", "CNN with norms": "cosine", "Eva": "rollout", "SigLIP": "pool_attention"}[name]
    assert lines[1].startswith(f"regions by {by} of {grid} locations: ")


def test_one_location_tells_no_region():
    with pytest.raises(ConfigError, match="have one location, which tells no region; give a larger"):
        other_model("CNN", image_size=32)
    assert other_model("CNN", image_size=32, num_scales=1).encoder.anatomy.grid == (1, 1)
