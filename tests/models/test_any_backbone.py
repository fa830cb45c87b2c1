"""Models without attention among all tokens: the same outputs as timm's own, and the saliencies that fit."""

import re
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from timm.models import group_parameters
from torch import nn

from ramstrans.errors import ConfigError
from ramstrans.models.backbones import build_backbone
from ramstrans.models.config import ModelConfig
from ramstrans.models.encoder import Encoder
from ramstrans.models.methods.build import build_model
from ramstrans.models.saliency import SALIENCIES, choose_saliency
from ramstrans.models.saliency.cam import class_map
from tests.models.builders import noise


class Model(NamedTuple):
    """One of timm's models.

    Attributes:
        side: `(height, width)` of its input.
        grid: Of its features.
        saliency: By `auto`.
        blocks: How many there are to freeze.
        has_own_map: Whether its features are those of a convolution after timm's `forward_intermediates`.
    """

    side: tuple[int, int]
    grid: tuple[int, int]
    saliency: str
    blocks: int
    has_own_map: bool = False


FAST = {
    "test_resnet": Model((64, 96), (2, 3), "cam", 4),
    "test_efficientnet": Model((64, 96), (2, 3), "cam", 5, True),
    "test_convnext": Model((64, 96), (2, 3), "cosine", 4),
    "test_byobnet": Model((64, 96), (2, 3), "cam", 4),
    "test_coatnet": Model((64, 96), (2, 3), "cam", 4),
    "test_mambaout": Model((64, 96), (2, 3), "cosine", 4),
    "test_nfnet": Model((64, 96), (2, 3), "cam", 4, True),
    "dla46x_c": Model((64, 96), (2, 3), "cam", 6),  # its head is a convolution
    "starnet_s050": Model((64, 96), (2, 3), "cam", 4),
    "mobilenetv4_conv_small": Model((64, 96), (2, 3), "cosine", 5),  # a convolution after its pooling
    "efficientformerv2_s0": Model((64, 64), (2, 2), "cosine", 4),  # two heads
    "levit_128s": Model((128, 128), (2, 2), "cosine", 3),  # two heads, each of a norm and a layer
}
SLOW = {
    "swin_tiny_patch4_window7_224": Model((224, 448), (7, 14), "cam", 4),
    "swinv2_tiny_window8_256": Model((256, 256), (8, 8), "cam", 4),
    "swinv2_cr_tiny_224": Model((224, 224), (7, 7), "cam", 4),
    "hiera_tiny_224": Model((224, 448), (7, 14), "cosine", 12),
    "sam2_hiera_tiny": Model((256, 256), (8, 8), "cosine", 12),
    "fastvit_t8": Model((64, 96), (2, 3), "cam", 4, True),
    "test_maxvit": Model((96, 96), (3, 3), "cam", 4),
    "caformer_s18": Model((64, 96), (2, 3), "cosine", 4),
    "poolformer_s12": Model((64, 96), (2, 3), "cosine", 4),
    "levit_256d": Model((224, 224), (4, 4), "cosine", 3),
    "efficientformer_l1": Model((224, 224), (7, 7), "cosine", 4),
    "sequencer2d_s": Model((64, 96), (4, 6), "cam", 4),
    "vgg11": Model((256, 256), (8, 8), "cosine", 8),
    "vgg11_bn": Model((64, 96), (2, 3), "cosine", 16),
    "efficientnet_lite0": Model((64, 96), (2, 3), "cam", 7, True),
    "mobilenetv4_hybrid_medium": Model((64, 96), (2, 3), "cosine", 5),
    "coat_lite_tiny": Model((64, 96), (2, 3), "cosine", 4),  # modules that are parts of several others
    "xcit_nano_12_p8_224": Model((64, 96), (8, 12), "cosine", 12),
    "cait_xxs24_224": Model((64, 96), (4, 6), "cosine", 24),
    "volo_d1_224": Model((64, 96), (4, 6), "cosine", 5),
    "convit_tiny": Model((64, 64), (4, 4), "cosine", 12),
    "pvt_v2_b0": Model((64, 96), (2, 3), "cam", 4),
    "twins_svt_small": Model((64, 96), (2, 3), "cam", 4),
    "mvitv2_tiny": Model((64, 64), (2, 2), "cam", 4),
    "visformer_tiny": Model((64, 64), (2, 2), "cam", 3),
    "nest_tiny": Model((224, 224), (14, 14), "cam", 3),
    "gmlp_ti16_224": Model((64, 64), (4, 4), "cam", 30),
    "shvit_s1": Model((128, 192), (2, 3), "cosine", 3),  # a batch norm in its head
    "efficientvit_m0": Model((128, 128), (2, 2), "cosine", 3),
    "repvit_m1": Model((64, 96), (2, 3), "cosine", 4),
    "efficientvit_b0": Model((64, 96), (2, 3), "cosine", 4),
    "resnet50_clip": Model((64, 64), (2, 2), "cosine", 4),  # pooled by attention
    "samvit_base_patch16_224": Model((224, 224), (14, 14), "cam", 12),
    "vit_dwee_patch16_reg1_gap_256": Model((64, 96), (4, 6), "cosine", 14),  # differential attention
    "vit_dpwee_patch16_reg1_gap_256": Model((64, 96), (4, 6), "cosine", 16),
    "densenet121": Model((64, 96), (2, 3), "cam", 10),
    "regnetx_002": Model((64, 96), (2, 3), "cam", 5),
    "tresnet_m": Model((64, 96), (2, 3), "cam", 5),
    "rdnet_tiny": Model((64, 96), (2, 3), "cosine", 7),
    "hrnet_w18_small": Model((64, 96), (2, 3), "cam", 3, True),
    "ese_vovnet19b_slim_dw": Model((64, 96), (2, 3), "cam", 4),
    "rexnet_100": Model((64, 96), (2, 3), "cam", 17, True),
    "davit_tiny": Model((64, 96), (2, 3), "cosine", 4),
    "tiny_vit_5m_224": Model((224, 224), (7, 7), "cosine", 4),
    "gcvit_xxtiny": Model((224, 224), (7, 7), "cam", 4),
}
MODELS = FAST | SLOW
every_model = pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)


