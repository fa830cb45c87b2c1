"""Torchvision's weights into timm's models: the outputs are equal."""

import pytest
import timm
import torch
from torchvision.models import resnet18
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from ramstrans.models.pretrained import load_pretrained

pytestmark = pytest.mark.slow  # test_naming, test_fit and test_convert are the fast ones

CASES = {
    "torchvision ViT": (
        lambda: VisionTransformer(64, 16, 2, 2, 24, 96, num_classes=3),
        *("vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 2}),
    ),
    "torchvision Swin": (
        lambda: SwinTransformer([4, 4], 8, [2, 1, 1], [2, 2, 2], [4, 4], num_classes=3),
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "embed_dim": 8, "depths": (2, 1, 1), "num_heads": (2, 2, 2), "window_size": 4},
    ),
    "torchvision ConvNeXt": (
        lambda: ConvNeXt(
            [CNBlockConfig(*sizes) for sizes in ((8, 16, 2), (16, 24, 1), (24, 32, 1), (32, None, 1))],
            num_classes=3,
        ),
        *("convnext_tiny", {"dims": (8, 16, 24, 32), "depths": (2, 1, 1, 1)}),
    ),
    None: (lambda: resnet18(num_classes=3), "resnet18", {}),
}


@pytest.mark.parametrize("layout", CASES)
def test_outputs_are_equal(tmp_path, layout):
    build, name, options = CASES[layout]
    torch.manual_seed(1)
    donor = build().eval()
    for parameter in donor.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    model = timm.create_model(name, num_classes=3, **options).eval()
    report = load_pretrained(model, name, tmp_path / "w.pth")
    assert report.layout == layout
    assert report.missing == report.resampled == ()
    assert all(key.endswith("relative_position_index") for key in report.unused)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(model.double()(images), donor.double()(images), atol=1e-9, rtol=1e-9)
