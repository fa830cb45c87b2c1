"""What fits is measured on tiny models; how it is chosen is checked on hand-made numbers."""

import dataclasses

import pytest
import torch

from ramstrans.errors import ConfigError, TrainingError, UsageError
from ramstrans.models.config import ModelConfig
from ramstrans.training import plan as module
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.memory import num_bytes
from ramstrans.training.plan import Candidate, Measurement, Plan, build_step, measure, plan, random_batch
from tests.training.builders import TINY, tiny_run

FP32 = Candidate("fp32", gradient_checkpointing=False)


def run_config(model=None, data=None, **training):
    fields = {"num_classes": 5, "zoom_source": "input", "image_size": 32} | (model or {})
    options = {"batch_size": 6, "max_steps": None, "epochs": 3} | training
    data = {"val_fraction": 0.1} | (data or {})
    return tiny_run(None, "toybirds", model=fields, training=options, data=data)


@pytest.fixture
def measured(monkeypatch):
    """Steps as hand-made: 100 bytes + 50 per image, half of them with checkpointing; 0.1 s per image."""

    def steps(_config, choice, images, *, with_ddp):
        factor = 0.5 if choice.gradient_checkpointing else 1
        for size in (1, 2, 4, images):
            yield Measurement(size, 100 + 50 * size * factor + 1000 * with_ddp, 0.1 * size / factor)

    monkeypatch.setattr(module, "measure", steps)
    monkeypatch.setattr(module, "clear_device_cache", lambda **_: None)


def test_the_largest_step_that_fits_decides(measured):
    reported = []
    found = plan(  # 360 bytes are usable
        run_config(batch_size=8), 100, memory=400, progress=lambda *news: reported.append(news)
    )
    assert reported[2] == (2, 4, "measuring bf16")
    fp32, checkpointed, bf16, _ = found.candidates
    assert fp32.largest == bf16.largest == Measurement(4, 300, 0.4)
    assert checkpointed.largest.images == 8
    assert found.seconds(fp32.largest) == pytest.approx(0.8)
    assert found[:4] == (torch.device("cpu"), 400, 8, 39)
    assert found.options(fp32) == (
        "--training.precision fp32 --training.gradient_accumulation_steps 2 "
        "--training.gradient_checkpointing false"
    )


def test_processes_share_the_images_and_copy_the_gradients(measured):
    found = plan(run_config(batch_size=9), 100, memory=2000, processes=2)
    assert found.images == 5
    assert found.candidates[0].largest[:2] == (5, 1350)


def test_nothing_fits(measured):
    found = plan(run_config(), 100, memory=100)
    assert {one.largest for one in found.candidates} == {None}
    with pytest.raises(
        TrainingError, match=r"not even one image at a time fits into 0\.0 MB per process; give"
    ):
        found.best()


def planned(*candidates):
    return Plan(torch.device("cpu"), 1e9, 8, 10, candidates)


SLOW, FAST = Measurement(8, 1.0, 0.9), Measurement(4, 1.0, 0.2)


def test_the_fastest_that_fits_is_best():
    slow, fast = Candidate("fp32", False, SLOW), Candidate("bf16", False, FAST)
    assert planned(slow, Candidate("fp16", False), fast).best() == fast


def test_checkpointing_is_not_faster_whatever_was_timed():
    plain, again = Candidate("fp32", False, SLOW), Candidate("fp32", True, FAST)
    assert planned(again, plain).best() == plain
    assert planned(again, Candidate("fp32", False)).best() == again
    assert planned(again, Candidate("bf16", False, SLOW)).best() == again


@pytest.mark.parametrize(
    ("options", "fixed"),
    [({}, 3), ({"ema_decay": 0.9}, 4), ({"optimizer": "sgd"}, 2), ({"optimizer": "sgd", "momentum": 0.0}, 1)],
)
def test_weights_state_and_average_are_held(options, fixed):
    """AdamW keeps two values per weight, SGD with momentum one, an average one."""
    config = run_config(batch_size=2, **options)
    step, preprocessing = build_step(config, FP32)
    weights = num_bytes(step.model.parameters())
    *_, whole = measure(config, FP32, 2)
    _, ddp = measure(config, FP32, 2, with_ddp=True)
    step.run(random_batch(config, preprocessing, 2))
    own = whole.peak - fixed * weights
    assert weights < own < 10 * weights, "gradients and activations"
    assert ddp.peak - whole.peak == weights


def test_sizes_double_until_all_images_pass_at_once():
    steps = list(measure(run_config(), FP32, 6))
    assert [step.images for step in steps] == [1, 2, 4, 6]
    assert all(step.seconds > 0 for step in steps)
    assert [step.peak for step in steps] == [step.peak for step in measure(run_config(), FP32, 6)]


