"""What the names of weights say, for timm's tags and for the files that others publish."""

import pytest
import timm
import torch

from ramstrans.training.pretraining import (
    KINDS,
    family_of,
    image_size_of,
    kind_of,
    num_layers_of,
    statistics_of,
)

IMAGENET, HALF = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("deit_tiny_patch16_224", "supervised"),
        ("vit_base_patch16_224.augreg_in21k", "supervised"),
        ("resnet18.fb_swsl_ig1b_ft_in1k", "supervised"),
        ("tf_efficientnet_lite0", "supervised"),
        ("vit_base_patch16_clip_224.openai", "image-text"),
        ("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", "image-text"),
        ("vit_base_patch16_siglip_224", "image-text"),
        ("eva02_base_patch16_clip_224.merged2b", "image-text"),
        ("convnext_base.clip_laion2b", "image-text"),
        ("vit_pe_core_tiny_patch16_384", "image-text"),
        ("vit_base_patch16_224.dino", "self-distillation"),
        ("vit_small_patch14_dinov2", "self-distillation"),
        ("vit_small_patch16_dinov3", "self-distillation"),
        ("convnext_tiny.dinov3_lvd1689m", "self-distillation"),
        ("vit_base_patch16_224.mae", "masked images"),
        ("eva02_tiny_patch14_224.mim_in22k", "masked images"),
        ("convnextv2_atto.fcmae", "masked images"),
        ("hiera_tiny_224.mae", "masked images"),
        ("beitv2_base_patch16_224.in1k_ft_in22k", "masked images, then labels"),
        ("eva02_large_patch14_448.mim_m38m_ft_in22k_in1k", "masked images, then labels"),
        ("convnextv2_atto.fcmae_ft_in1k", "masked images, then labels"),
    ],
)
def test_the_kind_is_read_off_the_tag(name, kind):
    assert kind_of(name, "timm")[0] == kind


@pytest.mark.parametrize(
    ("file", "kind", "statistics"),
    [
        ("dinov2_vits14_reg4_pretrain.pth", "self-distillation", IMAGENET),
        ("dino_deitsmall16_pretrain.pth", "self-distillation", IMAGENET),
        ("mae_pretrain_vit_base.pth", "masked images", IMAGENET),
        ("beit_base_patch16_224_pt22k_ft22k.pth", "masked images, then labels", HALF),
        ("ViT-B-16.openai.pt", "image-text", CLIP),
        ("open_clip_pytorch_model.bin", "image-text", CLIP),
        ("siglip2-base.safetensors", "image-text", HALF),
        ("eva02_B_pt_in21k_p14.pt", "masked images", CLIP),
        ("ViT-B_16.npz", "supervised", HALF),
        ("deit_base_patch16_224-b5f2ef4d.pth", "supervised", IMAGENET),
        ("mine.pth", "supervised", None),
        ("tomahawk.pth", "supervised", None),
    ],
)
def test_the_name_of_a_file_says_its_kind_and_normalisation(file, kind, statistics):
    assert kind_of("vit_base_patch16_224", f"weights/{file}")[0] == kind
    assert statistics_of("vit_base_patch16_224", f"weights/{file}") == statistics


def test_a_file_without_a_hint_is_what_its_architecture_is_for():
    assert kind_of("vit_small_patch14_dinov2", "mine.pth") == (
        "self-distillation",
        "vit_small_patch14_dinov2",
    )
    kind, told = kind_of("vit_base_patch16_224", "mine.pth")
    assert kind == "supervised"
    assert "mine.pth" in told
    assert "do not say" in told


def test_random_weights_and_those_of_timm():
    assert kind_of("vit_small_patch16_dinov3", None)[0] == "random"
    for weights in (None, "timm", "deit_tiny_patch16_224.safetensors"):
        assert statistics_of("deit_tiny_patch16_224", weights) is None


def test_most_of_timm_says_what_it_was_pretrained_by():
    names = timm.list_pretrained()
    silent = [name for name in names if "do not say" in kind_of(name, "timm")[1]]
    assert len(silent) < len(names) / 50
    kinds = {kind_of(name, "timm")[0] for name in names}
    assert kinds == {kind for kind, _ in KINDS}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("deit_tiny_patch16_224", 224),
        ("vit_small_patch16_dinov3", 256),
        ("vit_small_patch14_dinov2", 224),
        ("eva02_tiny_patch14_336", 336),
        ("vit_base_patch16_siglip_384", 384),
        ("vit_tiny_patch16_384.augreg_in21k_ft_in1k", 384),
    ],
)
def test_the_size_is_that_of_the_weights(name, size):
    assert image_size_of(name) == size


@pytest.mark.parametrize(
    ("name", "family", "num_layers"),
    [
        ("vit_tiny_patch16_224", "ViT", 14),  # embedding, 12 blocks, head
        ("eva02_tiny_patch14_224", "ViT", 14),
        ("resnet18", "CNN", 10),
        ("mobilenetv4_conv_small", "CNN", None),
        ("swin_tiny_patch4_window7_224", "hierarchical", 14),
        ("convnext_tiny", "hierarchical", 20),
    ],
)
def test_families_and_their_layers(name, family, num_layers):
    with torch.device("meta"):
        network = timm.create_model(name)
    assert family_of(network) == family
    if num_layers is not None:
        assert num_layers_of(network) == num_layers


def test_a_model_whose_layers_timm_does_not_know():
    assert num_layers_of(torch.nn.Linear(2, 3)) is None
