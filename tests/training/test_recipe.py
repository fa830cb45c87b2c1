"""The recipe that a run gets where it was given none."""

import dataclasses
import logging
import re
from pathlib import Path

import pytest

from ramstrans.models.config import ModelConfig
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.recipe import (
    EVA02_ROWS,
    LORA,
    ROWS,
    Facts,
    layer_decay,
    row_for,
    scaled_lr,
    with_recipe,
)


def run(backbone, weights="timm", training=None, **model):
    return RunConfig(
        model=ModelConfig(backbone, weights=weights, **model),
        training=TrainingConfig(batch_size=32, **(training or {})),
        device="cpu",
    )


@pytest.mark.parametrize("row", [*ROWS, *EVA02_ROWS, LORA], ids=lambda row: f"{row.source[:12]} {row.lr}")
def test_every_row_is_whole(row):
    assert 0 < row.lr <= 0.1
    assert 0.5 < row.layer_decay <= 1
    assert row.optimizer in ("adamw", "sgd")
    assert "://" in row.source or "github.com" in row.source or "docs/results.md" in row.source


def test_every_row_and_its_source_are_in_the_docs():
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    section = text[text.index("## Recipes") : text.index("`--training.finetune head`, `lora` or `all`")]
    for row in (*ROWS, *EVA02_ROWS, LORA):
        assert f"{row.lr:.1e}".replace(".0", "").replace("e-0", "e-") in section or f"{row.lr:g}" in section
        assert f"{row.layer_decay:g}" in section
        assert all(url in section for url in re.findall(r"https://[\w./-]+\w", row.source))


def test_every_combination_has_a_row():
    kinds = {kind for row in ROWS for kind in row.kinds}
    for kind in kinds:
        for family in ("ViT", "hierarchical", "CNN"):
            for millions in (1, 100, 7000):
                for name in ("vit", "eva02"):
                    assert row_for(Facts(name, kind, "", family, millions, 14, 12), TrainingConfig())


@pytest.mark.usefixtures("bf16_units")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deit_tiny_patch16_224", ("adamw", 2e-4, 1.0, 0.05, 50, 0.1, 0.0, 224)),
        ("vit_base_patch16_224.augreg_in21k", ("sgd", 0.01, 1.0, 0.0, 50, 0.0, 0.0, 224)),
        ("vit_base_patch16_224.mae", ("adamw", 3.5e-4, 0.65, 0.05, 50, 0.1, 0.1, 224)),  # 2e-3 / sqrt(32)
        ("vit_base_patch16_clip_224.openai", ("adamw", 7.5e-5, 0.6, 0.05, 100, 0.1, 0.0, 224)),  # 6e-4 / 8
        ("vit_small_patch16_dinov3", ("adamw", 5e-5, 0.75, 0.05, 50, 0.1, 0.1, 256)),  # not below 5e-5
        ("eva02_small_patch14_336", ("adamw", 5e-5, 0.85, 1e-8, 100, 0.1, 0.1, 336)),
        ("eva02_tiny_patch14_224.mim_in22k", ("adamw", 5e-5, 0.9, 0.05, 50, 0.1, 0.1, 224)),
        ("resnet18", ("adamw", 1e-3, 1.0, 0.0, 50, 0.1, 0.0, 224)),
        ("convnext_tiny", ("adamw", 5e-5, 0.8584, 1e-8, 0, 0.1, 0.2, 224)),  # 0.8 ** (13 / 19)
        ("swin_tiny_patch4_window7_224", ("adamw", 5e-5, 0.8, 1e-8, 0, 0.1, 0.2, 224)),
    ],
)
def test_the_recipe_of_a_backbone(name, expected):
    config, lines = with_recipe(run(name))
    training, model = config.training, config.model
    found = (
        *(training.optimizer, training.lr, training.layer_decay, training.weight_decay),
        *(training.warmup_steps, training.label_smoothing, model.drop_path, model.image_size),
    )
    assert found == expected
    assert training.precision == "bf16"
    assert "recipe auto: " in lines[0]
    assert f"{expected[-1]}x{expected[-1]} px" in lines[1]
    assert f"{training.lr:.2g}" in lines[2]
    assert lines[3].startswith("from ")
    component = "soft" if ", ViT, " in lines[0] else "count"
    assert model.component == component
    assert lines[4].startswith(f"regions: component {component}")
    assert len(lines) == 5


@pytest.mark.parametrize("bf16_units", [True, False], indirect=True)
def test_the_precision_is_one_that_the_processor_has_units_for(bf16_units):
    config, lines = with_recipe(dataclasses.replace(run("resnet18"), device="cpu"))
    assert config.training.precision == ("bf16" if bf16_units else "fp32")
    assert lines[2].endswith(config.training.precision)
    given = dataclasses.replace(config.training, precision="fp16")
    kept, _ = with_recipe(dataclasses.replace(config, training=given), {"training.precision"})
    assert kept.training.precision == "fp16"


def test_what_was_given_stays():
    training = {"lr": 0.007, "warmup_epochs": 2.0, "precision": "fp32"}
    before = run("convnext_tiny", training=training, image_size=96, drop_path=0.3)
    given = {"training.lr", "training.warmup_epochs", "training.precision", "model.image_size"}
    config, lines = with_recipe(before, given | {"model.drop_path", "seed"})
    assert {name: getattr(config.training, name) for name in training} == training
    assert config.training.warmup_steps == before.training.warmup_steps
    assert (config.model.image_size, config.model.drop_path) == (96, 0.3)
    assert config.training.weight_decay == 1e-8
    assert lines[-1] == "as given: training.lr, training.precision, model.image_size, model.drop_path"
    assert "warm-up of 2 epochs" in lines[2]
    assert "for 512 images" not in lines[2]


