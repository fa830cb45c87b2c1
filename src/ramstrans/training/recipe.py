"""Recipes of fine-tuning by the kind of pretraining and of model, from published ones.

`with_recipe` fills in what a run has not been given. The table is `ROWS`; what a model was pretrained by is
read off the name of its weights (`KINDS`).
"""

import dataclasses
import logging
import math
from collections.abc import Collection
from typing import Any, NamedTuple

import timm
import torch

from ramstrans.distributed import choose_device, computes_bf16
from ramstrans.errors import ConfigError
from ramstrans.models.anatomy import inspect_model
from ramstrans.models.backbones import build_backbone, check_name, current_name
from ramstrans.models.config import ModelConfig
from ramstrans.saved.metadata import saved_folder
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.pretraining import (
    Family,
    Kind,
    family_of,
    image_size_of,
    kind_of,
    num_layers_of,
    statistics_of,
)

logger = logging.getLogger(__name__)

REGION_FIELDS = ("class_tokens", "component", "saliency_layers")
MODEL_FIELDS = ("image_size", "mean", "std", "drop_path", *REGION_FIELDS)
"""Options of the model that a recipe sets."""

LEAST_LR = 5e-5
"""The lowest rate that a published one is scaled to: a new head may have 300 steps to learn in."""


class Row(NamedTuple):
    """One published recipe.

    Attributes:
        kinds: Kinds of pretraining that it is for; empty: all.
        families: Families of models; empty: all.
        largest: Most parameters of a model, in millions.
        optimizer: As `training.optimizer`.
        lr: Peak learning rate, for `batch` images per step.
        batch: Images per step of the source; None: the rate is not scaled: it holds for 16 or 32 as for 512.
        layer_decay: Factor on the rate from each layer to the one below.
        weight_decay: Of all but biases, norms, tokens and positions.
        warmup_steps: About the same share of a run of 560 steps as the source has.
        drop_path: Stochastic depth of the last block.
        label_smoothing: In [0, 1).
        source: Where this is published.
        num_layers: Layers that the source counts, where timm counts others: then the lowest one
            gets the rate that it has in the source.
    """

    kinds: tuple[Kind, ...]
    families: tuple[Family, ...]
    largest: float
    optimizer: str
    lr: float
    batch: int | None
    layer_decay: float
    weight_decay: float
    warmup_steps: int
    drop_path: float
    label_smoothing: float
    source: str
    num_layers: int | None = None


TRANSFG = "TransFG (https://arxiv.org/abs/2103.07976, 4.1) and ViT (https://arxiv.org/abs/2010.11929, B.1.1)"
FT_CLIP = "FT-CLIP (https://arxiv.org/abs/2212.06138; github.com/LightDXY/FT-CLIP, scripts/)"
IBOT = (
    "iBOT on Stanford Cars, layer decay of its ImageNet runs (github.com/bytedance/ibot, evaluation/, run.sh)"
)
EVA02 = "EVA-02 (https://arxiv.org/abs/2303.11331; github.com/baaivision/EVA, EVA-02/asuka/README.md)"
MAE = "MAE (https://arxiv.org/abs/2111.06377; github.com/facebookresearch/mae, FINETUNE.md)"
BEIT = "BEiT from labels (github.com/microsoft/unilm, beit/get_started_for_image_classification.md)"
CONVNEXT = "ConvNeXt (https://arxiv.org/abs/2201.03545; github.com/facebookresearch/ConvNeXt, TRAINING.md)"
CONVNEXT_2 = "ConvNeXt V2 (https://arxiv.org/abs/2301.00808; github.com/facebookresearch/ConvNeXt-V2)"
EFFICIENTNET = "EfficientNetV2 (https://arxiv.org/abs/2104.00298, section 5.2), with AdamW for its RMSProp"
MEASURED = "docs/results.md, measured with DeiT-Tiny on 50 bird classes"
SCRATCH = "DeiT (https://arxiv.org/abs/2012.12877, table 9)"
PEFT = "peft (https://huggingface.co/docs/peft/task_guides/image_classification_lora)"

