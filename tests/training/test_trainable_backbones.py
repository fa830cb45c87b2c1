"""What is frozen, adapted, decayed and recomputed in backbones that are not plain ViTs."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from ramstrans.errors import ConfigError
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.build import build_model
from ramstrans.training.config import TrainingConfig
from ramstrans.training.optim import build_optimizer
from ramstrans.training.step import build_train_step
from ramstrans.training.trainable import (
    add_lora,
    check_batch_norms,
    freeze_backbone,
    freeze_blocks,
    merged_state_dict,
    set_train_mode,
)
from tests.models.builders import noise

SIDE = (64, 96)
TINY = {"embed_dim": 16, "depth": 3, "num_heads": 2}
OPTIONS = {
    **dict.fromkeys(("vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"), TINY),
    **dict.fromkeys(("eva02_tiny_patch14_224", "vit_small_patch16_rope_mixed_224"), TINY),
    **dict.fromkeys(("beit_base_patch16_224", "vit_base_patch16_siglip_224"), TINY),
    "swinv2_tiny_window8_256": {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)},
}


def model_of(name, seed=0, **fields):
    """Two scales, five classes, and nothing that is without effect at first."""
    torch.manual_seed(seed)
    side = (56, 84) if "patch14" in name else (64, 64) if "swinv2" in name else SIDE
    options = OPTIONS.get(name, {})
    model = build_model(
        ModelConfig(name, num_classes=5, image_size=side, backbone_options=options, **fields)
    ).eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # some are 0 at first, or near it, and hide what is behind them
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    nn.init.normal_(model.encoder.get_classifier().weight, std=0.1, generator=generator)
    return model


def images_of(model):
    return noise(4, 3, *model.image_size)


def descend(model, steps=2, **recipe):
    """Take some steps in training mode; the names of what moved: parameters, then buffers."""
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(model, TrainingConfig(lr=0.01, weight_decay=0.1, **recipe))
    set_train_mode(model)
    for _ in range(steps):
        for stage in model.stages(images_of(model)):
            nn.functional.cross_entropy(stage.logits, torch.tensor([0, 1, 4, 1])).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = model.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    parameters = dict(model.named_parameters())
    return {name for name in moved if name in parameters}, {name for name in moved if name not in parameters}


def below(model, *names):
    starts = tuple(f"encoder.model.{name}" for name in names)
    return {name for name in model.state_dict() if name.startswith(starts)}


@pytest.mark.parametrize(
    ("name", "early", "count"),
    [
        ("test_resnet", ("conv1", "bn1"), 4),
        ("test_efficientnet", ("conv_stem", "bn1"), 5),
        ("test_convnext", ("stem",), 4),
        ("vit_small_patch16_dinov3", ("patch_embed", "cls_token", "reg_token", "pos_embed", "norm_pre"), 3),
    ],
)
def test_frozen_stages_and_their_running_statistics_stay(name, early, count):
    model = model_of(name)
    blocks = model.encoder.blocks
    assert len(blocks) == count
    freeze_blocks(model, 2)
    frozen = below(model, *early)
    for key, module in model.encoder.model.named_modules():
        if any(module is block for block in blocks[:2]):
            frozen |= below(model, f"{key}.")
    assert len(frozen) > 8
    parameters, buffers = descend(model)
    trained = {key for key, _ in model.named_parameters()} - frozen
    statistics = {key for key in model.state_dict() if "running_" in key or "num_batches" in key}
    assert not parameters & frozen
    assert parameters >= {key for key in trained if key.endswith(".weight")}  # a norm may undo a bias
    assert buffers == statistics - frozen
    if name in ("test_resnet", "test_efficientnet"):
        assert statistics - frozen
        assert statistics & frozen


def test_blocks_of_a_cnn_are_its_stages():
    with pytest.raises(ConfigError, match="freeze_blocks is 5; this backbone has 4 blocks: give 0 to 4"):
        freeze_blocks(model_of("test_resnet"), 5)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv4_conv_small", "levit_128s", "test_convnext"])
def test_a_probes_features_are_those_that_it_is_evaluated_with(name):
    torch.manual_seed(0)
    model = build_model(ModelConfig(name, num_classes=5, image_size=(128, 128), drop_path=0.3))
    freeze_backbone(model)
    images = images_of(model)
    with torch.no_grad():
        expected = model.eval().encoder(images, 0).pooled
        set_train_mode(model)
        assert torch.equal(model.encoder(images, 0).pooled, expected)
    parameters, buffers = descend(model)
    heads = {id(value) for value in model.encoder.get_classifier().parameters()}
    assert parameters == {key for key, value in model.named_parameters() if id(value) in heads}
    assert all(".head" in key for key in buffers)  # only LeViT has a batch norm in its heads


def test_a_probe_may_train_batch_norms():
    model = model_of("test_resnet")
    freeze_backbone(model, norms=True)
    norms = {
        f"{key}.{part}"
        for key, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for part in ("weight", "bias")
    }
    assert norms
    assert descend(model)[0] == norms | below(model, "fc.")


ADAPTED = {
    "test_efficientnet": ("conv_stem", "conv_head"),
    "test_convnext": ("stem.0", "mlp.fc1", "mlp.fc2", "downsample.1"),
    "test_resnet": ("conv1", "conv2", "downsample"),
    "vit_small_patch16_dinov3": ("attn.qkv", "attn.proj"),
    "vit_small_patch16_dinov3_qkvb": ("attn.qkv", "attn.proj"),
    "eva02_tiny_patch14_224": ("attn.qkv", "attn.proj"),
    "vit_small_patch16_rope_mixed_224": ("attn.qkv", "attn.proj"),
    "beit_base_patch16_224": ("attn.qkv", "attn.proj"),
    "vit_base_patch16_siglip_224": ("attn.qkv", "attn.proj"),
    "swinv2_tiny_window8_256": ("attn.qkv", "attn.proj"),
    "tf_efficientnet_lite0": ("conv_pw", "conv_pwl"),  # the others pad by themselves
}
every_adapted = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name.startswith("tf_") else ()) for name in ADAPTED],
)


@every_adapted
@torch.no_grad()
def test_merged_adapters_give_the_same_outputs(name):
    pytest.importorskip("peft", reason="peft is not installed")
    model, plain = model_of(name), model_of(name)
    images = images_of(model)
    before = model(images).scales
    add_lora(model, rank=2, alpha=4)
    adapters = [key for key, _ in model.named_parameters() if ".lora_A." in key]
    for part in ADAPTED[name]:
        assert any(part in key for key in adapters), part
    for found, expected in zip(model(images).scales, before, strict=True):
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    generator = torch.Generator().manual_seed(7)
    for key, parameter in model.named_parameters():
        if ".lora_" in key:
            nn.init.normal_(parameter, std=0.1, generator=generator)
    found = model(images).scales[0]
    state = merged_state_dict(model)
    assert list(state) == list(plain.state_dict())
    unmerged = plain(images).scales[0].logits
    plain.load_state_dict(state)
    merged = plain(images).scales[0]
    spread = (merged.logits - unmerged).abs().max().item()
    assert spread > 1e-4
    torch.testing.assert_close(found.logits, merged.logits, rtol=1e-3, atol=1e-3 * spread)
    torch.testing.assert_close(found.saliency, merged.saliency, rtol=1e-3, atol=1e-4)


@every_adapted
def test_every_adapter_learns(name):
    """timm reads some weights past their layer's own forward pass, where an adapter would do nothing."""
    pytest.importorskip("peft", reason="peft is not installed")
    model = model_of(name)
    add_lora(model, rank=2)
    parameters, _ = descend(model)
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    assert sum(".lora_" in key for key in trained) >= 12
    assert not parameters - trained
    assert all("cpb_mlp" in key for key in trained - parameters)  # whose gradients are tiny


