"""What fits is judged by hand-made measurements; one test measures a tiny model."""

import dataclasses
import math

import pytest
import torch

from ramstrans.errors import ConfigError, TrainingError, UsageError
from ramstrans.training import choose as module
from ramstrans.training.choose import BACKBONES, candidates, choose, count
from ramstrans.training.plan import Measurement, num_passes
from tests.training.test_plan import run_config

NUM_IMAGES = {"train": 60, "val": 9, "test": 6}
NAMES = ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "vit_small_patch16_224")
PASSES = 3 * 10 * 6 + (3 * 9 + 6) / 3  # 3 epochs of 10 steps of 6; validation after each, test once


def sized_run(**training):
    """The candidates' own sizes, in 32 px."""
    return run_config({"backbone_options": {}}, **training)


KNOWN = {}


def counted(model):
    """The count of a model, computed once: most of what takes time here."""
    key = (model.backbone, model.image_size, model.num_scales)
    if key not in KNOWN:
        KNOWN[key] = count(model)
    return KNOWN[key]


@pytest.fixture
def measured(monkeypatch):
    """Steps as hand-made: 1 s per GMAC and 1 kB per multiply-add of an image; checkpointing halves it."""
    taken = []

    def steps(config, candidate, images, *, with_ddp, num_taken):
        taken.append((config.model.backbone, config.model.image_size, candidate))
        gmacs = counted(config.model)[0] / 1e9
        for size in (1, 2, 4, images):
            factor = 0.5 if candidate.gradient_checkpointing else 1
            yield Measurement(size, 1e12 * gmacs * size * factor, gmacs * size / factor)

    monkeypatch.setattr(module, "measure", steps)
    monkeypatch.setattr(module, "count", counted)
    monkeypatch.setattr(module, "clear_device_cache", lambda **_: None)
    return taken


def chosen(time=math.inf, memory=1e12, config=None, **options):
    how = {"backbones": NAMES, "image_sizes": (32,)} | options
    return choose(config or sized_run(), NUM_IMAGES, time, memory=memory, **how)


def test_multiply_adds_of_a_vit_by_hand():
    """16 patches of 8 x 8 x 3 numbers and a class token, width 24, 2 blocks, 5 classes, two scales."""
    config = run_config()
    tokens, width = 17, 24
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    once = 16 * 192 * width + 2 * block + width * 5
    assert count(config.model)[0] == 2 * once
    one_scale = dataclasses.replace(config.model, num_scales=1)
    assert count(one_scale)[0] == once
    larger = dataclasses.replace(config.model, image_size=(32, 48), region_size=32)
    tokens = 25
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    assert count(larger)[0] == once + 24 * 192 * width + 2 * block + width * 5


@pytest.mark.slow
def test_all_candidates_of_the_package_can_be_built_and_are_published():
    import timm

    found = candidates(sized_run().model, BACKBONES, (224,))
    assert [one.backbone for one in found] == list(BACKBONES)
    assert [one.macs for one in found] == sorted((one.macs for one in found), reverse=True)
    assert all(map(timm.is_model_pretrained, BACKBONES))


@pytest.mark.slow
def test_the_largest_that_fits_comes_first_and_equal_ones_as_given(measured):
    found = chosen(image_sizes=(32, 64))
    assert [(one.choice.backbone, one.choice.image_size) for one in found.judged] == [
        (NAMES[2], 64),
        (NAMES[2], 32),
        (NAMES[0], 64),
        (NAMES[1], 64),
        (NAMES[0], 32),
        (NAMES[1], 32),
    ]
    assert not any(one.reason for one in found.judged)
    assert len(measured) == 4  # the two tiny ones compute the same
    assert found.best() == found.judged[0]


@pytest.mark.slow
def test_time_is_that_of_all_steps_and_evaluations(measured):
    [tiny, _] = chosen(backbones=NAMES[:2]).judged
    gmacs = tiny.choice.macs / 1e9
    assert tiny.seconds_per_image == pytest.approx(gmacs)
    assert tiny.seconds == pytest.approx(PASSES * gmacs)
    [halved, _] = chosen(backbones=NAMES[:2], processes=2).judged
    assert halved.seconds == pytest.approx(PASSES * gmacs / 2)
    folds = run_config({"backbone_options": {}}, data={"folds": 5})
    [five_times, _] = chosen(backbones=NAMES[:2], config=folds).judged
    assert five_times.seconds == pytest.approx(5 * PASSES * gmacs)


