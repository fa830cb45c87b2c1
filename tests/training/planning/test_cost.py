"""What steps are said to cost, against what larger steps were counted to take."""

import dataclasses
import time

import numpy as np
import pytest
import torch

from ramstrans.memory import peak_bytes
from ramstrans.training.planning.cost import (
    Count,
    StepCost,
    counted_sizes,
    deeper,
    kept_phases,
    measure_step,
    moment,
    num_bytes,
    repeated,
    state_tensors,
    watched,
)
from ramstrans.training.planning.trials import build_trial, random_batch
from tests.training.builders import tiny_run

CPU = torch.device("cpu")
SIZES = (50, 75)
"""Enough tokens for kernels to do as they do with more."""


@pytest.fixture
def trial():
    """A stepper of a few blocks, a batch and its preprocessing."""

    def trial(precision="fp32", depth=3, *, checkpointing=False, **options):
        options = (
            {"num_classes": 5, "image_size": 32, "zoom_source": "input"} | options.pop("model", {}),
            options,
        )
        config = tiny_run(None, "toybirds", model=options[0], training=options[1], data={"val_fraction": 0.1})
        stepper, preprocessing = build_trial(config, precision, depth)
        stepper.model.backbone.gradient_checkpointing = checkpointing
        return stepper, random_batch(config, preprocessing, 7), preprocessing

    return trial


