import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models import group_parameters
from timm.models.vision_transformer import VisionTransformer

from ramstrans.errors import ConfigError
from ramstrans.models.attention import ExplicitAttention
from ramstrans.models.backbones import build_backbone
from ramstrans.models.encoder import Encoder
from ramstrans.models.methods.build import build_model
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.models.saliency.rollout import rollout
from tests.models.builders import TINY, noise, randomise, tiny_config, tiny_vit
from tests.models.oracles import rollout_of_weights

FAMILIES = {
    "vit": ("vit_tiny_patch16_224", {}),
    "deit": ("deit_tiny_patch16_224", {}),
    "deit3, class token without position": ("deit3_small_patch16_224", {}),
    "dinov2": ("vit_small_patch14_dinov2", {}),
    "dinov2 with registers": ("vit_small_patch14_reg4_dinov2", {}),
    "dinov2 with SwiGLU": ("vit_giant_patch14_dinov2", {}),
    "CLIP, norm before the blocks": ("vit_base_patch16_clip_224", {}),
    "RADIO, no final norm": ("vit_base_patch16_radio_v3", {}),
    "dynamic by default": ("vit_intern300m_patch14_448", {}),
    "norm of queries and keys": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "norm of the attention's output": ("vit_tiny_patch16_224", {"scale_attn_norm": True}),
    "norm in the head": ("vit_tiny_patch16_224", {"fc_norm": True}),
    "patch 32": ("vit_base_patch32_224", {}),
}
GRID = (3, 5)


def family_vit(name):
    backbone, options = FAMILIES[name]
    patch = next(int(size) for size in ("14", "16", "32") if f"patch{size}" in backbone)
    size = (GRID[0] * patch, GRID[1] * patch)
    vit = build_backbone(tiny_config(backbone=backbone, image_size=size, backbone_options=options))
    return randomise(vit), noise(2, 3, *size)


every_family = pytest.mark.parametrize("name", FAMILIES)
both_ways = pytest.mark.parametrize("class_tokens", ["joint", "separate"])


