"""Which way to take the steps is told, from hand-made costs; and on tiny models from measured ones."""

import json

import numpy as np
import pytest
import torch

from ramstrans.errors import TrainingError, UsageError
from ramstrans.training.planning import plan as module
from ramstrans.training.planning.cost import StepCost
from ramstrans.training.planning.fits import Ground
from ramstrans.training.planning.plan import Plan, Task, plan, way_of
from ramstrans.training.planning.trials import Trial
from tests.training.builders import TINY, tiny_run

TASK = Task(batch_size=64, images_per_process=32, num_images=640, steps=7200)


def trial(precision="fp32", *, checkpointing=False, an_image=10.0, seconds=0.5):
    """Weights of 100 bytes, gradients of 100, state of 200."""
    cost = StepCost(100, 200, 100, 10, 5, 20, 0, np.array([[0.0, 0.0, an_image]]), seconds, 1.0)
    return Trial(precision, checkpointing, "fused", cost)


def planned(memory, *trials):
    ground = Ground(memory)
    ways = tuple(way_of(one, ground, TASK) for one in trials)
    return Plan(TASK, ground, ways, trials, torch.device("cpu"), (12,), 12)


def test_a_way_by_hand():
    """900 bytes: 600 beside weights and state, 500 beside all gradients."""
    way = way_of(trial(an_image=50.0), Ground(1000), TASK)
    assert (way.most_images, way.gradient_accumulation_steps, way.images) == (12, 4, 8)
    assert way.peak == 100 + 200 + 100 + 8 * 50
    assert way.seconds == 32 * 0.5 + 1
    assert way.hours == pytest.approx(7200 * 17 / 3600)
    assert way.options() == (
        "--training.precision fp32 --training.gradient_accumulation_steps 4 "
        "--training.gradient_checkpointing false"
    )


def test_a_way_that_does_not_fit():
    way = way_of(trial(an_image=700.0), Ground(1000), TASK)
    assert (way.most_images, way.gradient_accumulation_steps, way.images) == (0, None, 1)
    assert way.peak == 100 + 200 + 100 + 700


def test_the_fastest_that_fits_is_best():
    slow, fast, large = (
        trial(seconds=0.9),
        trial("bf16", seconds=0.4),
        trial("fp16", an_image=9e9, seconds=0.1),
    )
    best = planned(1000, slow, large, fast).best()
    assert (best.precision, best.gradient_accumulation_steps) == ("bf16", 1)


def test_computing_twice_is_not_faster_whatever_was_timed():
    plain, again = trial(seconds=0.9), trial(checkpointing=True, an_image=1.0, seconds=0.4)
    assert not planned(1000, again, plain).best().gradient_checkpointing
    assert planned(400, again, plain).best().gradient_checkpointing
    assert planned(1000, again, trial("bf16", seconds=0.7)).best().gradient_checkpointing


def test_the_least_that_would_fit_is_told():
    with pytest.raises(TrainingError) as caught:
        planned(1e8, trial(an_image=9e9), trial("bf16", checkpointing=True, an_image=9e8)).best()
    assert str(caught.value).startswith(
        "nothing fits into 100 MB a process: the least is one image at a time in bf16 with gradient "
        "checkpointing, which needs 1.0 GB; give a smaller --model.image_size"
    )
    assert caught.value.exit_code == 1


def test_a_plan_as_plain_values():
    values = json.loads(json.dumps(planned(400, trial(), trial(checkpointing=True, an_image=1.0)).to_json()))
    assert values["task"] == {"batch_size": 64, "images_per_process": 32, "num_images": 640, "steps": 7200}
    assert values["ground"]["memory"] == 400
    assert values["measured"] == {"device": "cpu", "blocks_tried": [12], "blocks": 12}
    assert [way["options"] is None for way in values["ways"]] == [True, False]
    assert values["ways"][1]["attention"] == "fused"


@pytest.fixture
def config():
    def config(**fields):
        model = {"num_classes": 5, "zoom_source": "input", "image_size": 32} | fields.pop("model", {})
        options = {"batch_size": 6, "max_steps": None, "epochs": 3} | fields
        return tiny_run(None, "toybirds", model=model, training=options, data={"val_fraction": 0.1})

    return config


def test_a_tiny_model_is_planned(config):
    told = []
    found = plan(config(), 100, memory=1e9, progress=lambda *news: told.append(news))
    assert [(way.precision, way.gradient_checkpointing) for way in found.ways] == [
        *(("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True)),
    ]
    assert found.task == Task(6, 6, 100, 3 * 17)
    assert found.depths == (2,)
    assert {way.gradient_accumulation_steps for way in found.ways} == {1}
    assert all(1e5 < way.peak < 1e7 and way.most_images > 1000 and way.seconds > 0 for way in found.ways)
    assert told[0] == (0, 2, "measuring fp32")
    assert told[-1][:2] == (2, 2)
    assert {trial.precision: trial.attention for trial in found.trials} == {"fp32": "fused", "bf16": "math"}


def test_checkpointing_takes_less_and_processes_share_the_images(config):
    model = {"backbone_options": TINY | {"depth": 8}, "image_size": 64}
    one = plan(config(model=model, batch_size=9), 100, memory=1e9)
    assert one.ways[1].peak < 0.6 * one.ways[0].peak
    two = plan(config(model=model, batch_size=9), 100, memory=1e9, processes=2)
    assert (two.task.images_per_process, two.ways[0].images) == (5, 5)
    assert two.ways[0].seconds < one.ways[0].seconds


def test_steps_are_at_most_what_was_asked_for(config):
    assert plan(config(max_steps=20), 100, memory=1e9).task.steps == 20
    assert plan(config(max_steps=20), 6, memory=1e9).task.steps == 3


def test_memory_is_this_devices_own_where_none_is_given(config, monkeypatch):
    monkeypatch.setattr(module, "device_bytes", lambda device: 12345)
    assert plan(config(), 100).ground.memory == 12345


def test_an_average_takes_the_weights_once_more(config):
    without, with_ = (plan(config(ema_decay=decay), 100, memory=1e9) for decay in (0.0, 0.9))
    for first, second, trial in zip(without.ways, with_.ways, with_.trials, strict=True):
        assert second.peak - first.peak == pytest.approx(trial.cost.weights, rel=0.01)


@pytest.mark.parametrize(
    ("options", "processes", "message"),
    [
        (
            {"batch_size": 3},
            4,
            r"batch_size is 3, of all --processes 4 together; give .*batch_size 4 or more",
        ),
        ({"fsdp": True}, 1, "fsdp needs several --processes"),
    ],
)
def test_what_cannot_be_planned_is_told(config, options, processes, message):
    with pytest.raises(UsageError, match=message):
        plan(config(**options), 100, processes=processes)


def test_a_device_without_a_counter_is_told(config, monkeypatch):
    monkeypatch.setattr(module, "choose_device", lambda _: torch.device("mps"))
    with pytest.raises(UsageError, match="cannot be counted on 'mps'; give --device cpu"):
        plan(config(), 100)
