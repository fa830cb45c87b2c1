"""Every kind of transformer against timm's own attention, computed with its fused kernel off."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ramstrans.models.attention import ExplicitAttention
from ramstrans.models.backbones import build_backbone
from ramstrans.models.encoder import Encoder, reads_class_token
from ramstrans.models.saliency import SALIENCIES, choose_saliency
from ramstrans.models.saliency.class_attention import attention_row
from tests.models.builders import noise, randomise, tiny_config
from tests.models.families import FAMILIES, GRID, encoder_of, timm_attention
from tests.models.oracles import float64, rollout_of_weights

every_family = pytest.mark.parametrize("name", FAMILIES)
POOLED = ("SigLIP 2", "PE core", "NaFlex SigLIP")
ROTATED = (
    *("DINOv3, class token", "DINOv3, bias", "EVA-02, class token", "EVA-02-CLIP"),
    *("RoPE-ViT, axial", "RoPE-ViT, axial, absolute positions", "RoPE-ViT, mixed"),
    *("RoPE-ViT, mixed, absolute positions", "Sapiens 2, grouped queries"),
)


def maps(encoder, images, name, rows="all"):
    """Features, and the saliency: by the fused kernel, then by matrix products, as on CPUs."""
    saliency, found = SALIENCIES[name], []
    with torch.no_grad():
        for explicit in (True, False):
            features = encoder(
                images, 0, num_layers=saliency.num_layers(encoder), explicit_attention=explicit
            )
            found.append(saliency.compute(features, encoder, rows))
    return features, found


def check_maps(found, expected):
    for saliency in found:
        assert saliency.dtype == torch.float32
        np.testing.assert_allclose(saliency, expected, rtol=2e-5)


@every_family
def test_rollout_is_that_of_timms_attention(name):
    """In float64, but for the rollout itself."""
    encoder, images = encoder_of(name)
    encoder, images = encoder.double(), images.double()
    weights, _ = timm_attention(encoder, images)
    if FAMILIES[name].num_heads != weights[0].shape[1]:  # parallel ones: their heads are those of one layer
        weights = [torch.cat(pair, dim=1) for pair in zip(weights[::2], weights[1::2], strict=True)]
    features, found_maps = maps(encoder, images, "rollout")
    assert len(weights) == len(features.attention) == encoder.anatomy.num_layers == 3
    for weight, call in zip(weights, features.attention, strict=True):
        assert call.query.shape[:3] == call.key.shape[:3] == weight.shape[:3]
        bias = 0 if call.bias is None else call.bias
        found = (call.scale * call.query @ call.key.mT + bias).softmax(dim=-1)
        torch.testing.assert_close(found, weight, rtol=1e-9, atol=1e-12)
        assert weight.std() > 5e-4  # not uniform, or the order of layers would not show
    options = {"num_prefix": features.num_prefix, "grid": GRID}
    expected, _ = rollout_of_weights([weight.numpy() for weight in weights], **options)
    check_maps(found_maps, expected)
    assert choose_saliency(encoder) == ("rollout", "every layer is attention among all tokens")
    has_pool = SALIENCIES["pool_attention"].unfit(encoder, "all") is None
    assert has_pool == encoder.anatomy.pools_by_attention == (name in POOLED)
    if features.class_index is not None:
        _, found_maps = maps(encoder, images, "rollout", "class")
        expected, _ = rollout_of_weights([weight.numpy() for weight in weights], **options, rows="class")
        check_maps(found_maps, expected)
        _, found_maps = maps(encoder, images, "class_attention")
        expected = weights[-1].mean(dim=1)[:, 0, features.num_prefix :].unflatten(1, GRID)
        check_maps(found_maps, expected)


@pytest.mark.parametrize("count", [1, 2])
def test_the_last_layers_alone_are_recorded(count):
    encoder, images = encoder_of("two attentions in parallel")
    with torch.no_grad():
        every, last = encoder(images, 0), encoder(images, 0, num_layers=count)
    assert len(last.attention) == count
    for call, expected in zip(last.attention, every.attention[-count:], strict=True):
        assert torch.equal(call.query, expected.query)
        assert torch.equal(call.key, expected.key)


@pytest.mark.parametrize("name", POOLED)
def test_pool_attention_begins_at_the_pools_weights(name):
    encoder, images = encoder_of(name)
    encoder, images = encoder.double(), images.double()
    weights, pool = timm_attention(encoder, images)
    features, found_maps = maps(encoder, images, "pool_attention")
    row = float64(pool.mean(dim=1)[:, 0])
    np.testing.assert_allclose(attention_row(features.pool_attention, 0), row, rtol=2e-5)
    row = np.concatenate([np.zeros((2, weights[0].shape[-1] - row.shape[1])), row], axis=1)
    for weight in reversed(weights):  # the row vector, pushed through the layers
        row = (row + np.einsum("bi,bij->bj", row, float64(weight.mean(dim=1)))) / 2
    check_maps(found_maps, row[:, features.num_prefix :].reshape(2, *GRID))
    with torch.no_grad():
        assert encoder(images, 0, num_layers=0).pool_attention is None


@every_family
def test_one_scale_is_timms_model_by_either_attention_recorded_or_not(name):
    encoder, images = encoder_of(name)
    with torch.no_grad():
        features = encoder(images, 0)
        assert torch.equal(features.pooled, encoder(images, 0, num_layers=0).pooled)
        with ExplicitAttention():
            explicit = encoder(images, 0, num_layers=0)
        torch.testing.assert_close(explicit.pooled, features.pooled, rtol=1e-4, atol=1e-5)
        logits = encoder.forward_head(features.pooled)
        torch.testing.assert_close(logits, encoder.model(images), rtol=1e-5, atol=1e-5)
        last = encoder.model.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[-1]
    assert features.grid == encoder.anatomy.grid == GRID
    torch.testing.assert_close(features.locations, last.flatten(2).mT, rtol=1e-5, atol=1e-5)


def by_hand(name, num_scales):
    """A timm model that has the further class tokens as registers, right after its own: (it, its tokens)."""
    family = FAMILIES[name]
    extra = num_scales - 1
    plain = family.build()
    has_registers = plain.reg_token is not None
    count = plain.reg_token.shape[1] if has_registers else 0
    twin = family._replace(options=dict(family.options) | {"num_reg_tokens": count + extra}).build()
    state = copy.deepcopy(plain.state_dict())
    token = state["cls_token"]
    given = [state["reg_token"]] if has_registers else []
    state["reg_token"] = torch.cat([token] * extra + given, dim=1)
    if state.get("pos_embed") is not None and not plain.no_embed_class:
        position = state["pos_embed"]
        state["pos_embed"] = torch.cat([position[:, :1]] * extra + [position], dim=1)
    twin.load_state_dict(state)
    return plain, twin


@pytest.mark.parametrize("name", ROTATED)
def test_further_class_tokens_are_not_rotated(name):
    """The widened model is timm's own with the same tokens as registers, which timm does not rotate."""
    plain, twin = by_hand(name, 3)
    encoder = Encoder(plain, 3, size=FAMILIES[name].size).eval()
    assert encoder.class_tokens == "joint"
    images = FAMILIES[name].images()
    shift = noise(3, 16 if "Sapiens" not in name else 32, seed=7)
    with torch.no_grad():
        encoder.model.cls_token += shift
        twin.cls_token += shift[:1]
        twin.reg_token[:, :2] += shift[1:]
        expected = twin.forward_features(images)
        for scale in range(3):
            features = encoder(images, scale)
            assert features.class_index == scale
            assert features.num_prefix == twin.num_prefix_tokens
            head = twin.fc_norm(expected[:, scale])
            torch.testing.assert_close(features.pooled, head, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(
                features.locations, expected[:, features.num_prefix :], rtol=1e-5, atol=1e-5
            )
    weights, _ = timm_attention(encoder, images)
    for call, weight in zip(features.attention, weights, strict=True):
        found = (call.scale * call.query @ call.key.mT).softmax(dim=-1)
        torch.testing.assert_close(found, weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("no_embed_class", [False, True])
def test_further_class_tokens_have_positions_where_the_first_has_one(no_embed_class):
    family = FAMILIES["EVA-02, class token"]
    family = family._replace(options={"no_embed_class": no_embed_class, "num_reg_tokens": 2})
    model = family.build()
    before = model.pos_embed.detach().clone()
    encoder = Encoder(model, 2, size=family.size)
    after = encoder.model.pos_embed
    expected = before if no_embed_class else torch.cat([before[:, :1], before], dim=1)
    assert torch.equal(after, expected)
    with torch.no_grad():
        first, second = (encoder(family.images(), scale) for scale in range(2))
    torch.testing.assert_close(first.pooled, second.pooled, rtol=1e-5, atol=1e-5)  # still copies
    assert first.num_prefix == 4


@pytest.mark.parametrize("name", FAMILIES)
def test_class_tokens_by_family(name):
    """Joint ones where a plain ViT or an Eva is read at its class token; else all scales share everything."""
    encoder, images = encoder_of(name, 2)
    is_widened = reads_class_token(encoder.model) and "BEiT" not in name
    assert encoder.class_tokens == ("joint" if is_widened else "shared")
    with torch.no_grad():
        first, second = encoder(images, 0), encoder(images, 1)
    assert first.class_index == (0 if reads_class_token(encoder.model) else None)
    assert second.class_index == (1 if is_widened else first.class_index)
    if not is_widened:
        assert torch.equal(first.pooled, second.pooled)


REGIONS = {name: FAMILIES[name] for name in ("DINOv3, class token", "EVA-02", "SigLIP 2", "RoPE-ViT, mixed")}


@pytest.mark.parametrize("name", REGIONS)
def test_later_scales_may_have_another_size(name):
    family = FAMILIES[name]
    size = (4 * family.patch, 7 * family.patch)
    options = {"embed_dim": 16} | dict(family.options)
    config = tiny_config(
        backbone=family.backbone,
        image_size=family.size,
        region_size=size,
        global_pool=family.global_pool,
        backbone_options=options,
    )
    encoder = Encoder(randomise(build_backbone(config)), 2, size=config.input_size).eval()
    images = noise(2, 3, *size)
    with torch.no_grad():
        features = encoder(images, 1)
    assert features.grid == (4, 7)
    weights, _ = timm_attention(encoder, images, 1)
    for call, weight in zip(features.attention, weights, strict=True):
        found = (call.scale * call.query @ call.key.mT).softmax(dim=-1)
        torch.testing.assert_close(found, weight, rtol=1e-4, atol=1e-6)
    last = encoder.model.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[-1]
    torch.testing.assert_close(features.locations, last.flatten(2).mT, rtol=1e-4, atol=1e-4)
    if encoder.class_tokens == "shared":
        expected = encoder.model.forward_head(encoder.model.forward_features(images), pre_logits=True)
        torch.testing.assert_close(features.pooled, expected)


def test_attention_is_recorded_whatever_timms_switch_says(monkeypatch):
    monkeypatch.setattr("timm.layers.config._USE_FUSED_ATTN", 0)
    encoder, images = encoder_of("SigLIP 2")
    assert encoder.anatomy.num_layers == 3
    assert encoder.anatomy.pools_by_attention
    calls, fused = [], F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *args, **kw: calls.append(1) or fused(*args, **kw)
    )
    encoder(images, 0, num_layers=0)
    assert len(calls) == 4
