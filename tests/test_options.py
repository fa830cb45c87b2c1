"""Configs in Python refuse what the command line would: names that are none of the listed ones."""

import pytest

from ramstrans import DataConfig, ModelConfig, TrainingConfig
from ramstrans.calibration.wanted import Wanted
from ramstrans.errors import ConfigError
from ramstrans.evaluation.config import CalibrationConfig, EvaluationConfig


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ModelConfig(region_placement="center"),
            "model.region_placement is 'center'; give found, centre",
        ),
        (lambda: ModelConfig(saliency_rows="cls"), "model.saliency_rows is 'cls'; give all or class"),
        (
            lambda: ModelConfig(component="largest"),
            "model.component is 'largest'; give count, saliency or soft",
        ),
        (lambda: ModelConfig(class_tokens="Joint"), "model.class_tokens is 'Joint'; give joint, separate or"),
        (lambda: ModelConfig(method="nope"), "model.method is 'nope'; give plain, rams"),
        (lambda: TrainingConfig(precision="fp8"), "training.precision is 'fp8'; give fp32, bf16 or fp16"),
        (lambda: DataConfig(name="nope"), "data.name is 'nope'; give "),
        (lambda: EvaluationConfig("run", fusion="fited"), "--fusion is 'fited'; give mean or fitted"),
        (lambda: EvaluationConfig("run", early_exit="yes"), "--early_exit is 'yes'; give a number or auto"),
        (lambda: CalibrationConfig("run", set_method="LAC"), "--set_method is 'LAC'; give lac, aps or raps"),
        (lambda: Wanted(score="msp"), "--score is 'msp'; give max_probability, "),
    ],
)
def test_names_that_are_not_listed(build, message):
    with pytest.raises(ConfigError) as caught:
        build()
    assert str(caught.value).startswith(message)


def test_texts_of_options_without_a_list_are_free():
    assert ModelConfig(backbone="any", weights="somewhere.pth", global_pool="avg").backbone == "any"


@pytest.mark.parametrize("thresholds", [(float("nan"), 1.2), (-1.0, -1.0), (0.0, 0.0), (float("inf"), 1.0)])
def test_thresholds_are_above_0(thresholds):
    with pytest.raises(ConfigError, match=r"model.thresholds is .*; give numbers above 0"):
        ModelConfig(thresholds=thresholds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"saliency": "cosine", "saliency_layers": 6}, "model.saliency_layers is ignored without a rollout"),
        ({"saliency": "cam", "saliency_rows": "class"}, "model.saliency_rows is ignored without a rollout"),
        ({"num_scales": 1, "region_size": 96}, "model.region_size is ignored without later scales"),
    ],
)
def test_options_without_effect_warn(options, message):
    with pytest.warns(UserWarning, match=message):
        ModelConfig(**options)
