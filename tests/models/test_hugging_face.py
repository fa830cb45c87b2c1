"""Files that Hugging Face's transformers writes, into timm's models: the outputs are equal."""

import pytest
import timm
import torch
import transformers as hf

from ramstrans.models.fit import head_names
from ramstrans.models.pretrained import load_pretrained

pytestmark = pytest.mark.slow  # test_naming, test_fit and test_convert are the fast ones

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 32}
MLP, EPS = {"intermediate_size": 128}, {"layer_norm_eps": 1e-6}
DINOV3 = SIZES | MLP | {"num_register_tokens": 4}
SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
TIMM_SWIN = {"img_size": 32, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 2), "window_size": 4}
CONVNEXT, TIMM_CONVNEXT = (
    {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 1, 1]},
    {"dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1)},
)
TOKEN = VIT | {"global_pool": "token"}

CASES = {
    "ViT": ("ViTForImageClassification", "ViTConfig", SIZES | MLP | EPS, "vit_base_patch16_224", VIT),
    "DeiT": (
        *("DeiTForImageClassificationWithTeacher", "DeiTConfig", SIZES | MLP | EPS),
        *("deit_base_distilled_patch16_224", VIT),
    ),
    "MAE": (
        "ViTMAEModel",
        "ViTMAEConfig",
        SIZES | MLP | EPS | {"mask_ratio": 0.0},
        "vit_base_patch16_224",
        VIT,
    ),
    "BEiT": (
        *(
            "BeitForImageClassification",
            "BeitConfig",
            SIZES | MLP | EPS | {"use_relative_position_bias": True},
        ),
        *("beit_base_patch16_224", VIT),
    ),
    "DINOv2": ("Dinov2Model", "Dinov2Config", SIZES, "vit_base_patch14_dinov2", VIT),
    "DINOv2 giant": (
        *("Dinov2Model", "Dinov2Config", SIZES | {"use_swiglu_ffn": True}),
        *("vit_giant_patch14_dinov2", VIT | {"mlp_ratio": 5.5}),
    ),
    "DINOv2 with registers": (
        *("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", SIZES),
        *("vit_base_patch14_reg4_dinov2", VIT),
    ),
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", DINOV3, "vit_base_patch16_dinov3_qkvb", TOKEN),
    "DINOv3 without bias": (
        *("DINOv3ViTModel", "DINOv3ViTConfig", DINOV3 | {"query_bias": False, "value_bias": False}),
        *("vit_base_patch16_dinov3", TOKEN),
    ),
    "DINOv3 gated": (
        *("DINOv3ViTModel", "DINOv3ViTConfig", DINOV3 | {"use_gated_mlp": True, "hidden_act": "silu"}),
        *("vit_small_plus_patch16_dinov3_qkvb", TOKEN | {"mlp_ratio": 4}),
    ),
    "DINOv3 ConvNeXt": (
        *("DINOv3ConvNextModel", "DINOv3ConvNextConfig", CONVNEXT),
        *("convnext_tiny", TIMM_CONVNEXT),
    ),
    "CLIP": (
        *("CLIPVisionModelWithProjection", "CLIPVisionConfig", SIZES | MLP),
        *("vit_base_patch16_clip_quickgelu_224", VIT),
    ),
    "SigLIP": (
        *("SiglipVisionModel", "SiglipVisionConfig", SIZES | MLP | {"hidden_act": "gelu"}),
        *("vit_base_patch16_siglip_224", VIT),
    ),
    "SigLIP 2 NaFlex": (
        *("Siglip2VisionModel", "Siglip2VisionConfig", SIZES | MLP | {"num_patches": 16}),
        *("naflexvit_base_patch16_siglip", VIT | {"pos_embed_grid_size": (4, 4)}),
    ),
    "Swin": ("SwinForImageClassification", "SwinConfig", SWIN, "swin_tiny_patch4_window7_224", TIMM_SWIN),
    "Swin V2": ("Swinv2ForImageClassification", "Swinv2Config", SWIN, "swinv2_tiny_window8_256", TIMM_SWIN),
    "ConvNeXt": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        CONVNEXT,
        "convnext_tiny",
        TIMM_CONVNEXT,
    ),
    "ConvNeXt V2": (
        *("ConvNextV2ForImageClassification", "ConvNextV2Config", CONVNEXT),
        *("convnextv2_tiny", TIMM_CONVNEXT),
    ),
}


