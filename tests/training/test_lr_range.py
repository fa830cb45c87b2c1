"""The range test on a tiny run, its suggestion on curves made by hand."""

import math

import numpy as np
import pytest
from PIL import Image

from ramstrans.errors import TrainingError
from ramstrans.training import lr_range as module
from ramstrans.training.lr_range import LrRange, endless, lr_range, plot_lr_range, suggest, take_steps
from ramstrans.training.run import prepare
from ramstrans.training.step import StepResult
from tests.tiny import tiny_run

RATES = np.geomspace(1e-6, 1, 60)


def test_the_steepest_point_of_a_smooth_curve_is_found_despite_noise():
    """A logistic fall around 1e-3, a rise above 1e-1."""
    at = np.log10(RATES)
    noise = np.random.default_rng(0).normal(0, 0.05, 60)
    losses = 4 - 3 / (1 + np.exp(-4 * (at + 3))) + 20 * np.clip(at + 1, 0, None) ** 2 + noise
    found = suggest(RATES.tolist(), losses.tolist())
    assert math.log10(found.suggested) == pytest.approx(-3, abs=0.25)
    assert -2 < math.log10(found.lowest) < -0.8
    assert len(found.smoothed) == len(found.losses) == 60


def test_what_comes_after_the_lowest_point_does_not_count():
    losses = [3.0] * 20 + [2.0] * 20 + [9.0] * 10 + [2.5] * 10  # it falls faster after it has diverged
    assert suggest(RATES.tolist(), losses).suggested == pytest.approx(RATES[19], rel=0.6)


@pytest.mark.parametrize("losses", [[], [2.0], [2.0, 2.0, 2.0], list(range(30))])
def test_a_loss_that_does_not_fall_is_an_error(losses):
    with pytest.raises(TrainingError, match=r"falls at no learning rate from 1e-06 to 1; check the weights"):
        suggest(RATES[: len(losses)].tolist(), losses)


class Steps:
    """Steps whose losses are given."""

    def __init__(self, losses):
        self.losses, self.taken = losses, 0

    def run(self, _batch):
        self.taken += 1
        loss = self.losses[self.taken - 1]
        if isinstance(loss, Exception):
            raise loss
        return StepResult(loss, (loss,), RATES[self.taken - 1], was_skipped=False, stop=False)


@pytest.fixture
def batches(monkeypatch):
    """Batches without end."""
    monkeypatch.setattr(module, "endless", lambda _loader: (None for _ in iter(int, 1)))


def test_steps_end_when_the_loss_diverges(batches):
    """The mean is 1, then 0.8 + 0.2 x 10 = 2.8, then 4.24, more than 4 times the lowest."""
    steps = Steps([1.0] * 7 + [10.0] * 53)
    rates, losses = take_steps(steps, None)
    assert losses == [1.0] * 7 + [10.0] * 2
    assert rates == RATES[:9].tolist()


def test_a_loss_that_is_not_finite_ends_them_and_is_left_out(batches):
    assert take_steps(Steps([3.0, 2.0, math.nan, 1.0]), None)[1] == [3.0, 2.0]
    assert len(take_steps(Steps([3.0] * 60), None)[1]) == 60


def test_out_of_memory_says_what_to_do(batches):
    with pytest.raises(TrainingError, match="out of memory in a training step; try in this order"):
        take_steps(Steps([RuntimeError("CUDA out of memory")]), None)
    with pytest.raises(RuntimeError, match="shapes differ"):
        take_steps(Steps([RuntimeError("shapes differ")]), None)


@pytest.fixture
def prepared(birds):
    return prepare(tiny_run(birds, training={"ema_decay": 0.9, "layer_decay": 0.5, "batch_size": 5}))


def test_the_rate_grows_over_as_many_epochs_as_it_takes(prepared, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "suggest", lambda rates, losses: seen.append((rates, losses)))
    monkeypatch.setattr(module, "NUM_STEPS", 7)
    before = {name: weight.clone() for name, weight in prepared.model.state_dict().items()}
    told = []
    lr_range(prepared, lambda *news: told.append(news))
    [(rates, losses)] = seen
    assert rates == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1][: len(rates)])
    assert len(rates) == len(losses) >= 5  # 9 images make 2 steps per epoch
    assert told[0][:2] == (1, 7)
    assert any((before[name] != weight).any() for name, weight in prepared.model.state_dict().items())


def test_batches_go_on_in_the_next_epoch(prepared):

    loader, _ = prepared.loaders()
    batches = endless(loader)
    keys = [next(batches).key for _ in range(5)]
    batches.close()
    assert [key[1:] for key in keys] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_a_plot_is_written(tmp_path):
    losses = tuple(np.linspace(4, 1, 60))
    found = LrRange(tuple(RATES), losses, losses, 1e-3, 1e-1)
    plot_lr_range(found, 2e-4, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size[0] > 600