def test_everything_else_stays():
    before = run("deit_tiny_patch16_224", training={"epochs": 3, "gradient_clip": 2.0}, num_scales=3)
    config, _ = with_recipe(before)
    chosen = (
        "optimizer",
        "lr",
        "layer_decay",
        "weight_decay",
        "warmup_steps",
        "label_smoothing",
        "precision",
    )
    same = {name: getattr(before.training, name) for name in chosen}
    assert dataclasses.replace(config.training, **same) == before.training
    regions = {"class_tokens": "shared", "component": "soft", "saliency_layers": 6}
    assert config.model == dataclasses.replace(before.model, **regions)


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [("deit_tiny_patch16_224", 6), ("vit_large_patch16_224", 12), ("vit_small_patch16_dinov3", 6)],
)
def test_regions_are_by_the_last_half_of_a_vits_layers(backbone, layers):
    config, lines = with_recipe(run(backbone))
    assert (config.model.component, config.model.class_tokens) == ("soft", "shared")
    assert config.model.saliency_layers == layers
    assert lines[4] == f"regions: component soft, rollout of the last {layers} layers; class tokens shared"


@pytest.mark.parametrize(
    ("backbone", "fields"),
    [("xcit_nano_12_p16_224", {}), ("deit_tiny_patch16_224", {"saliency": "cosine"})],
)
def test_no_rollout_is_told_of_where_there_is_none(backbone, fields):
    config, lines = with_recipe(run(backbone, **fields))
    assert config.model.saliency_layers is None
    assert "regions: component soft; class tokens shared" in lines


def test_regions_that_were_given_stay():
    before = run("deit_tiny_patch16_224", component="count", saliency_layers=3)
    config, lines = with_recipe(before, {"model.component", "model.saliency_layers"})
    model = config.model
    assert (model.component, model.saliency_layers, model.class_tokens) == ("count", 3, "shared")
    assert lines[-1] == "as given: model.component, model.saliency_layers"


@pytest.mark.parametrize("fields", [{"method": "transfg"}, {"method": "plain"}, {"num_scales": 1}])
def test_a_peer_and_one_look_have_the_regions_of_their_papers(fields):
    before = run("deit_tiny_patch16_224", **fields)
    config, lines = with_recipe(before)
    assert config.model == before.model
    assert not any(line.startswith("regions") for line in lines)


def test_the_rate_follows_the_batch_size():
    masked = next(row for row in ROWS if row.lr == 2e-3)
    rates = [scaled_lr(masked, batch) for batch in (4, 64, 256, 1024, 4096)]
    assert rates == [
        1.3e-4,
        5e-4,
        1e-3,
        2e-3,
        4e-3,
    ]
    for row in ROWS:
        if row.batch is None:
            assert {scaled_lr(row, batch) for batch in (16, 512)} == {row.lr}


def test_the_lowest_layer_gets_the_rate_of_the_source():
    row = next(row for row in ROWS if row.num_layers == 14 and row.layer_decay == 0.8)
    assert layer_decay(row, 38) ** 37 == pytest.approx(0.8**13, rel=5e-3)
    assert layer_decay(ROWS[-4], 38) == 0.65  # as timm counts
    assert layer_decay(row, None) == 1


def test_a_file_brings_the_normalisation_of_its_weights(tmp_path):
    file = tmp_path / "mae_pretrain_vit_base.pth"
    config, lines = with_recipe(run("vit_base_patch16_224", file))
    assert config.model.mean == (0.485, 0.456, 0.406)
    assert config.training.layer_decay == 0.65
    assert "mean 0.485 0.456 0.406" in lines[1]
    assert "masked images (mae_pretrain_vit_base.pth)" in lines[0]
    given, lines = with_recipe(run("vit_base_patch16_224", file, mean=(0.1, 0.2, 0.3)), {"model.mean"})
    assert given.model.mean == (0.1, 0.2, 0.3)
    assert given.model.std == (0.229, 0.224, 0.225)
    assert "as given: model.mean" in lines[-1]


def test_a_model_of_ones_own_keeps_its_size(trained):
    model = {"backbone_options": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}}
    config, _ = with_recipe(run("vit_tiny_patch16_224", trained.folder, image_size=24, **model))
    assert config.model.image_size == 24
    assert (config.model.component, config.model.class_tokens) == ("count", None)
    assert config.training.lr == 2e-4


def test_lora_and_the_linear_probe():
    config, lines = with_recipe(run("vit_small_patch16_dinov3", training={"finetune": "lora"}))
    assert (config.training.lr, config.training.layer_decay) == (1.3e-3, 1.0)  # 5e-3 / 4
    assert "peft" in lines[3]
    before = run("vit_small_patch16_dinov3", training={"finetune": "head"})
    config, lines = with_recipe(before)
    assert (config.training.lr, config.training.optimizer) == (before.training.lr, before.training.optimizer)
    assert (config.model.image_size, config.model.drop_path) == (256, 0.0)
    assert len(lines) == 3


def test_a_rate_of_another_optimiser_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        with_recipe(run("resnet18", training={"optimizer": "lamb"}), {"training.optimizer"})
    assert "0.001, is for adamw, not for lamb; give --training.lr" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        given = {"training.optimizer", "training.lr"}
        with_recipe(run("resnet18", training={"optimizer": "lamb", "lr": 0.1}), given)
    assert not caplog.text


def test_weights_from_scratch():
    config, lines = with_recipe(run("resnet18", None))
    assert config.training.lr == 1.8e-4  # 1e-3 / sqrt(32)
    assert "random (weights null)" in lines[0]
