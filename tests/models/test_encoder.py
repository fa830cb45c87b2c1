import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed

from ramstrans.errors import ConfigError
from ramstrans.models.encoder import Backbone, build_vit
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
    vit = build_vit(tiny_config(backbone=backbone, image_size=size, backbone_options=options))
    return randomise(vit), noise(2, 3, *size)


every_family = pytest.mark.parametrize("name", FAMILIES)
both_ways = pytest.mark.parametrize("class_tokens", ["joint", "separate"])


@every_family
@both_ways
def test_one_pair_for_each_block_makes_timms_own_attention(name, class_tokens):
    vit, images = family_vit(name)
    backbone = Backbone(vit, 2, class_tokens)
    twin = copy.deepcopy(backbone)
    twin.use_fused_attention(False)
    weights = []
    for block in twin.vit.blocks:
        block.attn.attn_drop.register_forward_hook(lambda module, args, output: weights.append(args[0]))
    with torch.no_grad():
        features, expected = backbone(images, 1), twin(images, 1)
    assert len(features.queries) == len(features.keys) == len(weights) == TINY["depth"]
    for query, key, weight in zip(features.queries, features.keys, weights, strict=True):
        attention = (backbone.scale * query @ key.mT).softmax(dim=-1)
        torch.testing.assert_close(attention, weight, rtol=1e-4, atol=1e-6)
        assert weight.std() > 1e-3  # not uniform, or the order of layers would not show
    torch.testing.assert_close(features.class_token, expected.class_token, rtol=1e-4, atol=1e-5)
    options = {"num_prefix": features.num_prefix, "grid": backbone.grid}
    saliency = rollout(features.queries, features.keys, scale=backbone.scale, **options)
    rolled, _ = rollout_of_weights([weight.numpy() for weight in weights], **options)
    torch.testing.assert_close(saliency.double(), torch.from_numpy(rolled), rtol=1e-4, atol=1e-7)


@every_family
def test_fused_attention_stays_on(name, monkeypatch):
    vit, images = family_vit(name)
    backbone = Backbone(vit, 2)
    calls, fused = [], F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *args, **options: calls.append(1) or fused(*args, **options)
    )
    backbone(images, 0)
    assert len(calls) == TINY["depth"]
    assert all(block.attn.fused_attn for block in vit.blocks)
    backbone.use_fused_attention(False)
    backbone(images, 0)
    assert len(calls) == TINY["depth"]


@every_family
@both_ways
def test_one_scale_is_timms_own_model(name, class_tokens):
    vit, images = family_vit(name)
    vit.head.weight.data *= 0.1
    twin = copy.deepcopy(vit)
    model = RamsTrans(Backbone(vit, 1, class_tokens), (1.2,), (tuple(images.shape[2:]),)).eval()
    torch.testing.assert_close(model(images).scales[0].logits, twin(images), rtol=1e-6, atol=1e-6)


@every_family
def test_every_class_token_and_its_position_starts_as_a_copy(name):
    vit, images = family_vit(name)
    before, plain = copy.deepcopy(vit.state_dict()), copy.deepcopy(vit)
    backbone = Backbone(vit, 3, "separate")
    after = backbone.vit.state_dict()
    assert torch.equal(after["cls_token"], before["cls_token"].repeat(1, 3, 1))
    position = before["pos_embed"]
    if not vit.no_embed_class:
        position = torch.cat([position[:, :1], position[:, :1], position], dim=1)
    assert torch.equal(after["pos_embed"], position)
    assert after.keys() == before.keys()
    others = after.keys() - {"cls_token", "pos_embed"}
    assert all(torch.equal(after[key], before[key]) for key in others)
    for scale in range(3):
        expected = plain.forward_features(images)[:, 0]
        torch.testing.assert_close(backbone(images, scale).class_token, expected, rtol=1e-5, atol=1e-5)


@every_family
@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_joint_reads_token_s_of_the_widened_timm_model(name, num_scales):
    vit, images = family_vit(name)
    backbone = randomise(Backbone(vit, num_scales), seed=1)
    tokens = vit.forward_features(images)
    for scale in range(num_scales):
        features = backbone(images, scale)
        assert features.class_index == scale
        torch.testing.assert_close(features.class_token, tokens[:, scale], rtol=1e-5, atol=1e-5)


