import pytest
import torch

from ramstrans.errors import WeightsError
from ramstrans.models.naming import to_timm

ROOT = "patch_embed.proj.weight"
OWN = (ROOT, "cls_token", "norm.weight", "blocks.0.norm1.weight")
PREFIXES = ("", "module.", "backbone.", "model.", "state_dict.", "encoder.", "teacher.backbone.", "a.b.c.d.")


def tensors(*names):
    return {name: torch.tensor([float(number)]) for number, name in enumerate(names)}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_stands_before_the_models_names_comes_off(prefix):
    named = to_timm(tensors(*(prefix + key for key in OWN)), OWN, "w.pth")
    assert [int(named.tensors[key]) for key in OWN] == [0, 1, 2, 3]
    assert (named.layout, named.origin) == (None, {})


@pytest.mark.parametrize("prefix", ["", "vit.", "model.vit.", "module.model.vit."])
def test_what_stands_before_a_foreign_layout_comes_off(prefix):
    root, norm = "embeddings.patch_embeddings.projection.weight", "encoder.layer.0.layernorm_before.weight"
    named = to_timm(tensors(prefix + root, prefix + norm), OWN, "w.pth")
    assert named.layout == "Hugging Face ViT"
    assert set(named.tensors) == {ROOT, "blocks.0.norm1.weight"}
    assert named.origin[ROOT] == (prefix + root,)


def test_a_prefix_is_found_for_another_backbone_than_the_one_asked_for():
    named = to_timm(tensors("net.conv_stem.weight", "net.blocks.0.0.bn1.weight"), OWN, "w.pth")
    assert set(named.tensors) == {"conv_stem.weight", "blocks.0.0.bn1.weight"}


def test_a_head_beside_the_network_loses_only_what_it_shares():
    content = tensors(*(f"module.backbone.{key}" for key in OWN), "module.head.bias")
    assert set(to_timm(content, OWN, "w.pth").tensors) == {*OWN, "head.bias"}


def test_a_prefix_stays_where_the_short_name_is_taken():
    content = tensors(*(f"backbone.{key}" for key in OWN), "backbone.head.bias", "head.bias")
    named = to_timm(content, OWN, "w.pth")
    assert int(named.tensors["head.bias"]) == 5
    assert set(named.tensors) == {*OWN, "head.bias", "backbone.head.bias"}


def test_several_networks_are_told():
    content = tensors(*(f"{name}.{key}" for name in ("base_encoder", "momentum_encoder") for key in OWN))
    with pytest.raises(WeightsError, match=r"several networks, base_encoder\., momentum_encoder\.; save"):
        to_timm(content, OWN, "w.pth")


@pytest.mark.parametrize("better", ["teacher", "model_ema"])
def test_the_teacher_or_the_average_is_taken_of_two(better):
    content = tensors(*(f"{name}.{key}" for name in ("student", better) for key in OWN))
    assert int(to_timm(content, OWN, "w.pth").tensors["cls_token"]) == 5


def test_a_name_that_the_model_has_is_not_renamed():
    content = tensors(ROOT, "blocks.0.gamma_1", "blocks.0.attn.qkv.bias")
    own = (ROOT, "blocks.0.gamma_1", "blocks.0.attn.qkv.bias")
    assert set(to_timm(content, own, "w.pth").tensors) == set(own)
    assert "blocks.0.ls1.gamma" in to_timm(content, (ROOT,), "w.pth").tensors