def test_a_model_without_plain_layers_says_that_it_has_none():
    pytest.importorskip("peft", reason="peft is not installed")
    with torch.device("meta"):
        model = build_model(ModelConfig("resnetv2_50x1_bit", num_classes=5, image_size=64))
    with pytest.raises(ConfigError, match="this ResNetV2 has no plain linear layer or convolution"):
        add_lora(model)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "test_resnet",
            {
                "conv1": 0.4 / 16,
                "layer1": 0.4 / 8,
                "layer2": 0.4 / 4,
                "layer3": 0.2,
                "layer4": 0.4,
                "fc": 0.8,
            },
        ),
        (
            "vit_small_patch16_dinov3",
            {
                "patch_embed": 0.05,
                "cls_token": 0.05,
                "blocks.0": 0.1,
                "blocks.1": 0.2,
                "blocks.2": 0.4,
                "head": 0.8,
            },
        ),
        (
            "vit_base_patch16_siglip_224",
            {"pos_embed": 0.05, "blocks.0": 0.1, "blocks.2": 0.4, "head": 0.8},
        ),
    ],
)
def test_rates_decay_by_layers(name, expected):
    model = model_of(name)
    optimizer = build_optimizer(model, TrainingConfig(lr=0.8, layer_decay=0.5, weight_decay=0.05))
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    rates = {names[id(one)]: group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert rates.keys() == set(names.values())
    for start, rate in expected.items():
        found = {rates[key] for key in below(model, start) if key in rates}
        assert len(found) == 1, start
        assert found.pop() == pytest.approx(rate), start
    decayed = {
        names[id(one)] for group in optimizer.param_groups if group["weight_decay"] for one in group["params"]
    }
    assert all(dict(model.named_parameters())[key].ndim > 1 for key in decayed)


CHECKPOINTED = (
    *("test_resnet", "test_convnext", "test_efficientnet", "vit_small_patch16_dinov3"),
    *("vit_base_patch16_siglip_224", "beit_base_patch16_224", "eva02_tiny_patch14_224"),
)


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_recomputed_blocks_have_the_same_gradients(name):
    model, plain = model_of(name), model_of(name)
    model.encoder.set_grad_checkpointing()
    gradients = []
    for one in (model, plain):
        set_train_mode(one)
        stages = []
        for stage in one.stages(images_of(one)):
            stage.logits.square().sum().backward()
            stages.append(stage)
        gradients.append(({key: value.grad for key, value in one.named_parameters()}, stages))
    (found, stages), (expected, wanted) = gradients
    for stage, want in zip(stages, wanted, strict=True):
        torch.testing.assert_close(stage.logits, want.logits)
    torch.testing.assert_close(stages[0].saliency, wanted[0].saliency)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-6)


