"""Trials of whole models and of a few blocks."""

import pytest
import torch

from ramstrans.errors import ConfigError, TrainingError
from ramstrans.training.planning import trials
from ramstrans.training.planning.trials import build_trial, depths_of, random_batch, try_all, try_depth
from tests.training.builders import TINY, tiny_run


def config(**fields):
    model = {"num_classes": 5, "image_size": 32} | fields.pop("model", {})
    return tiny_run(None, "toybirds", model=model, training=fields, data={"val_fraction": 0.1})


DEEP = {"backbone_options": TINY | {"depth": 9}}
LARGE = {"backbone": "vit_large_patch16_224", "backbone_options": {}, "image_size": 448}


def test_a_small_model_is_tried_whole_and_a_large_one_in_part():
    assert depths_of(config()) == ((2,), 2)
    assert depths_of(config(model=LARGE)) == ((1, 2), 24)
    assert depths_of(config(model=LARGE | {"drop_path": 0.1})) == ((2, 3), 24)
    assert depths_of(config(model=LARGE, freeze_blocks=3)) == ((24,), 24)
    assert depths_of(config(model=LARGE | {"backbone_options": {"depth": 2}})) == ((2,), 2)


def test_a_model_that_cannot_be_built_is_told():
    with pytest.raises(ConfigError, match="not a plain ViT"):
        depths_of(config(model={"backbone": "resnet18", "backbone_options": {}}))


def test_a_part_tells_of_the_whole(monkeypatch):
    whole = try_all(config(model=DEEP), *depths_of(config(model=DEEP)))
    monkeypatch.setattr(trials, "MOST_WORK", 0)
    assert depths_of(config(model=DEEP)) == ((1, 2), 9)
    part = try_all(config(model=DEEP), *depths_of(config(model=DEEP)))
    assert len(part) == len(whole) == 4
    for one, other in zip(part, whole, strict=True):
        assert one[:3] == other[:3]
        assert one.cost.weights == other.cost.weights
        assert one.cost.state == other.cost.state
        assert one.cost.peak(100, 2) == pytest.approx(other.cost.peak(100, 2), rel=0.03)


def test_a_trial_takes_the_runs_recipe_in_one_process_and_part():
    recipe = {
        "gradient_accumulation_steps": 3,
        "optimizer": "sgd",
        "fsdp": True,
        "compile": True,
        "attention": "math",
    }
    stepper, preprocessing = build_trial(config(**recipe, label_smoothing=0.1), "bf16", 2)
    assert (stepper.config.gradient_accumulation_steps, stepper.config.compile, stepper.config.fsdp) == (
        1,
        False,
        False,
    )
    assert (stepper.config.label_smoothing, stepper.config.optimizer) == (0.1, "sgd")
    assert stepper.accelerator.mixed_precision == "bf16"
    assert not stepper.model.backbone.vit.blocks[0].attn.fused_attn
    assert preprocessing.crop == (64, 64)


@pytest.mark.parametrize(
    ("model", "source"),
    [({}, (64, 64)), ({"zoom_source": "input"}, None), ({"num_scales": 1}, None)],
)
def test_images_are_as_large_as_the_loaders(model, high_res):
    made = config(model={"image_size": (32, 40), **model} if high_res is None else model)
    _, preprocessing = build_trial(made, "fp32", 1)
    batch = random_batch(made, preprocessing, 4)
    assert batch.images.shape[2:] == made.model.input_size
    assert (None if batch.high_res is None else tuple(batch.high_res.shape[2:])) == high_res
    assert batch.labels.max() < 5
    assert batch.images.dtype == torch.uint8


def test_the_weights_that_a_run_would_start_from_are_not_needed():
    assert len(try_depth(config(model={"weights": "nowhere.safetensors"}), "fp32", 1)) == 2


def test_too_little_memory_for_a_trial_is_told(monkeypatch):
    def measure(*_):
        torch.empty(2**50)

    monkeypatch.setattr(trials, "measure_step", measure)
    with pytest.raises(TrainingError, match="too little to try a few images at a time with 2 blocks"):
        try_depth(config(), "fp32", 2)
    monkeypatch.setattr(trials, "measure_step", lambda *_: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        try_depth(config(), "fp32", 2)
