from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR

from ramstrans.errors import ConfigError
from ramstrans.training.config import TrainingConfig
from ramstrans.training.optim import build_optimizer, check_optimizer, lr_factor, schedule_factor
from tests.tiny import TINY, tiny_model

SCHEDULES = st.integers(0, 40).flatmap(lambda warmup: st.tuples(st.just(warmup), st.integers(warmup + 1, 97)))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_weights_are_decayed_and_nothing_else(optimizer):
    model = tiny_model(backbone_options=TINY | {"reg_tokens": 2, "init_values": 0.1})
    built = build_optimizer(model, TrainingConfig(optimizer=optimizer, weight_decay=0.05))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in built.param_groups
    }
    linear = {
        f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)
    }
    assert grouped == {0.05: linear, 0.0: set(names.values()) - linear}
    tokens = {"encoder.model.cls_token", "encoder.model.reg_token", "encoder.model.pos_embed"}
    assert tokens <= grouped[0.0]


def test_optimizers_that_cannot_take_a_step_are_refused():
    with pytest.raises(ConfigError, match="needs second derivatives"):
        check_optimizer("adahessian")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"fusedlamb cannot be used here \(.*\); give another"):
            build_optimizer(nn.Linear(2, 2), TrainingConfig(optimizer="fusedlamb"))


def test_the_optimizer_is_the_one_that_was_asked_for():
    model = nn.Linear(3, 2)
    sgd = build_optimizer(model, TrainingConfig(lr=0.07, momentum=0.5))
    assert isinstance(sgd, SGD)
    assert {(group["lr"], group["momentum"]) for group in sgd.param_groups} == {(0.07, 0.5)}
    assert isinstance(build_optimizer(model, TrainingConfig(optimizer="adamw")), AdamW)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TrainingConfig(lr=0.1, momentum=0.9, weight_decay=0.5), [0.75, 0.8, 0.2875, 0.42]),
        (TrainingConfig(optimizer="adamw", lr=0.1, weight_decay=0.5), [0.85, 0.9, 0.7075, 0.8]),
    ],
    ids=["sgd", "adamw"],
)
def test_two_steps_are_as_worked_by_hand(config, expected):
    """Gradient 2; decay 0.5 of the weight, none of the bias.

    AdamW moves by the rate under a steady gradient, whatever its size; decay, 0.5 of 0.1, is apart from it.
    """
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = build_optimizer(model, config)
    values = []
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 2.0)
        optimizer.step()
        values += [model.weight.item(), model.bias.item()]
    assert values == pytest.approx(expected)


@given(SCHEDULES)
def test_the_rate_rises_to_the_peak_then_falls_to_zero(schedule):
    warmup, total = schedule
    factors = [lr_factor(step, warmup, total) for step in range(total + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert all(b > a for a, b in pairwise(factors[:warmup]))
    assert all(b <= a for a, b in pairwise(factors[warmup:]))
    assert max(factors) == factors[warmup] == 1
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    assert all(factor > 0 for factor in factors[:-1])


@given(SCHEDULES, st.integers(1, 1000))
def test_the_rate_stays_zero_after_the_end(schedule, late):
    warmup, total = schedule
    assert lr_factor(total + late, warmup, total) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("total", "warmup"), [(2000, 500), (20, 10), (7, 3), (1, 0)])
def test_warm_up_takes_half_of_a_short_run_at_most(total, warmup):
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = LambdaLR(optimizer, schedule_factor(TrainingConfig(warmup_steps=500), total))
    rates = []
    for _ in range(total):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2 * lr_factor(step, warmup, total) for step in range(total)])
    assert max(rates) == 2.0
    assert schedule.get_last_lr()[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_rates_decay_by_layers_as_worked_by_hand(optimizer):
    """Head 0.8, last block and final norm 0.4, first block 0.2, embedding 0.1."""
    model = tiny_model(backbone_options=TINY | {"reg_tokens": 2, "init_values": 0.1, "pre_norm": True})
    config = TrainingConfig(optimizer=optimizer, lr=0.8, weight_decay=0.05)
    built = build_optimizer(model, replace(config, layer_decay=0.5))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in built.param_groups for p in group["params"]}
    assert rates.keys() == set(names.values())
    starts = {"norm.": 0.4, "head.": 0.8, "blocks.1.": 0.4, "blocks.0.": 0.2, "norm_pre.": 0.1}
    starts |= dict.fromkeys(("patch_embed.", "cls_token", "reg_token", "pos_embed"), 0.1)
    for name, rate in rates.items():
        (expected,) = {value for start, value in starts.items() if name.startswith(f"encoder.model.{start}")}
        assert rate == pytest.approx(expected), name
    assert built.param_groups[0]["lr"] == 0.8
    decayed = {names[id(p)] for group in built.param_groups if group["weight_decay"] for p in group["params"]}
    plain = {group["weight_decay"]: group["params"] for group in build_optimizer(model, config).param_groups}
    assert decayed == {names[id(p)] for p in plain[0.05]}


