from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW

from ramstrans.training.config import TrainingConfig
from ramstrans.training.optimizer import build_optimizer, build_schedule, lr_factor
from tests.training.builders import TINY, tiny_model

SCHEDULES = st.integers(0, 40).flatmap(lambda warmup: st.tuples(st.just(warmup), st.integers(warmup + 1, 97)))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
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
    tokens = {"backbone.vit.cls_token", "backbone.vit.reg_token", "backbone.vit.pos_embed"}
    assert tokens <= grouped[0.0]


def test_the_optimizer_is_the_one_that_was_asked_for():
    model = nn.Linear(3, 2)
    sgd = build_optimizer(model, TrainingConfig(lr=0.07, momentum=0.5))
    assert isinstance(sgd, SGD)
    assert {(group["lr"], group["momentum"]) for group in sgd.param_groups} == {(0.07, 0.5)}
    assert isinstance(build_optimizer(model, TrainingConfig(optimizer="adamw")), AdamW)


def test_two_sgd_steps_are_as_worked_by_hand():
    """Gradient 2, lr 0.1, momentum 0.9; decay 0.5 of the weight, none of the bias."""
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = build_optimizer(model, TrainingConfig(lr=0.1, momentum=0.9, weight_decay=0.5))
    values = []
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 2.0)
        optimizer.step()
        values += [model.weight.item(), model.bias.item()]
    assert values == pytest.approx([0.75, 0.8, 0.2875, 0.42])


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
    schedule = build_schedule(optimizer, TrainingConfig(warmup_steps=500), total)
    rates = []
    for _ in range(total):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2 * lr_factor(step, warmup, total) for step in range(total)])
    assert max(rates) == 2.0
    assert schedule.get_last_lr()[0] == pytest.approx(0, abs=1e-12)