def counted(stepper, batch, preprocessing, images, parts):
    """The peak of one larger step."""
    stepper = stepper._replace(config=dataclasses.replace(stepper.config, gradient_accumulation_steps=parts))
    whole = repeated(batch, images * parts)
    return peak_bytes(lambda: stepper.take(whole, preprocessing), CPU)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, 1),
        ({}, 3),
        ({"model": {"num_scales": 1}}, 1),
        ({"model": {"num_scales": 1}, "optimizer": "sgd", "weight_decay": 0.1}, 2),
        ({"model": {"num_scales": 3, "region_size": 48, "zoom_source": "full"}}, 2),
        ({"mixup": 0.5, "cutmix": 0.5}, 1),
        ({"contrastive": 1.0, "finetune": "head"}, 1),
        ({"freeze_blocks": 1, "model": {"dropout": 0.1, "drop_path": 0.2}}, 1),
    ],
    ids=str,
)
def test_the_peak_of_a_larger_step_is_foretold(trial, options, parts, precision, checkpointing):
    stepper, batch, preprocessing = trial(precision, checkpointing=checkpointing, **options)
    cost = measure_step(stepper, batch, preprocessing, SIZES)
    peak = counted(stepper, batch, preprocessing, 137, parts)
    assert cost.peak(137, parts) == pytest.approx(peak, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_peak_of_a_real_backbone_is_foretold(precision):
    model = {"backbone": "deit_tiny_patch16_224", "backbone_options": {}, "image_size": 224}
    config = tiny_run(None, "toybirds", model=model | {"num_classes": 200, "zoom_source": "input"})
    stepper, preprocessing = build_trial(config, precision, 12)
    sizes = counted_sizes(196)
    batch = random_batch(config, preprocessing, sizes[1])
    cost = measure_step(stepper, batch, preprocessing, sizes)
    for images in (4, 16):
        peak = counted(stepper, batch, preprocessing, images, 1)
        assert cost.peak(images) == pytest.approx(peak, rel=0.05)


def test_weights_gradients_and_state_are_counted_to_the_byte(trial):
    stepper, batch, preprocessing = trial(model={"num_scales": 2, "zoom_source": "full"})
    cost = measure_step(stepper, batch, preprocessing, (1, 2))
    numbers = sum(parameter.numel() for parameter in stepper.model.parameters())
    assert (cost.weights, cost.gradients) == (4 * numbers, 4 * numbers)
    assert cost.state == 8 * numbers + 4 * len(list(stepper.model.parameters()))  # two moments, and the step
    assert cost.image == 4 * 3 * (32**2 + 64**2)
    assert cost.embedding == 4 * (3 * 8 * 8 * 24 + 24)
    assert cost.root == cost.weights - 3 * cost.block
    assert 0 < cost.seconds_an_update < cost.seconds_an_image * 1000


def test_frozen_weights_have_neither_gradients_nor_state(trial):
    stepper, batch, preprocessing = trial(finetune="head", optimizer="sgd")
    cost = measure_step(stepper, batch, preprocessing, (1, 2))
    assert cost.gradients == cost.state == 4 * (24 * 5 + 5)


@pytest.mark.parametrize("num_classes", [5, 20_000])
@pytest.mark.parametrize(("precision", "checkpointing"), [("fp32", False), ("bf16", True)])
def test_a_part_of_a_model_tells_of_the_whole(trial, precision, checkpointing, num_classes):
    model = {"num_classes": num_classes}
    few, more, whole = (
        measure_step(*trial(precision, depth, checkpointing=checkpointing, model=model), SIZES)
        for depth in (1, 2, 7)
    )
    told = deeper(few, more, (1, 2), 7)
    for name in ("weights", "state", "gradients", "block", "embedding", "root", "image"):
        assert getattr(told, name) == getattr(whole, name), name
    for images in (1, 8, 100):
        assert told.peak(images) == pytest.approx(whole.peak(images), rel=0.01)


def test_stochastic_depth_of_a_part_tells_of_the_whole(trial):
    few, more, whole = (
        measure_step(*trial("fp32", depth, model={"drop_path": 0.3, "num_scales": 1}), SIZES)
        for depth in (2, 3, 7)
    )
    told = deeper(few, more, (2, 3), 7)
    for images in (1, 8, 100):
        assert told.peak(images) == pytest.approx(whole.peak(images), rel=0.02)


def cost_of(**changed):
    """Hand-made: 10 blocks of 10 bytes, and 20 bytes outside."""
    phases = np.array([[0.0, 5.0, 10.0], [40.0, 1.0, 8.0]])
    return StepCost(120, 240, 120, 10, 5, 20, 3, phases, 0.5, 0.25)._replace(**changed)


def test_time_follows_the_weights():
    told = deeper(cost_of(gradients=20), cost_of(gradients=40), (1, 2), 12)
    assert told.gradients == 240
    assert told.seconds_an_image == pytest.approx(0.5 * (12 + 0.5) / (2 + 0.5))
    assert told.seconds_an_update == pytest.approx(0.25 * 240 / 40)
    assert told.seconds(4) == pytest.approx(4 * told.seconds_an_image + told.seconds_an_update)


def test_the_highest_phase_counts():
    cost = cost_of()
    assert cost.peak(1) == 49  # the second phase has more before the first image
    assert cost.peak(30) == 305  # the first has more an image
    assert cost.peak(30, parts=2) == 120 + 305 + 30 * 3  # all gradients are there, and both parts' images


def test_waiting_is_not_timed_on_a_cpu():
    start = moment(CPU)
    time.sleep(0.3)
    assert moment(CPU) - start < 0.1
    while moment(CPU) - start < 0.1:
        torch.ones(100_000).sum()


def test_phases_are_told_in_order(trial):
    stepper, batch, preprocessing = trial(depth=3)
    told = []
    with watched(stepper, told.append):
        stepper.take(batch, preprocessing)
    look = ["look", "rollout", "head", "loss", "block", "block", "block"]
    assert told == [*look, *look, "update"]
    stepper.take(batch, preprocessing)
    assert len(told) == 15  # nobody listens any more


def test_phases_of_a_frozen_backbone_have_no_blocks(trial):
    stepper, batch, preprocessing = trial(finetune="head")
    told = []
    with watched(stepper, told.append):
        stepper.take(batch, preprocessing)
    assert told == [*(["look", "rollout", "head", "loss"] * 2), "update"]


def test_of_blocks_the_first_and_the_last_are_kept():
    kinds = ["start", "look", "loss", "block", "look", "loss", *["block"] * 12, "update"]
    assert kept_phases(kinds) == [0, 1, 2, 3, 3, 4, 5, 6, 17, 18]


def test_gradients_are_there_from_the_first_looks_backward_on(trial):
    stepper, batch, preprocessing = trial(depth=3)
    stepper.take(batch, preprocessing)
    count = Count.of(stepper, batch, preprocessing)
    whole = num_bytes(stepper.model.parameters())
    assert count.gradients[:5].tolist() == [0, 0, 0, 0, 0]
    assert 0 < count.gradients[5] < count.gradients[6] < count.gradients[7] == whole
    assert count.gradients[7:].tolist() == [whole] * 7
    assert (count.held >= 0).all()


def test_counting_leaves_no_gradient_behind_and_needs_a_step_in_one_part(trial):
    stepper, batch, preprocessing = trial()
    measure_step(stepper, batch, preprocessing, (1, 2))
    assert all(parameter.grad is None for parameter in stepper.model.parameters())
    assert num_bytes(state_tensors(stepper.optimizer)) > 0
    parted = stepper._replace(config=dataclasses.replace(stepper.config, gradient_accumulation_steps=2))
    with pytest.raises(AssertionError, match="images at a time"):
        measure_step(parted, batch, preprocessing, (1, 2))


@pytest.mark.parametrize("tokens", [1, 17, 196, 784, 5000])
def test_counted_steps_are_large_enough(tokens):
    few, many = counted_sizes(tokens)
    assert 2 <= few < many <= 1.5 * few
    assert few * tokens >= 1200


def test_images_are_repeated(trial):
    _, batch, _ = trial(model={"zoom_source": "full"})
    assert repeated(batch, 9).indices.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert torch.equal(repeated(batch, 9).high_res[7], batch.high_res[0])