MASKED: tuple[Kind, ...] = ("masked images",)

# fmt: off
ROWS: tuple[Row, ...] = (
    Row(("random",), (), 1e4, "adamw", 1e-3, 1024, 1.0, 0.05, 60, 0.1, 0.1, SCRATCH),
    Row((), ("CNN",), 1e4, "adamw", 1e-3, None, 1.0, 0.0, 50, 0.0, 0.1, EFFICIENTNET),
    Row(MASKED, ("hierarchical",), 1e4, "adamw", 2.5e-3, 1024, 0.6, 0.05, 100, 0.1, 0.1, CONVNEXT_2, 14),
    Row((), ("hierarchical",), 150, "adamw", 5e-5, 512, 0.8, 1e-8, 0, 0.2, 0.1, CONVNEXT, 14),
    Row((), ("hierarchical",), 1e4, "adamw", 5e-5, 512, 0.8, 1e-8, 0, 0.3, 0.1, CONVNEXT, 14),
    Row(("image-text",), (), 150, "adamw", 6e-4, 2048, 0.6, 0.05, 100, 0.0, 0.1, FT_CLIP),
    Row(("image-text",), (), 1e4, "adamw", 4e-4, 2048, 0.65, 0.05, 100, 0.0, 0.1, FT_CLIP),
    Row(("self-distillation",), (), 1e4, "adamw", 7.5e-5, 768, 0.75, 0.05, 50, 0.1, 0.1, IBOT),
    Row(("masked images, then labels",), (), 150, "adamw", 2e-5, 512, 0.85, 1e-8, 100, 0.1, 0.1, BEIT),
    Row(("masked images, then labels",), (), 1e4, "adamw", 2e-5, 512, 0.9, 1e-8, 100, 0.4, 0.1, BEIT),
    Row(MASKED, (), 150, "adamw", 2e-3, 1024, 0.65, 0.05, 50, 0.1, 0.1, MAE),
    Row(MASKED, (), 1e4, "adamw", 4e-3, 1024, 0.75, 0.05, 50, 0.2, 0.1, MAE),
    Row(("supervised",), (), 50, "adamw", 2e-4, 32, 1.0, 0.05, 50, 0.0, 0.1, MEASURED),
    Row(("supervised",), (), 1e4, "sgd", 0.01, None, 1.0, 0.0, 50, 0.0, 0.0, TRANSFG),
)
"""The first row that fits counts."""

EVA02_ROWS: tuple[Row, ...] = (
    Row(MASKED, (), 10, "adamw", 2e-4, 1024, 0.9, 0.05, 50, 0.1, 0.1, EVA02),
    Row(MASKED, (), 50, "adamw", 1e-4, 1024, 0.8, 0.05, 50, 0.1, 0.1, EVA02),
    Row(MASKED, (), 150, "adamw", 1e-4, 1024, 0.7, 0.05, 50, 0.1, 0.1, EVA02),
    Row(MASKED, (), 1e4, "adamw", 5e-5, 1024, 0.8, 0.05, 50, 0.15, 0.2, EVA02),
)
"""Before the others, for models whose name begins with `eva`."""

LORA = Row((), (), 1e4, "adamw", 5e-3, 512, 1.0, 0.0, 50, 0.0, 0.1, PEFT)
"""For `training.finetune lora`, whatever the model."""
# fmt: on


class Facts(NamedTuple):
    """What a recipe is chosen by.

    Attributes:
        name: The backbone's name in timm, without its tag.
        kind: Of its pretraining.
        told_by: Where that was read.
        family: Of its architecture.
        millions: Of parameters.
        num_layers: That timm counts for layer decay; None: it counts none.
        num_rolled: Of a ViT, the layers of a rollout; 0: its layers cannot be rolled out.
    """

    name: str
    kind: Kind
    told_by: str
    family: Family
    millions: float
    num_layers: int | None
    num_rolled: int


