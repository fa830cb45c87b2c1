import pytest
import timm
import torch

from ramstrans.models.closest import closest
from tests.models.test_layouts import CASES

pytestmark = pytest.mark.slow  # test_naming, test_fit and test_convert are the fast ones


def published(name, layout=None):
    with torch.device("meta"):
        tensors = dict(timm.create_model(name).state_dict())
        content = CASES[layout][0](tensors) if layout else tensors
    while not any(isinstance(value, torch.Tensor) for value in content.values()):
        content = content.get("teacher") or next(iter(content.values()))
    return content


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        pytest.param("vit_large_patch16_224", None, marks=pytest.mark.slow),
        pytest.param("deit3_base_patch16_224", "DeiT III", marks=pytest.mark.slow),
        pytest.param("vit_small_patch14_reg4_dinov2", "DINOv2", marks=pytest.mark.slow),
        ("vit_base_patch16_dinov3_qkvb", "DINOv3"),
        ("vit_base_patch32_clip_224", "CLIP"),
        pytest.param("vit_base_patch16_siglip_224", None, marks=pytest.mark.slow),
        pytest.param("eva02_base_patch14_224", None, marks=pytest.mark.slow),
        pytest.param("swin_base_patch4_window7_224", "Swin", marks=pytest.mark.slow),
        ("convnextv2_base", "ConvNeXt V2"),
        ("efficientnet_lite0", None),
        ("resnet50", None),
    ],
)
def test_a_published_file_names_its_backbone(name, layout):
    hint = closest(published(name, layout), "deit_tiny_patch16_224", "w.pth")
    assert hint == f"the closest backbone is {name}: give --model.backbone {name}, or other --model.weights"


def test_a_file_of_the_same_backbone_that_does_not_fit_is_of_another_size():
    hint = closest(published("vit_small_patch16_224"), "vit_small_patch16_224.augreg_in21k", "w.pth")
    assert hint == "give --model.image_size 224 and leave out other options of this backbone"


def test_a_known_family_without_a_match_is_named():
    tensors = {"conv_stem.weight": torch.empty(7, 3, 3, 3), "blocks.0.0.bn1.weight": torch.empty(7)}
    hint = closest(tensors, "resnet18", "w.pth")
    assert hint == "they look like one of timm.list_models(module='efficientnet'); give weights of resnet18"


def test_an_unknown_network():
    assert (
        closest({"a.b": torch.empty(3)}, "resnet18", "w.pth")
        == "its kind is unknown; give weights of resnet18"
    )


def test_the_name_of_the_file_decides_between_equals():
    tensors = published("tf_efficientnet_lite0")
    hint = closest(tensors, "resnet18", "weights/tf_efficientnet_lite0.in1k.safetensors")
    assert hint.startswith("the closest backbone is tf_efficientnet_lite0:")