def test_a_batch_norm_on_pooled_features_begins_with_two_images():
    model = ModelConfig("mobilenetv4_conv_small", 3, 64, num_scales=1)
    config = RunConfig(model=model, training=TrainingConfig(batch_size=4))
    assert [step.images for step in measure(config, FP32, 4)] == [2, 4]
    with pytest.raises(ConfigError, match="a batch norm of MobileNetV3 one value per channel"):
        next(measure(config, FP32, 1))


@pytest.mark.parametrize("options", [{"attention": "math"}, {"compile": True}])
def test_checkpointing_is_not_tried_where_train_refuses_it(options):
    found = plan(run_config(batch_size=1, **options), 8)
    assert {one.gradient_checkpointing for one in found.candidates} == {False}


def test_memory_that_runs_out_ends_the_trial(monkeypatch):
    def measure_step(run, images, device):
        if images > 2:
            torch.empty(2**50)
        return Measurement(images, 1.0, 1.0)

    monkeypatch.setattr(module, "measure_step", measure_step)
    assert [step.images for step in measure(run_config(), FP32, 6)] == [1, 2]
    monkeypatch.setattr(module, "measure_step", lambda *_: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        next(measure(run_config(), FP32, 6))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_slow_steps_of_a_cpu_are_extrapolated(monkeypatch, checkpointing):
    config = run_config({"backbone_options": TINY | {"depth": 4}, "image_size": 64})
    choice = Candidate("fp32", checkpointing)
    taken = list(measure(config, choice, 16))
    monkeypatch.setattr(module, "SLOW_STEP", 0.0)
    found = list(measure(config, choice, 16))
    assert [step.images for step in found] == [1, 2, 4, 8, 16]
    assert [step.peak for step in found[:3]] == [step.peak for step in taken[:3]]
    assert found[4].seconds == pytest.approx(4 * found[2].seconds)
    assert found[4].peak == pytest.approx(taken[4].peak, rel=0.1)


def test_checkpointing_holds_less():
    config = run_config({"backbone_options": TINY | {"depth": 8}, "image_size": 64})
    (*_, plain), (*_, again) = (measure(config, Candidate("fp32", flag), 4) for flag in (False, True))
    assert again.peak < 0.7 * plain.peak


def test_the_step_is_the_runs_own_in_one_process_and_one_micro_batch():
    recipe = {"gradient_accumulation_steps": 3, "optimizer": "sgd", "compile": True, "attention": "math"}
    config = run_config({"weights": "nowhere.safetensors"}, **recipe, label_smoothing=0.1)
    step, _ = build_step(config, Candidate("bf16", gradient_checkpointing=False))
    training = step.config
    assert (training.gradient_accumulation_steps, training.compile, training.precision) == (1, False, "bf16")
    assert (training.label_smoothing, training.optimizer) == (0.1, "sgd")
    assert step.accelerator.mixed_precision == "bf16"
    assert step.forward_scale.explicit_attention
    step, _ = build_step(config, Candidate("bf16", gradient_checkpointing=True))
    assert step.model.encoder.model.grad_checkpointing


@pytest.mark.parametrize(
    ("model", "high_res"),
    [({"zoom_source": "full"}, (36, 36)), ({}, None), ({"zoom_source": "full", "num_scales": 1}, None)],
)
def test_random_images_are_as_large_as_the_loaders(model, high_res):
    config = run_config({"image_size": (32, 40)} | model if high_res is None else model)
    _, preprocessing = build_step(config, FP32)
    batch = random_batch(config, dataclasses.replace(preprocessing, crop=(36, 36)), 4)
    assert batch.images.shape == (4, 3, *config.model.input_size)
    assert (None if batch.high_res is None else tuple(batch.high_res.shape[2:])) == high_res
    assert batch.labels.max() < 5
    assert batch.images.dtype == torch.uint8


def test_random_photographs_have_as_many_pixels_as_the_limit():
    config = run_config({"zoom_source": "native"}, data={"zoom_pixels": 40 * 41})
    _, preprocessing = build_step(config, FP32)
    batch = random_batch(config, preprocessing, 4)
    assert [(image.dtype, tuple(image.shape)) for image in batch.high_res] == [(torch.uint8, (3, 40, 40))] * 4


@pytest.mark.parametrize(
    ("options", "processes", "message"),
    [
        (
            {"batch_size": 3},
            4,
            r"batch_size is 3 for all --processes 4 together; give .*batch_size 4 or more",
        ),
        (
            {"fsdp": True},
            2,
            "plan measures one process that holds the whole model; leave out --training.fsdp",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(options, processes, message):
    with pytest.raises(UsageError, match=message):
        plan(run_config(**options), 100, processes=processes)


@pytest.mark.slow
def test_a_model_that_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="this backbone cannot work"):
        plan(run_config({"backbone": "gemma4_vit_167m_enc", "backbone_options": {}}), 100)


def test_a_device_that_cannot_count_is_refused(monkeypatch):
    monkeypatch.setattr(module, "choose_device", lambda _: torch.device("mps"))
    with pytest.raises(UsageError, match="cannot be counted on 'mps'; give --device cpu"):
        plan(run_config(), 100)