def with_recipe(config: RunConfig, given: Collection[str] = ()) -> tuple[RunConfig, list[str]]:
    """Fill in what was not given, by the kind of pretraining and of model.

    Args:
        config: The run. Its backbone, weights, batch size and `training.finetune` are what the recipe is for.
        given: Names of options that stay as they are, e.g. `training.lr`.

    Returns:
        The run, and what was chosen, in a line each.

    Raises:
        ConfigError: The backbone cannot work.

    Example:
        config, lines = with_recipe(RunConfig(data, ModelConfig("convnext_tiny", weights="timm")))
    """
    facts, model = choose_model(config.model, given)
    row = row_for(facts, config.training)
    values: dict[str, Any] = {
        "optimizer": row.optimizer,
        "lr": scaled_lr(row, config.training.batch_size),
        "layer_decay": layer_decay(row, facts.num_layers),
        "weight_decay": row.weight_decay,
        "warmup_steps": row.warmup_steps,
        "label_smoothing": row.label_smoothing,
        "precision": "bf16" if computes_bf16(choose_device(config.device)) else "fp32",
    }
    if config.training.is_probe:  # fitted to convergence, without steps
        values = {name: values[name] for name in ("label_smoothing", "precision")}
    elif "training.warmup_epochs" in given:
        del values["warmup_steps"]
    chosen = {name: value for name, value in values.items() if f"training.{name}" not in given}
    training = dataclasses.replace(config.training, **chosen)
    if training.optimizer != row.optimizer and "lr" in chosen:
        logger.warning(
            "the recipe's learning rate, %.2g, is for %s, not for %s; give --training.lr",
            *(training.lr, row.optimizer, training.optimizer),
        )
    model = with_drop_path(model, 0.0 if training.is_probe else row.drop_path, given)
    model = with_regions(model, facts, given)
    config = dataclasses.replace(config, model=model, training=training)
    names = [f"training.{name}" for name in values] + [f"model.{name}" for name in MODEL_FIELDS]
    return config, describe(config, facts, row, [name for name in names if name in given])


def choose_model(model: ModelConfig, given: Collection[str]) -> tuple[Facts, ModelConfig]:
    """What a recipe is chosen by, and the model with image size and normalisation of its weights."""
    name = current_name(model.backbone)
    check_name(name)
    kind, told_by = kind_of(name, model.weights)
    changes: dict[str, Any] = {}
    if saved_folder(model.weights) is None:
        size = image_size_of(name)
        if size is not None and "model.image_size" not in given:
            changes["image_size"] = size
        statistics = statistics_of(name, model.weights)
        if statistics is not None:
            changes |= dict(zip(("mean", "std"), statistics, strict=True))
    changes = {field: value for field, value in changes.items() if f"model.{field}" not in given}
    model = dataclasses.replace(model, **changes)
    with torch.device("meta"):  # nothing is allocated
        network = build_backbone(dataclasses.replace(model, num_classes=model.num_classes or 2))
    millions = sum(weight.numel() for weight in network.parameters()) / 1e6
    architecture = name.partition(".")[0]
    family = family_of(network)
    num_rolled = inspect_model(network, model.input_size).num_layers if family == "ViT" else 0
    facts = Facts(architecture, kind, told_by, family, millions, num_layers_of(network), num_rolled)
    return facts, model


def row_for(facts: Facts, training: TrainingConfig) -> Row:
    """The row of the table for a model."""
    if training.finetune == "lora":
        return LORA
    rows = (EVA02_ROWS if facts.name.startswith("eva") else ()) + ROWS
    return next(
        row
        for row in rows
        if (not row.kinds or facts.kind in row.kinds)
        and (not row.families or facts.family in row.families)
        and facts.millions <= row.largest
    )


def scaled_lr(row: Row, batch_size: int) -> float:
    """The learning rate for a batch size, by the square root of the ratio, to two digits.

    The sources scale linearly, among batches of 256 to 4,096. For Adam the square root holds further down
    (https://arxiv.org/abs/2205.10287; timm's train.py does the same).

    >>> scaled_lr(ROWS[-4], 32), scaled_lr(ROWS[-2], 32), scaled_lr(ROWS[-1], 32)
    (0.00035, 0.0002, 0.01)
    """
    if row.batch is None:
        return row.lr
    return float(f"{max(row.lr * math.sqrt(batch_size / row.batch), LEAST_LR):.2g}")