def backbone(name, **fields):
    torch.manual_seed(0)
    config = ModelConfig(backbone=name, num_classes=5, image_size=MODELS[name].side, **fields)
    model = build_backbone(config).eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    heads = model.get_classifier()
    for parameter in [
        value for head in (heads if isinstance(heads, tuple) else [heads]) for value in head.parameters()
    ]:
        nn.init.normal_(parameter, std=0.1, generator=generator)  # some are 0 at first
    return model


def intermediate(model, images):
    """timm's own last feature map, after the last norm where that is allowed."""
    for norm in (True, False):
        try:
            return model.forward_intermediates(images, indices=1, norm=norm, intermediates_only=True)[-1]
        except AssertionError:
            assert norm, "one of both is allowed"
    raise AssertionError


@every_model
@torch.no_grad()
def test_a_model_is_timms_and_has_its_saliencies(name):
    expected = MODELS[name]
    model, images = backbone(name), noise(2, 3, *expected.side)
    logits = model(images)
    encoder = Encoder(model, 1, size=expected.side).eval()
    features = encoder(images, 0)
    spread = logits.abs().max()
    torch.testing.assert_close(
        encoder.forward_head(features.pooled) / spread, logits / spread, rtol=1e-4, atol=1e-5
    )
    assert features.pooled.shape == (2, encoder.num_features)
    assert features.grid == encoder.anatomy.grid == expected.grid
    assert features.locations.shape == (2, expected.grid[0] * expected.grid[1], encoder.anatomy.num_channels)
    if not expected.has_own_map:
        last = intermediate(model, images).flatten(2).mT
        largest = last.abs().max()
        torch.testing.assert_close(features.locations / largest, last / largest, rtol=1e-4, atol=1e-5)
    assert len(encoder.blocks) == expected.blocks
    chosen, reason = choose_saliency(encoder)
    assert chosen == expected.saliency
    assert "no rollout: its layers are not all attention among all tokens" in reason
    assert encoder.sums_locations == (expected.saliency == "cam")
    if encoder.sums_locations:
        classes = torch.tensor([1, 3])
        bias = encoder.get_classifier().bias[classes]
        parts = class_map(features, encoder, classes)
        assert parts.shape == (2, *expected.grid)
        found = parts.sum(dim=(1, 2)) + bias
        torch.testing.assert_close(found / spread, logits[[0, 1], classes] / spread, rtol=1e-4, atol=1e-5)
    for saliency in SALIENCIES.values():
        if saliency.unfit(encoder, "all") is None:
            values = saliency.compute(features, encoder, "all")
            assert values.shape == (2, *expected.grid)
            assert values.dtype == torch.float32
            assert (values >= 0).all()