def test_layers_are_steps_of_one_rate_through_the_schedule():
    model = tiny_model()
    optimizer = build_optimizer(model, TrainingConfig(lr=0.8, layer_decay=0.5))
    schedule = LambdaLR(optimizer, schedule_factor(TrainingConfig(lr=0.8, warmup_steps=2), 4))
    first = {group["lr"] for group in optimizer.param_groups}
    optimizer.step()
    schedule.step()
    assert sorted(first) == pytest.approx([0.05, 0.1, 0.2, 0.4])
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_any_optimiser_of_timm_is_taken_and_an_unknown_one_is_an_error():
    built = build_optimizer(tiny_model(), TrainingConfig(optimizer="lamb", lr=0.3, layer_decay=0.5))
    assert type(built).__name__ == "Lamb"
    assert built.param_groups[0]["lr"] == 0.3
    with pytest.raises(ConfigError, match=r"training\.optimizer is 'adamm'; give sgd, adamw, or a name"):
        check_optimizer("adamm")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_saved_optimizer_goes_on_with_the_same_bits(optimizer):
    """Muon keeps a momentum for matrices, and Adam's averages for the rest."""
    config = TrainingConfig(optimizer=optimizer, lr=0.01, layer_decay=0.5)

    def step(model, built):
        built.zero_grad()
        model(torch.ones(2, 3, *model.image_size)).scales[0].logits.square().mean().backward()
        built.step()

    model = tiny_model()
    built = build_optimizer(model, config)
    step(model, built)
    again = deepcopy(model)
    loaded = build_optimizer(again, config)
    loaded.load_state_dict(deepcopy(built.state_dict()))
    for either in ((model, built), (again, loaded)):
        step(*either)
        step(*either)
    pairs = list(zip(model.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    fresh = build_optimizer(again, config)
    step(model, built)
    step(again, fresh)
    assert not all(torch.equal(one, other) for one, other in pairs)


def test_frozen_parameters_are_left_out_and_layers_are_counted_as_before():
    model = tiny_model()
    model.encoder.model.requires_grad_(False)
    model.encoder.model.blocks[0].requires_grad_(True)
    built = build_optimizer(model, TrainingConfig(lr=0.8, layer_decay=0.5))
    held = {id(parameter) for group in built.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.encoder.model.blocks[0].parameters()}
    assert {group["lr"] for group in built.param_groups} == {0.2}


def test_nothing_to_train_is_our_own_mistake():
    with pytest.raises(AssertionError, match="frozen"):
        build_optimizer(tiny_model().requires_grad_(False), TrainingConfig())


@given(SCHEDULES, st.floats(0, 1))
def test_the_rate_falls_to_its_least_value(schedule, least):
    warmup, total = schedule
    factors = [lr_factor(step, warmup, total, least) for step in range(total + 5)]
    assert max(factors) == pytest.approx(1)
    assert factors[total:] == pytest.approx([least] * 5)
    assert all(factor >= least - 1e-12 for factor in factors[warmup:])


def test_a_schedule_can_warm_up_by_epochs_and_end_above_zero():
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = LambdaLR(
        optimizer, schedule_factor(TrainingConfig(warmup_epochs=1.5, min_lr_factor=0.25), 40, 7)
    )
    rates = []
    for _ in range(41):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[25] == pytest.approx(2 * 0.625)  # half way down
    assert rates[40] == pytest.approx(0.5)


def test_a_resumed_schedule_goes_on():
    def built():
        optimizer = build_optimizer(tiny_model(), TrainingConfig(lr=0.8, layer_decay=0.7))
        return optimizer, LambdaLR(
            optimizer, schedule_factor(TrainingConfig(warmup_steps=3, min_lr_factor=0.1), 11)
        )

    optimizer, schedule = built()
    rates = []
    for step in range(11):
        if step == 5:
            saved = optimizer.state_dict(), schedule.state_dict()
            optimizer, schedule = built()
            optimizer.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    for step, found in enumerate(rates):
        assert found[0] == pytest.approx(0.8 * lr_factor(step, 3, 11, 0.1))
        assert found[-1] == pytest.approx(0.8 * 0.7**3 * lr_factor(step, 3, 11, 0.1))