@every_family
@both_ways
def test_tokens_of_a_pass_are_counted(name, class_tokens):
    vit, images = family_vit(name)
    registers = vit.num_reg_tokens
    backbone = Backbone(vit, 3, class_tokens)
    assert vit.num_prefix_tokens == 3 + registers  # of timm's own forward, all tokens present
    features = backbone(images, 2)
    assert features.num_prefix == registers + (3 if class_tokens == "joint" else 1)
    assert features.class_index == (2 if class_tokens == "joint" else 0)
    heads, dim = TINY["num_heads"], TINY["embed_dim"] // TINY["num_heads"]
    assert backbone.grid == GRID
    for tensor in (*features.queries, *features.keys):
        assert tensor.shape == (2, heads, features.num_prefix + GRID[0] * GRID[1], dim)
        assert not tensor.requires_grad


def test_separate_scales_see_their_own_token_only():
    backbone = randomise(Backbone(tiny_vit(), 2, "separate"), seed=1)
    images = noise(1, 3, 48, 80)
    before = [backbone(images, scale).class_token for scale in range(2)]
    backbone.vit.cls_token.data[:, 1] += noise(24, seed=5)
    after = [backbone(images, scale).class_token for scale in range(2)]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    assert not torch.allclose(before[0], before[1])


def as_is(backbone):
    return backbone


def pickled(backbone):
    return pickle.loads(pickle.dumps(backbone))