@every_family
@both_ways
def test_one_call_per_block_gives_timms_own_attention(name, class_tokens):
    vit, images = family_vit(name)
    encoder = Encoder(vit, 2, class_tokens)
    twin, weights = copy.deepcopy(encoder), []
    for block in twin.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, args, output: weights.append(args[0]))
    with torch.no_grad():
        features = encoder(images, 1)
        expected = twin(images, 1, num_layers=0)
    calls = features.attention
    assert len(calls) == len(weights) == TINY["depth"]
    for call, weight in zip(calls, weights, strict=True):
        attention = (call.scale * call.query @ call.key.mT).softmax(dim=-1)
        torch.testing.assert_close(attention, weight, rtol=1e-4, atol=1e-6)
        assert weight.std() > 1e-3  # not uniform, or the order of layers would not show
    torch.testing.assert_close(features.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
    options = {"num_prefix": features.num_prefix, "grid": GRID}
    queries, keys = ([getattr(call, name) for call in calls] for name in ("query", "key"))
    saliency = rollout(queries, keys, scale=calls[0].scale, **options)
    rolled, _ = rollout_of_weights([weight.numpy() for weight in weights], **options)
    torch.testing.assert_close(saliency.double(), torch.from_numpy(rolled), rtol=1e-4, atol=1e-7)


@every_family
def test_recording_changes_no_bit_and_attention_stays_fused(name, monkeypatch):
    vit, images = family_vit(name)
    encoder = Encoder(vit, 2)
    calls, fused = [], F.scaled_dot_product_attention

    def counted(*args, **options):
        calls.append(1)
        return fused(*args, **options)

    expected = encoder(images, 0, num_layers=0).pooled
    assert torch.equal(encoder(images, 0).pooled, expected)
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    encoder(images, 0, num_layers=0)
    assert len(calls) == TINY["depth"]


@every_family
def test_explicit_attention_is_the_same_function_and_is_recorded(name):
    vit, images = family_vit(name)
    encoder = Encoder(vit, 2)
    expected = encoder(images, 1)
    with ExplicitAttention():
        features = encoder(images, 1)
    torch.testing.assert_close(features.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
    for call, want in zip(features.attention, expected.attention, strict=True):
        torch.testing.assert_close(call.query, want.query, rtol=1e-4, atol=1e-5)


@every_family
@both_ways
def test_one_scale_is_timms_own_model(name, class_tokens):
    vit, images = family_vit(name)
    vit.head.weight.data *= 0.1
    twin = copy.deepcopy(vit)
    model = RamsTrans(Encoder(vit, 1, class_tokens), (1.2,), (tuple(images.shape[2:]),)).eval()
    torch.testing.assert_close(model(images).scales[0].logits, twin(images), rtol=1e-6, atol=1e-6)


@every_family
def test_every_class_token_and_its_position_starts_as_a_copy(name):
    vit, images = family_vit(name)
    before, plain = copy.deepcopy(vit.state_dict()), copy.deepcopy(vit)
    encoder = Encoder(vit, 3, "separate")
    after = encoder.model.state_dict()
    assert torch.equal(after["cls_token"], before["cls_token"].repeat(1, 3, 1))
    position = before["pos_embed"]
    if not vit.no_embed_class:
        position = torch.cat([position[:, :1], position[:, :1], position], dim=1)
    assert torch.equal(after["pos_embed"], position)
    assert after.keys() == before.keys()
    others = after.keys() - {"cls_token", "pos_embed"}
    assert all(torch.equal(after[key], before[key]) for key in others)
    for scale in range(3):
        expected = plain.forward_head(plain.forward_features(images), pre_logits=True)
        torch.testing.assert_close(encoder(images, scale).pooled, expected, rtol=1e-5, atol=1e-5)


@every_family
@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_joint_reads_token_s_of_the_widened_timm_model(name, num_scales):
    vit, images = family_vit(name)
    encoder = randomise(Encoder(vit, num_scales), seed=1)
    tokens = vit.forward_features(images)
    for scale in range(num_scales):
        features = encoder(images, scale)
        assert features.class_index == scale
        expected = vit.fc_norm(tokens[:, scale])
        torch.testing.assert_close(features.pooled, expected, rtol=1e-5, atol=1e-5)


@every_family
@both_ways
def test_tokens_of_a_pass_are_counted(name, class_tokens):
    vit, images = family_vit(name)
    registers = vit.num_reg_tokens
    encoder = Encoder(vit, 3, class_tokens)
    assert vit.num_prefix_tokens == 3 + registers  # of timm's own forward, all tokens present
    features = encoder(images, 2)
    assert features.num_prefix == registers + (3 if class_tokens == "joint" else 1)
    assert features.class_index == (2 if class_tokens == "joint" else 0)
    heads, dim = TINY["num_heads"], TINY["embed_dim"] // TINY["num_heads"]
    assert features.grid == encoder.anatomy.grid == GRID
    for tensor in (tensor for call in features.attention for tensor in call[:2]):
        assert tensor.shape == (2, heads, features.num_prefix + GRID[0] * GRID[1], dim)
        assert not tensor.requires_grad


def test_separate_scales_see_their_own_token_only():
    encoder = randomise(Encoder(tiny_vit(), 2, "separate"), seed=1)
    images = noise(1, 3, 48, 80)
    before = [encoder(images, scale).pooled for scale in range(2)]
    encoder.model.cls_token.data[:, 1] += noise(24, seed=5)
    after = [encoder(images, scale).pooled for scale in range(2)]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    assert not torch.allclose(before[0], before[1])


def pickled(encoder):
    return pickle.loads(pickle.dumps(encoder))


def saved(encoder):
    file = io.BytesIO()
    torch.save(encoder, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("clone", [copy.deepcopy, pickled, saved])
def test_a_copy_is_the_same_function(clone):
    original, images = Encoder(tiny_vit(), 2), noise(1, 3, 48, 80)
    expected, copied = original(images, 1), clone(original)(images, 1)
    assert torch.equal(copied.pooled, expected.pooled)
    for call, want in zip(copied.attention, expected.attention, strict=True):
        assert torch.equal(call.query, want.query)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_net", "is not known to timm"),
        ("vit_tinny_patch16_224", "did you mean vit_tiny_patch16_224"),
        (
            "vit_tiny_patch16_224.no_such_tag",
            "no weights .no_such_tag. for vit_tiny.*; give augreg_in21k, ",
        ),
        ("", "is not known to timm"),
        ("vit_bse_patch16_224", "did you mean vit_base_patch16_224"),
        ("deit_tiny_distilled_patch16_224", "its two heads read two tokens"),
        ("gemma4_vit_167m_enc", "has no head that classifies images"),
        ("crossvit_9_240", "cannot build"),
    ],
)
def test_backbone_that_cannot_work_says_why(name, reason):
    size = 42 if "patch14" in name else 48
    with pytest.raises(ConfigError, match=reason) as caught:
        build_backbone(tiny_config(backbone=name, image_size=size))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"global_pool": "avg"}, "set model.global_pool instead"),
        ({"dynamic_img_size": True}, "set model.region_size instead"),
        ({"patch_drop_rate": 0.5}, "it drops patches"),
        ({"in_chans": 1}, "it reads 1 channels"),
        ({"depth": 0}, "it has no blocks"),
        ({"img_size": 64}, "set model.image_size instead"),
        ({"num_classes": 0}, "set model.num_classes instead"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"embed_dim": 25}, "should be divisible"),
        ({"depth": "three"}, "timm cannot build"),
        ({"patch_size": 0}, "timm cannot build"),
        ({"norm_layer": "no_such_norm"}, "no_such_norm"),
    ],
)
def test_option_that_cannot_work_says_why(options, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        build_backbone(tiny_config(backbone_options=options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image_size": 8}, "8x8 is smaller than a patch of 16x16"),
        ({"image_size": (48, 15)}, "48x15 is smaller than a patch of 16x16"),
        ({"image_size": 50}, "50x50 is not a multiple of the patch 16x16; take 48x48"),
        ({"image_size": (48, 79)}, "48x79 is not a multiple of the patch 16x16; take 48x80"),
        ({"image_size": (15, 48), "patch_stride": 12}, "smaller than a patch"),
        ({"region_size": 50}, "region_size 50x50 is not a multiple of the patch 16x16; take 48x48"),
        ({"region_size": (96, 8)}, "region_size 96x8 is smaller than a patch of 16x16"),
        ({"patch_stride": 0}, "patch_stride is 0; give 1 to 16"),
        ({"patch_stride": -4}, "patch_stride is -4; give 1 to 16"),
        ({"patch_stride": 17}, "patch_stride is 17; give 1 to 16"),
    ],
)
def test_size_or_stride_that_cannot_work_says_what_to_take(fields, reason):
    with pytest.raises(ConfigError, match=reason):
        build_backbone(tiny_config(**fields))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_overlapping_patches_are_windows_of_the_image(name):
    vit = tiny_vit(backbone=name, image_size=(52, 88), patch_stride=12)
    encoder = Encoder(vit, 2)
    assert (encoder.patch_size, encoder.patch_stride) == ((16, 16), (12, 12))
    assert encoder.anatomy.grid == (4, 7)
    images = noise(1, 3, 52, 88)
    patches = vit.patch_embed(images).unflatten(1, (4, 7))
    for row, column in [(0, 0), (1, 0), (3, 6), (2, 5)]:
        window = images[:, :, 12 * row : 12 * row + 16, 12 * column : 12 * column + 16]
        expected = (vit.patch_embed.proj.weight * window).sum(dim=(1, 2, 3)) + vit.patch_embed.proj.bias
        torch.testing.assert_close(patches[0, row, column], expected, rtol=1e-4, atol=1e-4)
    features = encoder(images, 1)
    assert features.attention[0].query.shape[2] == features.num_prefix + 28
    assert torch.isfinite(features.pooled).all()


@every_family
@both_ways
def test_another_size_is_the_same_vit_with_resampled_positions(name, class_tokens):
    """timm's own model at that size, its position embeddings resampled by timm's own loading."""
    backbone, options = FAMILIES[name]
    patch = next(int(size) for size in ("14", "16", "32") if f"patch{size}" in backbone)
    small, large = (GRID[0] * patch, GRID[1] * patch), (4 * patch, 7 * patch)
    vit = randomise(
        build_backbone(
            tiny_config(backbone=backbone, image_size=small, region_size=large, backbone_options=options)
        )
    )
    encoder = randomise(Encoder(vit, 2, class_tokens), seed=1)
    images = noise(2, 3, *large)
    features = encoder(images, 1)
    assert features.grid == (4, 7)
    twin = copy.deepcopy(encoder)
    num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    position = vit.pos_embed.detach()
    positions = resample_abs_pos_embed(position, [4, 7], list(GRID), num_prefix_tokens=num_prefix)
    twin.model.pos_embed = torch.nn.Parameter(positions)
    twin.model.patch_embed.grid_size = (4, 7)
    expected = twin(images, 1)
    torch.testing.assert_close(features.pooled, expected.pooled, rtol=1e-4, atol=1e-4)
    assert features.attention[0].query.shape[2] == features.num_prefix + 28


def test_positions_learn_through_resampling():
    encoder = randomise(Encoder(tiny_vit(region_size=64), 2), seed=1)
    encoder(noise(1, 3, 64, 64), 1).pooled.sum().backward()
    assert (encoder.model.pos_embed.grad.abs().sum(dim=-1) > 0).all()


def test_without_overlap_the_stride_is_the_patch():
    encoder = Encoder(tiny_vit(), 2)
    assert encoder.patch_stride == encoder.patch_size == (16, 16)


def test_rates_of_the_config_reach_the_blocks():
    vit = build_backbone(tiny_config(dropout=0.25, drop_path=0.5))
    assert vit.pos_drop.p == 0.25
    assert {block.mlp.drop1.p for block in vit.blocks} == {0.25}
    assert {block.attn.proj_drop.p for block in vit.blocks} == {0.25}
    assert {block.attn.attn_drop.p for block in vit.blocks} == {0.0}
    assert [getattr(block.drop_path1, "drop_prob", 0) for block in vit.blocks] == [0, 0.25, 0.5]


def test_timms_optimisers_know_the_layers_of_the_whole_model():
    model = build_model(tiny_config())
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    assert layers["encoder.model.pos_embed"] == layers["encoder.model.patch_embed.proj.weight"] == 0
    assert [layers[f"encoder.model.blocks.{block}.mlp.fc1.weight"] for block in range(3)] == [1, 2, 3]
    assert layers["encoder.model.norm.bias"] == 3  # timm counts it with the last block
    assert layers["encoder.model.head.weight"] == 4
    assert {"encoder.model.cls_token", "encoder.model.pos_embed"} <= model.no_weight_decay()


def test_pixels_are_normalised_for_the_weights():
    encoder = Encoder(tiny_vit(), 1, mean=(0.5, 0.2, 0.0), std=(0.25, 0.2, 1.0))
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3).repeat(2, 3, 1, 1)
    expected = torch.tensor([[-2, -1.2, 2], [-1, 0, 4], [0, 0.2, 1]])
    torch.testing.assert_close(
        encoder.normalize(pixels)[:, :, 0], expected.expand(2, 3, 3), atol=1e-6, rtol=0
    )
    assert pixels.dtype == torch.uint8
    assert Encoder(tiny_vit(), 1).mean == (0.5, 0.5, 0.5)  # of timm's vit_tiny_patch16_224


def test_a_vit_that_timm_has_no_name_for():
    vit = VisionTransformer(img_size=32, patch_size=8, num_classes=3, **TINY)
    with pytest.raises(ConfigError, match="give mean and std"):
        Encoder(vit, 2)
    encoder = Encoder(vit, 2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert (encoder.anatomy.grid, encoder.class_tokens) == ((4, 4), "joint")