def layer_decay(row: Row, num_layers: int | None) -> float:
    """The factor from each layer to the one below, such that the lowest of a model gets the source's rate.

    >>> layer_decay(ROWS[3], 14), round(layer_decay(ROWS[3], 27), 4), layer_decay(ROWS[3], None)
    (0.8, 0.8944, 1.0)
    """
    if num_layers is None or num_layers < 2:
        return 1.0
    if row.num_layers in (None, num_layers):
        return row.layer_decay
    return float(f"{row.layer_decay ** ((row.num_layers - 1) / (num_layers - 1)):.4g}")


def with_drop_path(model: ModelConfig, rate: float, given: Collection[str] = ()) -> ModelConfig:
    """The model with stochastic depth, if it was not given and the backbone can have it."""
    if not rate or "model.drop_path" in given or "drop_path_rate" in model.backbone_options:
        return model
    dropping = dataclasses.replace(model, drop_path=rate)
    try:
        with torch.device("meta"):
            build_backbone(dataclasses.replace(dropping, num_classes=model.num_classes or 2))
    except ConfigError:
        return model
    return dropping


def with_regions(model: ModelConfig, facts: Facts, given: Collection[str]) -> ModelConfig:
    """The model with the regions that were best on validation images (docs/ideas.md), not the paper's.

    Soft ones, by the rollout of the last half of a ViT's layers, and one class token for all looks; others
    than ViTs were not measured. A model of one's own, and other methods, keep theirs.
    """
    is_other = facts.family != "ViT" or model.method not in ("rams", "calcrop")
    if is_other or model.num_scales == 1 or saved_folder(model.weights):
        return model
    values: dict[str, Any] = {"class_tokens": "shared", "component": "soft"}
    if facts.num_rolled and model.saliency in ("auto", "rollout"):
        values["saliency_layers"] = max(facts.num_rolled // 2, 1)
    changes = {name: value for name, value in values.items() if f"model.{name}" not in given}
    return dataclasses.replace(model, **changes)


def describe(config: RunConfig, facts: Facts, row: Row, kept: list[str]) -> list[str]:
    """What was chosen, and why, in a line each."""
    model, training = config.model, config.training
    published = timm.get_pretrained_cfg(current_name(model.backbone))
    mean, std = (
        tuple(getattr(model, field) or getattr(published, field, None) or ()) for field in ("mean", "std")
    )
    height, width = model.input_size
    lines = [
        f"recipe auto: {facts.kind} ({facts.told_by}), {facts.family}, {facts.millions:.1f} M parameters",
        f"{height}x{width} px, normalised by mean {_listed(mean)}, std {_listed(std)}",
    ]
    if not training.is_probe:
        scale = "" if row.batch is None else f" ({row.lr:.2g} for {row.batch} images, by the square root)"
        lines += [
            f"{training.optimizer}, learning rate {training.lr:.2g}{'' if 'training.lr' in kept else scale}, "
            f"layer decay {training.layer_decay:g}, weight decay {training.weight_decay:g}, "
            f"{warmup_of(training)}, label smoothing {training.label_smoothing:g}, "
            f"drop path {model.drop_path:g}, {training.precision}",
            f"from {row.source}",
        ]
    if model.num_scales > 1:
        is_rolled = model.saliency_layers and facts.num_rolled
        layers = f", rollout of the last {model.saliency_layers} layers" if is_rolled else ""
        tokens = model.class_tokens or "by the backbone"
        lines.append(f"regions: component {model.component}{layers}; class tokens {tokens}")
    return lines + ([f"as given: {', '.join(kept)}"] if kept else [])


def warmup_of(training: TrainingConfig) -> str:
    """The warm-up in words."""
    if training.warmup_epochs is not None:
        return f"warm-up of {training.warmup_epochs:g} epochs"
    steps = training.warmup_steps
    return f"warm-up of {steps} steps (at most half of all)" if steps else "no warm-up"


def _listed(values: Collection[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values) or "of timm"
