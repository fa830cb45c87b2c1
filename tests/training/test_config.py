import dataclasses
from pathlib import Path

import pytest

from ramstrans.data.config import DataConfig
from ramstrans.errors import ConfigError
from ramstrans.models.config import ModelConfig
from ramstrans.training.config import RunConfig, TrainingConfig

WRONG = [
    (TrainingConfig, {"epochs": 0}),
    (TrainingConfig, {"batch_size": 0}),
    (TrainingConfig, {"evaluate_every": 0}),
    (TrainingConfig, {"max_steps": 0}),
    (TrainingConfig, {"weight_decay": -0.1}),
    (TrainingConfig, {"warmup_steps": -1}),
    (TrainingConfig, {"gradient_clip": -1.0}),
    (TrainingConfig, {"momentum": -0.9}),
    (TrainingConfig, {"lr": 0.0}),
    (TrainingConfig, {"label_smoothing": 1.0}),
    (DataConfig, {"val_fraction": 1.0}),
    (DataConfig, {"test_fraction": 0.0}),
    (DataConfig, {"color_jitter": -0.1}),
    (DataConfig, {"num_workers": -1}),
    (DataConfig, {"max_pixels": 0}),
    (DataConfig, {"zoom_pixels": 0}),
    (ModelConfig, {"min_region": 1.5}),
    (ModelConfig, {"min_region": -0.1}),
    (ModelConfig, {"max_aspect": 0.9}),
    (ModelConfig, {"max_aspect": float("nan")}),
    (RunConfig, {"seed": -1}),
    (RunConfig, {"seed": 2**32}),
]


@pytest.mark.parametrize(("kind", "fields"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(kind, fields):
    ((name, value),) = fields.items()
    with pytest.raises(ConfigError, match=rf"{name} is {value}; give"):
        kind(**fields)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_images_of_several_sizes_are_not_mixed(mixing):
    training, native = TrainingConfig(**{mixing: 0.2}), ModelConfig(zoom_source="native")
    with pytest.raises(ConfigError, match=r"native does not go with .*; give model.zoom_source full"):
        RunConfig(model=native, training=training)
    RunConfig(model=dataclasses.replace(native, zoom_source="full"), training=training)


def test_a_limit_that_nothing_is_cut_from_is_ignored_with_a_warning():
    data = DataConfig(zoom_pixels=7)
    with pytest.warns(match=r"data.zoom_pixels is ignored without model.zoom_source native"):
        RunConfig(data=data, model=ModelConfig(zoom_source="full"))
    RunConfig(data=data, model=ModelConfig(zoom_source="native"))


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.5, 0.5)])
def test_there_is_one_loss_weight_a_scale(weights):
    with pytest.raises(ConfigError, match="2 scales"):
        RunConfig(training=TrainingConfig(loss_weights=weights))
    model = ModelConfig(num_scales=len(weights))
    assert RunConfig(model=model, training=TrainingConfig(loss_weights=weights)).seed == 0


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -0.5)])
def test_loss_weights_are_not_negative_nor_all_zero(weights):
    with pytest.raises(ConfigError, match=r"give 0 or more for each scale, and more for one"):
        RunConfig(training=TrainingConfig(loss_weights=weights))


def test_a_probe_of_crops_in_training_has_no_weights_of_losses():
    probe = TrainingConfig(finetune="head", loss_weights=(0.0, 1.0))
    with pytest.raises(ConfigError, match=r"loss_weights does not go with .* head and model\.method calcrop"):
        RunConfig(model=ModelConfig(method="calcrop"), training=probe)
    assert RunConfig(training=probe).training.is_probe


def test_a_momentum_that_adamw_has_not_is_ignored_with_a_warning():
    with pytest.warns(match=r"training.momentum is ignored without training.optimizer sgd"):
        TrainingConfig(optimizer="adamw", momentum=0.5)
    assert TrainingConfig(optimizer="sgd", momentum=0.5).momentum == 0.5


def test_options_about_regions_are_ignored_with_one_scale():
    model = ModelConfig(num_scales=1)
    with pytest.warns(match=r"training.fused_target is ignored without model.num_scales 2 or more"):
        RunConfig(model=model, training=TrainingConfig(fused_target=0.5))
    with pytest.warns(match=r"training.random_region_epochs is ignored without regions that are found"):
        RunConfig(model=model, training=TrainingConfig(random_region_epochs=2))
    with pytest.warns(match=r"training.random_region_epochs is ignored"):
        RunConfig(
            model=ModelConfig(region_placement="whole"), training=TrainingConfig(random_region_epochs=2)
        )


def test_configs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().output = Path("elsewhere")


def test_the_defaults_are_the_papers_recipe():
    """SGD, lr 0.03, momentum 0.9, no weight decay, clip 1.0, warm-up 500, batch 16 (arXiv 2107.08192)."""
    training = TrainingConfig()
    assert (training.optimizer, training.lr, training.momentum, training.weight_decay) == (
        "sgd",
        0.03,
        0.9,
        0,
    )
    assert (training.gradient_clip, training.warmup_steps, training.batch_size) == (1.0, 500, 16)


def test_a_compiled_model_is_not_checkpointed():
    with pytest.raises(ConfigError, match=r"training\.compile does not go with"):
        TrainingConfig(compile=True, gradient_checkpointing=True)
    with pytest.raises(ConfigError, match=r"training\.attention math does not go with"):
        TrainingConfig(attention="math", gradient_checkpointing=True)


def test_paths_may_be_given_as_text():
    data = DataConfig("table", "a.csv", image_folder="images", cache="disk", cache_dir="cache")
    assert (data.root, data.image_folder, data.cache_dir) == (Path("a.csv"), Path("images"), Path("cache"))
    training = TrainingConfig(finetune="head", probe_cache="features")
    config = RunConfig(data, training=training, output="runs/mine")
    assert (config.output, config.training.probe_cache) == (Path("runs/mine"), Path("features"))