@pytest.mark.parametrize("class_tokens", ["joint", "separate", "shared"])
def test_one_scale_has_one_token_whatever_was_asked_for(class_tokens):
    options = {"embed_dim": 32, "depth": 1, "num_heads": 2}
    config = ModelConfig("vit_small_patch16_rope_224", num_classes=5, image_size=32, num_scales=1)
    config = replace(config, class_tokens=class_tokens, backbone_options=options)
    with torch.inference_mode():
        assert build_model(config).eval()(noise(1, 3, 32, 32)).scales[0].logits.shape == (1, 5)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "efficientformerv2_s0"])
def test_two_scales_take_a_step(name):
    model = build_model(ModelConfig(name, num_classes=5, image_size=MODELS[name].side)).train()
    assert model.encoder.class_tokens == "shared"
    images = noise(4, 3, *MODELS[name].side)
    for stage in model.stages(images):
        assert stage.logits.shape == (4, 5)
        stage.logits.logsumexp(dim=1).sum().backward()
    missing = [key for key, value in model.named_parameters() if value.grad is None]
    assert not missing
    with torch.no_grad():
        boxes = model.eval()(images).scales[0].boxes
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_resnet", (64, 64)),
        ("test_convnext", (96, 64)),
        ("test_efficientnet", (50, 90)),
    ],
)
@torch.no_grad()
def test_regions_of_a_cnn_may_have_another_size(name, size):
    config = ModelConfig(name, num_classes=5, image_size=(64, 96), region_size=size)
    model = build_model(config).eval()
    output = model(noise(2, 3, 64, 96))
    rows, columns = (-(-side // 32) for side in size)
    assert output.scales[1].saliency.shape == (2, rows, columns)
    twin = model.encoder.model(model.crop_regions(noise(2, 3, 64, 96), output.scales[0].boxes, 1))
    torch.testing.assert_close(output.scales[1].logits, twin, rtol=1e-4, atol=1e-5)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


LEFT_OUT = "leave model.region_size out, all scales of this backbone have one size"
BEIT = {
    "backbone": "beit_base_patch16_224",
    "backbone_options": {"depth": 2, "embed_dim": 16, "num_heads": 2},
}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"backbone": "test_maxvit", "image_size": 100}, "does not take 100x100 pixels (height (25) must be"),
        ({"backbone": "test_vit_relpos", "image_size": 70}, "70x70 is not a multiple of the patch 16x16"),
        ({"backbone": "vit_small_patch14_dinov2", "image_size": 50}, "not a multiple of the patch 14x14"),
        pytest.param(
            {"backbone": "hiera_tiny_224", "image_size": 200}, "200x200 pixels", marks=pytest.mark.slow
        ),
        slow({"backbone": "nest_tiny", "image_size": 250}, "must divide"),
        slow({"backbone": "mvitv2_tiny", "image_size": (64, 96)}, "timm cannot build"),  # only squares
        slow({"backbone": "gcvit_xxtiny", "image_size": 250}, "250x250"),
        pytest.param(
            {"backbone": "efficientformer_l1", "image_size": 256}, "256x256", marks=pytest.mark.slow
        ),
        pytest.param(
            {"backbone": "xcit_nano_12_p8_224", "image_size": 100}, "evenly", marks=pytest.mark.slow
        ),
    ],
)
def test_a_size_that_a_model_cannot_take_names_one_that_it_can(fields, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        build_backbone(ModelConfig(num_classes=5, **fields))
    assert "\n" not in str(caught.value)
    height, width = map(int, re.search(r"; take (\d+)x(\d+)$", str(caught.value)).groups())
    build_backbone(ModelConfig(num_classes=5, **fields | {"image_size": (height, width)}))
    sides = fields["image_size"]
    down, across = sides if isinstance(sides, tuple) else (sides, sides)
    assert abs(height - down) <= 32
    assert abs(width - across) <= 32


@pytest.mark.parametrize(
    "fields",
    [
        {"backbone": "test_vit_relpos", "image_size": 64, "region_size": 96},
        {**BEIT, "image_size": 48, "region_size": 64},
        pytest.param(
            {"backbone": "gmlp_ti16_224", "image_size": 64, "region_size": 96}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_model_of_one_size_refuses_another_for_regions(fields):
    with pytest.raises(ConfigError, match=LEFT_OUT) as caught:
        build_backbone(ModelConfig(num_classes=5, **fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"patch_stride": 8}, "patch_stride is only for ViTs .* not for a ResNet; leave it out"),
        ({"saliency": "rollout"}, "which this ResNet cannot have: .*; give auto or cosine or cam"),
        ({"saliency": "class_attention"}, "which this ResNet cannot have: its last layer is not attention"),
        ({"saliency": "pool_attention"}, "which this ResNet cannot have: no query pools its tokens"),
        ({"saliency": "gradcam"}, "model.saliency is 'gradcam'; give auto, rollout, class_attention"),
        ({"class_tokens": "joint"}, "this ResNet is not read at a class token: leave it out"),
        ({"global_pool": ""}, "global_pool is empty"),
        ({"global_pool": "median"}, "timm cannot build 'test_resnet'"),
        ({"backbone_options": {"depth": 3}}, "timm cannot build 'test_resnet'.*depth"),
    ],
)
def test_what_a_cnn_cannot_have_is_one_line(fields, said):
    with pytest.raises(ConfigError, match=said) as caught:
        build_model(ModelConfig("test_resnet", num_classes=5, image_size=64, **fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", ["all", "class"])
def test_class_rows_are_only_for_class_tokens(rows):
    fields = {"backbone": "test_vit", "num_classes": 5, "image_size": 64}
    assert build_model(ModelConfig(saliency_rows=rows, **fields)).saliency_name == "rollout"
    name = build_model(ModelConfig(saliency_rows=rows, global_pool="avg", **fields)).saliency_name
    assert name == ("rollout" if rows == "all" else "cosine")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("crossvit_9_240", "its features are list, neither", marks=pytest.mark.slow),
        pytest.param("coat_tiny", "its features are list, neither", marks=pytest.mark.slow),
        pytest.param(
            "pit_ti_distilled_224", "its features are its 2 class tokens alone", marks=pytest.mark.slow
        ),
        ("deit_tiny_distilled_patch16_224", "its two heads read two tokens"),
        pytest.param("gemma4_vit_167m_enc", "has no head that classifies", marks=pytest.mark.slow),
        ("sam3_hiera", "is not known to timm; did you mean"),
    ],
)
@pytest.mark.parametrize("num_scales", [1, 2])
def test_a_backbone_that_cannot_work_is_refused_in_one_line(name, reason, num_scales):
    size = 240 if "240" in name else 224
    with pytest.raises(ConfigError, match=reason) as caught:
        build_model(ModelConfig(name, num_classes=5, image_size=size, num_scales=num_scales))
    assert "\n" not in str(caught.value)


LAYERED = (
    "test_resnet",
    "test_convnext",
    "test_efficientnet",
    "test_vit_relpos",
    "cait_xxs36_224",
)  # one has a function


@pytest.mark.parametrize("name", [*LAYERED, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_layers_of_the_whole_model_are_timms(name):
    side = MODELS[name].side if name in MODELS else (64, 64)
    with torch.device("meta"):
        options = {"depth": 3} if name == "cait_xxs36_224" else {}
        config = ModelConfig(name, num_classes=5, image_size=side, backbone_options=options)
        model = build_model(config)
    own = model.encoder.model
    if not hasattr(own, "group_matcher"):
        with pytest.raises(ConfigError, match="timm does not know the layers of a MetaFormer; set it to 1"):
            model.group_matcher()
        return
    expected = group_parameters(own, own.group_matcher(), reverse=True)
    found = group_parameters(model, model.group_matcher(), reverse=True)
    assert found == {f"encoder.model.{key}": layer for key, layer in expected.items()}
    assert len(set(found.values())) > 3