@pytest.mark.parametrize(("every", "evaluations"), [(1, 3), (2, 2), (3, 1), (7, 1)])
def test_the_last_epoch_is_evaluated_too(every, evaluations):
    passes = num_passes(sized_run(evaluate_every=every), NUM_IMAGES)
    assert passes == pytest.approx(3 * 10 * 6 + (9 * evaluations + 6) / 3)


def test_passes_of_a_linear_probe():
    """Three views of each training image, one of the others, forward once."""
    probe = sized_run(finetune="head", probe_views=3)
    assert num_passes(probe, NUM_IMAGES) == pytest.approx((3 * 60 + 9 + 6) / 3)


@pytest.mark.slow
def test_what_takes_too_long_comes_last_and_hopeless_candidates_are_not_measured(measured):
    [small, tiny, _] = chosen().judged
    late = chosen(time=small.seconds * 0.9)
    assert [one.reason for one in late.judged] == ["", "", "too slow"]
    assert late.best().choice == tiny.choice
    measured.clear()
    later = chosen(time=small.seconds / 1.6)
    assert [one.reason for one in later.judged] == ["", "", "too slow (estimated)"]
    assert later.judged[-1].seconds == pytest.approx(small.seconds)
    assert later.judged[-1].seconds_per_image is None
    assert [backbone for backbone, *_ in measured] == [NAMES[0]]


@pytest.mark.slow
def test_memory_decides_on_accumulation_and_checkpointing(measured):
    macs = counted(dataclasses.replace(sized_run().model, backbone=NAMES[0]))[0]
    found = chosen(memory=2500 * macs / 0.9, backbones=NAMES[:1])  # 2 images, or 5 with checkpointing
    assert (found.best().micro_batch, found.best().gradient_checkpointing) == (2, False)
    assert found.options(found.best()) == (
        f"--model.backbone {NAMES[0]} --model.weights timm --model.image_size 32 "
        "--training.gradient_accumulation_steps 3 --training.gradient_checkpointing false"
    )
    found = chosen(memory=900 * macs / 0.9, backbones=NAMES[:1])
    assert (found.best().micro_batch, found.best().gradient_checkpointing) == (1, True)
    assert found.options(found.best()).endswith("accumulation_steps 6 --training.gradient_checkpointing true")
    found = chosen(memory=400 * macs / 0.9, backbones=NAMES[:1])
    assert found.judged[0].reason == "too large"
    assert found.judged[0].peak == pytest.approx(500 * macs)


@pytest.mark.slow
def test_options_that_forbid_checkpointing_are_kept(measured):
    macs = counted(dataclasses.replace(sized_run().model, backbone=NAMES[0]))[0]
    for option in ({"compile": True}, {"attention": "math"}):
        found = chosen(memory=900 * macs / 0.9, backbones=NAMES[:1], config=sized_run(**option))
        assert found.judged[0].reason == "too large"


def test_weights_that_do_not_fit_are_not_tried(measured):
    parameters = counted(dataclasses.replace(sized_run().model, backbone=NAMES[0]))[1]
    found = chosen(memory=8 * parameters, backbones=NAMES[:1])
    assert found.judged[0][1:5] == ("too large: weights and gradients alone", None, None, 8 * parameters)
    assert measured == []
    chosen(memory=8 * parameters, backbones=NAMES[:1], config=sized_run(finetune="lora"))
    assert len(measured) > 0


@pytest.mark.slow
def test_nothing_fits(measured):
    found = chosen(time=1e-6, memory=8e9)
    with pytest.raises(TrainingError, match=r"none of the 3 candidates fits into 0 s and 8\.0 GB; give more"):
        found.best()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (sized_run(finetune="head"), r"leave out --training\.finetune head"),
        (run_config({"weights": "a.pth"}), r"--model\.weights a\.pth is of one backbone; leave it out"),
    ],
)
def test_what_cannot_be_chosen_is_refused(config, message):
    with pytest.raises(UsageError, match=message):
        chosen(config=config)


def test_a_backbone_that_cannot_work_is_refused_before_any_is_measured(measured):
    with pytest.raises(ConfigError, match="this backbone cannot work"):
        chosen(backbones=(NAMES[0], "gemma4_vit_167m_enc"))
    assert measured == []


def test_real_steps_of_a_tiny_model():
    found = choose(run_config(), NUM_IMAGES, 3600, memory=1e9, backbones=NAMES[:1], image_sizes=(16, 32))
    large, small = found.judged
    assert (large.reason, small.reason) == ("", "")
    assert (large.micro_batch, small.micro_batch) == (6, 6)
    assert large.peak > small.peak > 0
    assert large.seconds == pytest.approx(PASSES * large.seconds_per_image)
    assert found.device == torch.device("cpu")