def saved(backbone):
    file = io.BytesIO()
    torch.save(backbone, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("clone", [as_is, copy.deepcopy, pickled, saved])
def test_a_copys_notes_are_its_own(clone):
    original, images = Backbone(tiny_vit(), 2), noise(1, 3, 48, 80)
    expected = original(images, 1)
    twin = clone(original)
    for got, want in zip(twin(images, 1).queries, expected.queries, strict=True):
        assert torch.equal(got, want)
    randomise(twin, seed=7)
    if twin is not original:
        for got, want in zip(original(images, 1).keys, expected.keys, strict=True):
            assert torch.equal(got, want)
    changed = twin(images, 1)
    assert len(changed.keys) == TINY["depth"]
    assert not torch.allclose(changed.keys[0], expected.keys[0])


def test_a_failed_pass_leaves_nothing_behind(monkeypatch):
    backbone, images = Backbone(tiny_vit(), 2), noise(1, 3, 48, 80)
    with monkeypatch.context() as patch:
        patch.setattr(backbone.vit.blocks[1].mlp, "forward", lambda tokens: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            backbone(images, 0)
    assert len(backbone(images, 0).queries) == TINY["depth"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_net", "is not known to timm"),
        ("vit_tinny_patch16_224", "did you mean vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224.no_such_tag", "Invalid pretrained tag"),
        ("", "is not known to timm"),
        ("resnet50", "is not a plain ViT"),
        ("vit_small_patch16_rope_224", "is not a plain ViT"),
        ("vit_small_patch16_dinov3", "is not a plain ViT"),
        ("eva02_tiny_patch14_224", "is not a plain ViT"),
        ("samvit_base_patch16", "is not a plain ViT"),
        ("vit_relpos_small_patch16_224", "is not a plain ViT"),
        ("vit_tiny_r_s16_p8_224", "is not a plain ViT"),
        ("deit_tiny_distilled_patch16_224", "it is a VisionTransformerDistilled"),
        ("vit_medium_patch16_gap_240", "it has no class token"),
        ("vit_base_patch16_siglip_224", "it has no class token"),
        ("vit_base_patch16_siglip_gap_224", "it has no class token"),
        ("eva_large_patch14_196", "its head pools by 'avg'"),
        ("vit_small_patch16_18x2_224", "do not have timm's standard attention"),
        ("vit_base_patch16_xp_224", "do not have timm's standard attention"),
    ],
)
def test_backbone_that_cannot_work_says_why(name, reason):
    size = 42 if "patch14" in name else 48
    with pytest.raises(ConfigError, match=reason) as caught:
        build_vit(tiny_config(backbone=name, image_size=size))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"global_pool": "avg"}, "its head pools by 'avg'"),
        ({"class_token": False, "global_pool": "avg"}, "it has no class token"),
        ({"pos_embed": "none"}, "it has no learnt absolute position embedding"),
        ({"attn_layer": "diff"}, "do not have timm's standard attention"),
        ({"dynamic_img_size": True}, "its number of patches changes"),
        ({"patch_drop_rate": 0.5}, "its number of patches changes"),
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
        build_vit(tiny_config(backbone_options=options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image_size": 8}, "8x8 is smaller than a patch of 16x16"),
        ({"image_size": (48, 15)}, "48x15 is smaller than a patch of 16x16"),
        ({"image_size": 50}, "50x50 is not a multiple of the patch 16x16; take 48x48"),
        ({"image_size": (48, 79)}, "48x79 is not a multiple of the patch 16x16; take 48x64"),
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
        build_vit(tiny_config(**fields))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_overlapping_patches_are_windows_of_the_image(name):
    vit = tiny_vit(backbone=name, image_size=(52, 88), patch_stride=12)
    backbone = Backbone(vit, 2)
    assert (backbone.grid, backbone.patch_size, backbone.patch_stride) == ((4, 7), (16, 16), (12, 12))
    images = noise(1, 3, 52, 88)
    patches = vit.patch_embed(images).unflatten(1, (4, 7))
    for row, column in [(0, 0), (1, 0), (3, 6), (2, 5)]:
        window = images[:, :, 12 * row : 12 * row + 16, 12 * column : 12 * column + 16]
        expected = (vit.patch_embed.proj.weight * window).sum(dim=(1, 2, 3)) + vit.patch_embed.proj.bias
        torch.testing.assert_close(patches[0, row, column], expected, rtol=1e-4, atol=1e-4)
    features = backbone(images, 1)
    assert features.queries[0].shape[2] == features.num_prefix + 28
    assert torch.isfinite(features.class_token).all()


@every_family
@both_ways
def test_another_size_is_the_same_vit_with_resampled_positions(name, class_tokens):
    """timm's own model at that size, its position embeddings resampled by timm's own loading."""
    vit, _ = family_vit(name)
    patch = vit.patch_embed.patch_size[0]
    backbone = randomise(Backbone(vit, 2, class_tokens), seed=1)
    images = noise(2, 3, 4 * patch, 7 * patch)
    features = backbone(images, 1)
    assert features.grid == (4, 7)
    twin = copy.deepcopy(backbone)
    positions = resample_abs_pos_embed(
        backbone.vit.pos_embed.detach(),
        [4, 7],
        list(GRID),
        num_prefix_tokens=0 if vit.no_embed_class else vit.num_prefix_tokens,
    )
    twin.vit.pos_embed = torch.nn.Parameter(positions)
    twin.vit.patch_embed.grid_size = (4, 7)
    expected = twin(images, 1)
    torch.testing.assert_close(features.class_token, expected.class_token)
    assert features.queries[0].shape[2] == features.num_prefix + 28


def test_positions_learn_through_resampling():
    backbone = randomise(Backbone(tiny_vit(), 2), seed=1)
    backbone(noise(1, 3, 64, 64), 1).class_token.sum().backward()
    assert (backbone.vit.pos_embed.grad.abs().sum(dim=-1) > 0).all()


def test_without_overlap_the_stride_is_the_patch():
    backbone = Backbone(tiny_vit(), 2)
    assert backbone.patch_stride == backbone.patch_size == (16, 16)


def test_rates_of_the_config_reach_the_blocks():
    vit = build_vit(tiny_config(dropout=0.25, drop_path=0.5))
    assert vit.pos_drop.p == 0.25
    assert {block.mlp.drop1.p for block in vit.blocks} == {0.25}
    assert {block.attn.proj_drop.p for block in vit.blocks} == {0.25}
    assert {block.attn.attn_drop.p for block in vit.blocks} == {0.0}
    assert [getattr(block.drop_path1, "drop_prob", 0) for block in vit.blocks] == [0, 0.25, 0.5]