def test_a_model_that_cannot_recompute_says_so():
    model = model_of("dla46x_c")
    with pytest.raises(ConfigError, match="gradient_checkpointing: a DLA cannot; set it to false"):
        model.encoder.set_grad_checkpointing()
    model.encoder.set_grad_checkpointing(False)


def gradients_of(model):
    """Of the weights, by name; and whether a feature map was laid out by location."""
    layouts = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda module, inputs, output: layouts.append(
                    output.is_contiguous(memory_format=torch.channels_last) and not output.is_contiguous()
                )
            )
    set_train_mode(model)
    images = images_of(model).double()
    sum(stage.logits.square().sum() for stage in model.stages(images)).backward()
    return {key: one.grad for key, one in model.named_parameters()}, any(layouts)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_nfnet", "tf_efficientnet_lite0"])
def test_maps_laid_out_by_location_give_the_same_gradients(name):
    plain, model = model_of(name).double(), model_of(name).double()  # fp32 rounds more than layouts differ
    AcceleratorState._reset_state(reset_partial_state=True)  # of another test's precision
    build_train_step(model, TrainingConfig(channels_last=True), Accelerator(cpu=True), total_steps=1)
    expected, by_location = gradients_of(plain)
    assert not by_location
    found, by_location = gradients_of(model)
    assert by_location
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-9, atol=1e-12 * largest)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", "a VisionTransformer has none to gain"),
        ("fastvit_t8", "writes beyond its memory"),
    ],
)
def test_maps_that_cannot_be_laid_out_by_location_say_so(name, reason):
    model = model_of(name)
    with pytest.raises(ConfigError, match=f"training.channels_last.*{reason}.*set it to false"):
        model.encoder.set_channels_last()
    model.encoder.set_channels_last(False)


@pytest.mark.parametrize(
    ("name", "side", "fails"),
    [("resnet10t", 32, True), ("resnet10t", 64, False), ("mobilenetv4_conv_small_050", 64, True)],
)
def test_one_image_per_pass_is_too_few_for_a_batch_norm_of_one_location(name, side, fails):
    model = build_model(ModelConfig(name, num_classes=2, image_size=side, num_scales=1))
    check_batch_norms(model, TrainingConfig(), 2)
    check_batch_norms(model, TrainingConfig(finetune="head"), 1)  # all of them are frozen
    set_train_mode(model)
    if fails:
        with pytest.raises(ConfigError, match=f"one image of {side}x{side} pixels per pass"):
            check_batch_norms(model, TrainingConfig(), 1)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model.encoder.model(noise(1, 3, side, side))
    else:
        check_batch_norms(model, TrainingConfig(), 1)
        model.encoder.model(noise(1, 3, side, side))
