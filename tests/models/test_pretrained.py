import copy

import pytest
import timm
import torch
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from ramstrans.errors import WeightsError
from ramstrans.models import pretrained
from ramstrans.models.pretrained import check_published, load_pretrained, mismatches
from tests.shared import DEIT_TINY

real_deit = pytest.mark.skipif(not DEIT_TINY.is_file(), reason=f"{DEIT_TINY} does not exist")

TINY = "vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def no_hint(monkeypatch):
    """The hint of closest.py has its own tests, and takes seconds."""
    monkeypatch.setattr(pretrained, "closest", lambda *_: "the hint")


def tiny_vit(name=TINY, *, seed=0, num_classes=7, img_size=48, depth=2, **options):
    torch.manual_seed(seed)
    vit = timm.create_model(name, num_classes=num_classes, img_size=img_size, depth=depth, **options)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return vit.eval()


def tiny_vit_like(donor):
    """Another ViT of the same shape, built without `timm.create_model`."""
    vit = copy.deepcopy(donor)
    torch.nn.init.zeros_(vit.norm.weight)
    return vit


def saved(tmp_path, tensors):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_same_network_is_loaded_whole(tmp_path):
    donor, vit = tiny_vit(seed=1), tiny_vit(seed=2)
    report = load_pretrained(vit, TINY, saved(tmp_path, donor.state_dict()))
    assert sorted(report.loaded) == sorted(donor.state_dict())
    assert report.resampled == report.unused == report.missing == ()
    image = torch.randn(2, 3, 48, 48)
    assert torch.equal(vit(image), donor(image))
    assert torch.equal(vit.norm.weight, donor.norm.weight)


def test_head_of_other_classes_is_left_out_and_stays_random(tmp_path):
    donor, vit = tiny_vit(seed=1, num_classes=11), tiny_vit(seed=2)
    before = vit.head.weight.clone()
    report = load_pretrained(vit, TINY, str(saved(tmp_path, donor.state_dict())))
    assert set(report.unused) == set(report.missing) == {"head.weight", "head.bias"}
    assert torch.equal(vit.head.weight, before)
    assert "missing: 2 (head.weight, head.bias)" in report.summary()


@pytest.mark.parametrize("no_embed_class", [False, True])
@pytest.mark.parametrize("grid", [(5, 2), (1, 9), (3, 3)])
def test_positions_of_another_grid_are_resampled_and_prefix_rows_kept(tmp_path, grid, no_embed_class):
    donor = tiny_vit(seed=1, no_embed_class=no_embed_class)
    vit = tiny_vit(seed=2, img_size=(16 * grid[0], 16 * grid[1]), no_embed_class=no_embed_class)
    report = load_pretrained(vit, TINY, saved(tmp_path, donor.state_dict()))
    prefix = 0 if no_embed_class else 1
    expected = resample_abs_pos_embed(
        donor.pos_embed.detach(), list(grid), old_size=[3, 3], num_prefix_tokens=prefix
    )
    assert report.resampled == (() if grid == (3, 3) else ("pos_embed",))
    assert torch.equal(vit.pos_embed, expected)
    assert torch.equal(vit.pos_embed[:, :prefix], donor.pos_embed[:, :prefix])


