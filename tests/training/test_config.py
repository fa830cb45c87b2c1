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
    (RunConfig, {"seed": -1}),
    (RunConfig, {"seed": 2**32}),
]


@pytest.mark.parametrize(("kind", "fields"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(kind, fields):
    ((name, value),) = fields.items()
    with pytest.raises(ConfigError, match=rf"{name} is {value}; give"):
        kind(**fields)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.5, 0.5)])
def test_there_is_one_loss_weight_a_scale(weights):
    with pytest.raises(ConfigError, match="2 scales"):
        RunConfig(training=TrainingConfig(loss_weights=weights))
    model = ModelConfig(num_scales=len(weights))
    assert RunConfig(model=model, training=TrainingConfig(loss_weights=weights)).seed == 0


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
