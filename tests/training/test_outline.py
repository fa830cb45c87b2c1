"""What a run says before its first epoch, and that saying it changes nothing."""

import dataclasses
import re

import pytest
import torch

from ramstrans.training import outline as module
from ramstrans.training.outline import outline
from ramstrans.training.run import prepare
from ramstrans.training.setup import with_length_for
from tests.tiny import same_state, tiny_run


@pytest.fixture
def prepared(birds):
    return prepare(tiny_run(birds, training={"max_steps": None, "epochs": 3}))


def test_length_time_and_choice_are_told(prepared, monkeypatch):
    """9 training images in steps of 4, 3 for validation after each epoch, 6 for the test; 2 s per image."""
    monkeypatch.setattr(module, "seconds_per_image", lambda _prepared: 2.0)
    first, second = outline(prepared)
    # (3 epochs of 9 images + (3 x 3 + 6) / 3) x 2 s = 64 s
    assert first == "3 epochs of 3 steps of 4 images: 9 steps, about 1 min 4 s on cpu, if loading keeps up"
    assert second == (
        "the epoch to keep is chosen on 3 validation images; the test split (6 images) is used once, "
        "at the end"
    )
    training = dataclasses.replace(prepared.config.training, max_steps=4)
    shorter = prepared._replace(config=dataclasses.replace(prepared.config, training=training))
    assert outline(shorter)[0].startswith("2 epochs of 3 steps of 4 images: 4 steps")


def test_the_runs_of_all_folds_are_told(prepared, monkeypatch):
    monkeypatch.setattr(module, "seconds_per_image", lambda _prepared: 2.0)
    *one, last = outline(prepared, 5)
    assert one == outline(prepared)
    assert last == "5 folds: as many runs of this length, each tested on its own part, about 5 min 20 s"


def test_without_validation_nothing_is_chosen(birds, monkeypatch):
    monkeypatch.setattr(module, "seconds_per_image", lambda _prepared: 2.0)
    prepared = prepare(tiny_run(birds, data={"val_fraction": 0.0}))
    assert outline(prepared)[1].startswith("no validation images: the last epoch is kept; the test split (6")


def test_a_linear_probe_computes_features_once(birds, monkeypatch):
    """9 training images in 2 views, 3 for validation and 6 for the test: 27 forward passes of 2 / 3 s."""
    monkeypatch.setattr(module, "seconds_per_image", lambda _prepared: 2.0)
    training = {"max_steps": None, "epochs": 3, "finetune": "head", "probe_views": 2}
    first, second = outline(prepare(tiny_run(birds, training=training)))
    assert first.startswith("the features of 27 views, then the head is fitted, about 18 s on cpu")
    assert second.startswith("its L2 penalty is chosen on 3 validation images; the test split (6 images)")


def test_timing_leaves_weights_gradients_and_generators_as_they_were(prepared):
    prepared.model.train()
    before = {key: tensor.clone() for key, tensor in prepared.model.state_dict().items()}
    generator = torch.get_rng_state()
    assert re.search(r"about \d+ s on cpu", outline(prepared)[0])
    assert torch.equal(generator, torch.get_rng_state())
    assert same_state(before, prepared.model.state_dict())
    assert all(parameter.grad is None for parameter in prepared.model.parameters())
    assert prepared.model.training


@pytest.mark.parametrize(
    ("num_train", "num_val", "epochs", "fraction"),
    [
        (48, 12, 60, 0.2),  # 2 steps of 32: 300 would be 150 epochs
        (350, 50, 28, 0.125),  # 11 steps
        (1350, 150, 12, 0.1),  # 43 steps
        (90000, 10000, 12, 0.1),
    ],
)
def test_length_follows_from_the_number_of_images(num_train, num_val, epochs, fraction, birds):
    open_run = tiny_run(birds, data={"val_fraction": None}, training={"epochs": None, "batch_size": 32})
    run = with_length_for(open_run, num_train, num_val)
    assert (run.training.epochs, run.data.val_fraction) == (epochs, fraction)
    fixed = tiny_run(birds, training={"epochs": 7})
    assert with_length_for(fixed, num_train, num_val) == fixed