def test_patch_kernel_of_another_size_is_resampled(tmp_path):
    donor, vit = tiny_vit(seed=1), tiny_vit(seed=2, patch_size=32, img_size=96)
    report = load_pretrained(vit, TINY, saved(tmp_path, donor.state_dict()))
    assert report.resampled == ("patch_embed.proj.weight",)
    small = torch.rand(
        1, 3, 48, 48
    )  # the larger kernel answers to the enlarged patch as the old one to the patch
    patches = small.unfold(2, 16, 16).unfold(3, 16, 16).flatten(2, 3).transpose(1, 2)[0]  # (9, 3, 16, 16)
    large = torch.nn.functional.interpolate(patches, size=(32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(
        vit.patch_embed.proj(large).flatten(1), donor.patch_embed(small)[0], atol=1e-4, rtol=1e-4
    )


def test_register_tokens_and_class_row_of_dinov2_give_the_same_function(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    options = {"img_size": 42, "num_classes": 5}
    donor, vit = tiny_vit(name, seed=1, **options), tiny_vit(name, seed=2, **options)
    row = torch.randn(1, 1, donor.embed_dim)
    theirs = dict(donor.state_dict())
    theirs["register_tokens"] = theirs.pop("reg_token")
    theirs["cls_token"] = theirs["cls_token"] - row
    theirs["pos_embed"] = torch.cat([row, theirs["pos_embed"]], dim=1)
    theirs["mask_token"] = torch.zeros(1, donor.embed_dim)
    report = load_pretrained(vit, name, saved(tmp_path, theirs))
    assert report.unused == ("mask_token",)
    assert report.missing == ()
    image = torch.randn(1, 3, 42, 42)
    torch.testing.assert_close(vit(image), donor(image), atol=1e-5, rtol=1e-5)


def test_distillation_token_and_its_row_are_left_out(tmp_path):
    donor = tiny_vit("deit_tiny_distilled_patch16_224", seed=1)
    vit = tiny_vit("deit_tiny_patch16_224", seed=2)
    report = load_pretrained(vit, "deit_tiny_patch16_224", saved(tmp_path, donor.state_dict()))
    assert set(report.unused) == {"dist_token", "head_dist.weight", "head_dist.bias"}
    kept = torch.cat([donor.pos_embed[:, :1], donor.pos_embed[:, 2:]], dim=1)
    assert torch.equal(vit.pos_embed, kept)


@pytest.mark.parametrize("lost", ["norm.weight", "blocks.1.attn.qkv.bias", "cls_token", "pos_embed"])
def test_missing_tensor_is_named_and_nothing_is_filled(tmp_path, lost):
    donor, vit = tiny_vit(seed=1), tiny_vit(seed=2)
    before = copy.deepcopy(vit.state_dict())
    tensors = {key: tensor for key, tensor in donor.state_dict().items() if key != lost}
    with pytest.raises(WeightsError, match=rf"does not fit {TINY}: {lost} \(.*\) is missing"):
        load_pretrained(vit, TINY, saved(tmp_path, tensors))
    assert all(torch.equal(tensor, before[key]) for key, tensor in vit.state_dict().items())


def test_shapes_that_do_not_fit_are_named_with_both(tmp_path):
    donor = tiny_vit("vit_small_patch16_224", seed=1)
    with pytest.raises(WeightsError) as caught:
        load_pretrained(tiny_vit(), TINY, saved(tmp_path, donor.state_dict()))
    assert "cls_token is (1, 1, 384), not the (1, 1, 192) of the model" in str(caught.value)
    assert "more" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_positions_of_no_known_grid_are_an_error(tmp_path):
    tensors = tiny_vit(seed=1).state_dict() | {"pos_embed": torch.zeros(1, 12, 192)}
    with pytest.raises(WeightsError, match=r"pos_embed is \(1, 12, 192\), not the \(1, 10, 192\)"):
        load_pretrained(tiny_vit(), TINY, saved(tmp_path, tensors))


def test_another_kind_of_network_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match=r"none of its 1 tensors \(conv1.weight"):
        load_pretrained(tiny_vit(), TINY, saved(tmp_path, {"conv1.weight": torch.zeros(3)}))


def test_nan_is_an_error(tmp_path):
    tensors = tiny_vit(seed=1).state_dict()
    tensors["norm.bias"] = torch.full((192,), float("nan"))
    with pytest.raises(WeightsError, match=r"norm\.bias has NaN"):
        load_pretrained(tiny_vit(), TINY, saved(tmp_path, tensors))


def test_timm_weights_come_from_a_pretrained_donor(monkeypatch):
    donor = tiny_vit(seed=1, num_classes=13)
    donor.pretrained_cfg = {"tag": "augreg"}
    asked = []
    monkeypatch.setattr(pretrained, "why_unreachable", lambda: None)
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.append((name, options)) or donor)
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=48, embed_dim=192, depth=2, num_heads=3, num_classes=7
    )
    report = load_pretrained(vit, TINY, "timm")
    assert asked == [(TINY, {"pretrained": True})]
    assert report.source == "timm's vit_tiny_patch16_224.augreg"
    assert torch.equal(vit.norm.weight, donor.norm.weight)


def test_weights_that_timm_does_not_have_are_told_without_a_network():
    with pytest.raises(WeightsError, match=r"no pretrained weights of 'vit_base_patch16_18x2_224'; give"):
        check_published("vit_base_patch16_18x2_224")
    check_published(TINY)


def test_no_network_is_an_error_that_names_the_file_option(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"give --model.weights FILE\.safetensors, or null") as caught:
        load_pretrained(tiny_vit(), TINY, "timm")
    assert len(str(caught.value).split()) < 25


def test_an_unreachable_hub_is_told_at_once_and_the_cache_still_serves(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(WeightsError, match=r"cannot download .* \(http://127\.0\.0\.1:9: .*refused\)"):
        load_pretrained(tiny_vit(), TINY, "timm")
    donor, seen = tiny_vit(seed=1), []

    def create(_name, **_options):
        seen.append(constants.HF_HUB_OFFLINE)
        return donor

    monkeypatch.setattr(pretrained, "try_to_load_from_cache", lambda *_: "cached")
    monkeypatch.setattr(timm, "create_model", create)
    load_pretrained(vit := tiny_vit_like(donor), TINY, "timm")
    assert (seen, constants.HF_HUB_OFFLINE) == ([True], False)
    assert torch.equal(vit.norm.weight, donor.norm.weight)


shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@given(
    st.dictionaries(st.sampled_from("abcde"), shapes),
    st.dictionaries(st.sampled_from("abcde"), shapes),
)
def test_mismatches_are_the_expected_tensors_without_an_equal_shape(expected, given_):
    problems = mismatches(
        {key: torch.zeros(shape) for key, shape in expected.items()},
        {key: torch.zeros(shape) for key, shape in given_.items()},
    )
    assert [problem[0] for problem in problems] == [
        key for key in expected if given_.get(key) != expected[key]
    ]


@pytest.mark.realdata
@real_deit
@pytest.mark.parametrize(
    ("num_classes", "img_size", "resized", "missing"),
    [
        (1000, 224, (), ()),
        (50, 224, (), ("head.weight", "head.bias")),
        (1000, 448, ("pos_embed",), ()),
        (1000, (224, 320), ("pos_embed",), ()),
    ],
)
def test_real_deit(num_classes, img_size, resized, missing):
    vit = timm.create_model("deit_tiny_patch16_224", num_classes=num_classes, img_size=img_size)
    report = load_pretrained(vit, "deit_tiny_patch16_224", DEIT_TINY)
    assert report.resampled == resized
    assert sorted(report.missing) == sorted(report.unused) == sorted(missing)
    assert len(report.loaded) + len(report.resampled) + len(report.missing) == len(vit.state_dict())