def random_donor(case):
    model, config, options = CASES[case][:3]
    if model.startswith("Siglip2"):
        options = {key: value for key, value in options.items() if key != "image_size"}
    torch.manual_seed(1)
    donor = getattr(hf, model)(getattr(hf, config)(**options)).eval()
    for key, parameter in donor.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in key and "weight" in key), std=0.2)
    return donor


def features(donor, images):
    """What a classifier would see, or the logits."""
    if type(donor).__name__.startswith("Siglip2"):  # reads patches, (B, N, pixels in rows, columns, channels)
        patches = images.reshape(2, 3, 4, 8, 4, 8).permute(0, 2, 4, 3, 5, 1).reshape(2, 16, -1)
        mask, shapes = torch.ones(2, 16, dtype=torch.long), torch.tensor([[4, 4], [4, 4]])
        return donor(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes).pooler_output
    if type(donor).__name__ == "ViTMAEModel":
        order = torch.arange(16.0).expand(2, -1)
        return donor(pixel_values=images, noise=order).last_hidden_state[:, 0]
    if type(donor).__name__.startswith("CLIP"):
        return donor.vision_model(pixel_values=images).pooler_output
    output = donor(pixel_values=images)
    return output.logits if hasattr(output, "logits") else output.pooler_output


@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "state dict"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_are_equal(tmp_path, case, in_memory):
    donor, (*_, name, options) = random_donor(case), CASES[case]
    path = tmp_path / ("w.pth" if in_memory else "model.safetensors")
    torch.save(donor.state_dict(), path) if in_memory else donor.save_pretrained(tmp_path)
    num_classes = 2 if "Classification" in type(donor).__name__ else 0
    model = timm.create_model(name, num_classes=num_classes, **options).eval()
    report = load_pretrained(model, name, path)
    assert report.layout is not None
    assert report.missing == report.resampled == ()
    assert {key.split(".")[0] for key in report.loaded} <= {"norm"}  # the one name that DINOv3 shares
    assert all("mask_token" in key or "projection" in key for key in report.unused)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            *(model.double()(images), features(donor.double(), images)), atol=2e-6, rtol=1e-6
        )


def test_a_published_classifier_stays_out_where_classes_differ(tmp_path):
    donor = random_donor("ConvNeXt")
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    model = timm.create_model("convnext_tiny", num_classes=5, **TIMM_CONVNEXT)
    report = load_pretrained(model, "convnext_tiny", tmp_path / "w.pth")
    assert set(report.missing) == {"head.fc.weight", "head.fc.bias"}
    assert set(report.unused) == {"classifier.weight", "classifier.bias"}
    assert head_names(model) == ("head.fc.", "head_dist.")


def test_positions_of_another_image_size_are_resampled(tmp_path):
    donor = random_donor("SigLIP")
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    model = timm.create_model("vit_base_patch16_siglip_224", num_classes=0, **VIT | {"img_size": 64})
    report = load_pretrained(model, "vit_base_patch16_siglip_224", tmp_path / "w.pth")
    assert report.resampled == ("pos_embed",)


def test_a_whole_clip_gives_its_visual_tower(tmp_path):
    text = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    tokens = {"vocab_size": 11, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = hf.CLIPConfig(text_config=text | tokens, vision_config=SIZES | MLP)
    hf.CLIPModel(config).save_pretrained(tmp_path)
    model = timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=5, **VIT)
    report = load_pretrained(model, "vit_base_patch16_clip_quickgelu_224", tmp_path)
    assert set(report.missing) == {"head.weight", "head.bias"}
    assert {"logit_scale", "visual_projection.weight"} < set(report.unused)
    assert all(key.startswith(("text_", "logit_scale", "visual_projection")) for key in report.unused)


def test_a_bias_is_not_loaded_without_the_weight_of_its_layer(tmp_path):
    donor = hf.Dinov2ForImageClassification(hf.Dinov2Config(**SIZES, num_labels=3))  # reads two features
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    model = timm.create_model("vit_base_patch14_dinov2", num_classes=3, **VIT)
    report = load_pretrained(model, "vit_base_patch14_dinov2", tmp_path / "w.pth")
    assert set(report.missing) == {"head.weight", "head.bias"}
    assert {"classifier.weight", "classifier.bias"} < set(report.unused)
