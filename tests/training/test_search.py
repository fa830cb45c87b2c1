"""A search of tiny runs: what is tried, what is stopped early, and that it goes on where it was."""

import dataclasses
import itertools
import json
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from PIL import Image

from ramstrans.errors import DataError, OutputError, StoppedError, TrainingError
from ramstrans.training.loop import TrainLoop
from ramstrans.training.memory import OUT_OF_MEMORY
from ramstrans.training.run import prepare
from ramstrans.training.search import (
    SEARCH_FILE,
    finished,
    plot_search,
    ranges,
    ranked,
    score,
    search,
    short,
    with_values,
)
from ramstrans.training.validation import rank
from tests.tiny import same_state, tiny_run

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)


def prepared_run(birds, *, data=None, **training):
    return prepare(tiny_run(birds, training={"max_steps": None, "epochs": 3} | training, data=data))


@pytest.fixture(scope="module")
def prepared(birds):
    return prepared_run(birds)


@pytest.fixture
def validated(monkeypatch):
    """Trials train nothing; their validation rows are given, by trial and epoch."""

    def use(rows):
        def train_epoch(self, _progress):
            self.state.step += self.steps_per_epoch
            self.validate(self.state.step // self.steps_per_epoch)

        def validate(self, epoch):
            top1, loss = rows(self.trial.number, epoch)
            row = {"top1_fused": top1, "loss_fused": loss}
            row["is_best"] = rank(row) >= (self.state.best_score, -self.state.best_loss)
            if row["is_best"]:
                self.state.best_score, self.state.best_loss = top1, loss
            return row

        monkeypatch.setattr(TrainLoop, "train_epoch", train_epoch)
        monkeypatch.setattr(TrainLoop, "validate", validate)

    return use


def test_scores_are_in_the_order_in_which_epochs_are_chosen():
    rows = [
        {"top1_fused": 100 * right / 7, "loss_fused": loss}
        for right, loss in itertools.product(range(8), (0.0, 0.1, 3.0, 1e6))
    ]
    by_score = sorted(rows, key=lambda row: score(row, 7))
    assert by_score == sorted(rows, key=rank)
    assert score({"top1_fused": 50.0, "loss_fused": float("nan")}, 10) == 40


def test_ranges_hold_the_recipe(birds):
    run = tiny_run(birds, training={"weight_decay": 0.5, "layer_decay": 0.5}, model={"drop_path": 0.4})
    assert ranges(run) == {
        "training.lr": (0.003, pytest.approx(0.0003), pytest.approx(0.03), True),
        "training.weight_decay": (0.5, 0.0, 0.5, False),
        "training.layer_decay": (0.5, 0.5, 1.0, False),
        "model.drop_path": (0.4, 0.0, 0.4, False),
    }


def test_a_backbone_without_stochastic_depth_has_none_to_try(birds):
    run = tiny_run(birds, model={"backbone": "vgg11", "backbone_options": {}, "image_size": 64})
    assert [*ranges(run)] == ["training.lr", "training.weight_decay", "training.layer_decay"]
    values = {"training.lr": 0.1, "training.weight_decay": 0.2, "training.layer_decay": 0.7}
    assert with_values(run, values).model == run.model


def test_a_trial_is_a_part_of_the_steps_that_a_run_takes(birds):
    run = tiny_run(birds, training={"epochs": 100, "max_steps": 400})
    assert short(run, 10).training.epochs == 10


@pytest.mark.parametrize(("epochs", "expected"), [(2, 2), (3, 3), (8, 3), (13, 4), (60, 15)])
def test_a_trial_is_a_short_run_with_the_values(birds, epochs, expected):
    values = {"training.lr": 0.1, "training.weight_decay": 0.2, "training.layer_decay": 0.7}
    run = tiny_run(birds, training={"epochs": epochs, "max_steps": None, "patience": 2, "evaluate_every": 2})
    trial = short(with_values(run, values | {"model.drop_path": 0.15}), 7)
    assert (trial.training.epochs, trial.training.evaluate_every) == (expected, 1)
    assert (trial.training.patience, trial.training.checkpoint_every) == (None, 0)
    assert (trial.training.lr, trial.training.weight_decay, trial.training.layer_decay) == (0.1, 0.2, 0.7)
    assert trial.model.drop_path == 0.15
    assert (trial.training.batch_size, trial.data) == (run.training.batch_size, run.data)


@pytest.mark.slow
def test_real_trials_start_alike_and_go_on(prepared, birds, tmp_path):
    before = {name: weight.clone() for name, weight in prepared.model.state_dict().items()}
    news = []
    study = search(prepared, 2, tmp_path / "a", progress=lambda *told: news.append(told))
    assert same_state(before, prepared.model.state_dict())
    recipe, other = finished(study)
    assert recipe.params == pytest.approx(
        {
            "training.lr": 0.003,
            "training.weight_decay": 0,
            "training.layer_decay": 1,
            "model.drop_path": 0,
        }
    )
    assert recipe.user_attrs["recipe"]
    assert other.params != recipe.params
    assert news[0][2].startswith("trial 1 of 2, epoch 1, loss ")
    rows = [json.loads(line) for line in (tmp_path / "a" / "trial-000.jsonl").read_text().splitlines()]
    validation = [row for row in rows if row["kind"] == "validation"]
    assert list(recipe.intermediate_values.values()) == [score(row, 3) for row in validation]
    assert recipe.value == max(recipe.intermediate_values.values())
    assert recipe.user_attrs["top1"] == max(row["top1_fused"] for row in validation)
    again = search(prepared_run(birds), 2, tmp_path / "b")
    assert [one.values for one in finished(again)] == [one.values for one in finished(study)]
    assert [one.params for one in finished(again)] == [one.params for one in finished(study)]
    more = search(prepared, 3, tmp_path / "a")
    assert [one.number for one in finished(more)] == [0, 1, 2]
    assert finished(more)[0].values == recipe.values


def test_worse_trials_are_stopped_early(prepared, validated, tmp_path):
    validated(lambda number, epoch: (90.0 - 10 * number, 1.0))
    study = search(prepared, 6, tmp_path / "s")
    states = [one.state.name for one in finished(study)]
    assert states == ["COMPLETE"] * 4 + ["PRUNED"] * 2
    assert [len(one.intermediate_values) for one in finished(study)] == [3] * 4 + [2] * 2
    found = ranked(study)
    assert [one.number for one in found] == [0, 1, 2, 3, 4, 5]
    assert found[0].user_attrs == {"recipe": True, "top1": 90.0, "loss": 1.0}
    plot_search(found, tmp_path / "search.png")
    with Image.open(tmp_path / "search.png") as image:
        assert min(image.size) > 600


def test_the_best_epoch_of_a_trial_counts(prepared, validated, tmp_path):
    rows = [(30.0, 1.0), (60.0, 1.0), (60.0, 3.0)]
    validated(lambda number, epoch: rows[epoch - 1])
    [trial] = finished(search(prepared, 1, tmp_path / "s"))
    assert trial.value == pytest.approx(60 - 100 / 3 / 2)
    assert trial.user_attrs["loss"] == 1.0


def test_no_trial_starts_after_the_time(prepared, validated, tmp_path, monkeypatch):
    now = [datetime(2026, 5, 31)]

    def row(_number, _epoch):
        now[0] += timedelta(seconds=10)
        return 50.0, 1.0

    validated(row)
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: now[0]))
    monkeypatch.setattr("optuna.study._optimize.datetime", clock)
    study = search(prepared, 9, tmp_path / "s", seconds=45)  # a trial of three epochs takes 30 seconds
    assert len(finished(study)) == 2


def test_a_trial_that_fails_is_stopped_and_out_of_memory_ends_the_search(
    prepared, validated, tmp_path, monkeypatch
):
    message = ["the loss was not finite"]
    validated(lambda number, epoch: (50.0, 1.0))
    ok = TrainLoop.train_epoch

    def fail(self, progress):
        if self.trial.number == 1:
            raise TrainingError(message[0])
        ok(self, progress)

    monkeypatch.setattr(TrainLoop, "train_epoch", fail)
    study = search(prepared, 3, tmp_path / "a")
    assert [one.state.name for one in finished(study)] == ["COMPLETE", "PRUNED", "COMPLETE"]
    plot_search(ranked(study), tmp_path / "a.png")
    message[0] = OUT_OF_MEMORY
    with pytest.raises(TrainingError, match="out of memory"):
        search(prepared, 3, tmp_path / "b")


def test_a_search_that_was_stopped_goes_on(prepared, validated, tmp_path, monkeypatch):
    validated(lambda number, epoch: (50.0, 1.0))
    ok = TrainLoop.train_epoch

    def stop(self, _progress):
        raise StoppedError("stopped; nothing was saved", 15)

    monkeypatch.setattr(TrainLoop, "train_epoch", stop)
    with pytest.raises(StoppedError, match=r"stopped in trial 1; the same command line goes on") as raised:
        search(prepared, 2, tmp_path / "s")
    assert raised.value.exit_code == 143
    monkeypatch.setattr(TrainLoop, "train_epoch", ok)
    trials = finished(search(prepared, 2, tmp_path / "s"))
    assert [one.number for one in trials] == [1, 2]
    assert trials[0].user_attrs["recipe"]  # it is tried first all the same


def test_another_run_does_not_go_on(prepared, birds, validated, tmp_path):
    validated(lambda number, epoch: (50.0, 1.0))
    search(prepared, 1, tmp_path / "s")
    other = prepared_run(birds, batch_size=3)
    with pytest.raises(OutputError, match="holds a search for a run with other options or data"):
        search(other, 1, tmp_path / "s")
    assert len(finished(search(other, 1, tmp_path / "s", overwrite=True))) == 1
    workers = dataclasses.replace(other.config.data, read_timeout=50.0)
    same = other._replace(config=dataclasses.replace(other.config, data=workers))
    assert len(finished(search(same, 1, tmp_path / "s"))) == 1


def test_a_folder_of_something_else_is_kept(prepared, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match=f"has no {SEARCH_FILE}"):
        search(prepared, 1, tmp_path, overwrite=True)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_without_validation_images_nothing_can_be_judged(birds, tmp_path):
    prepared = prepared_run(birds, data={"val_fraction": 0.0})
    with pytest.raises(DataError, match=r"needs validation images; give --data\.val_fraction"):
        search(prepared, 1, tmp_path / "s")


def test_test_images_are_not_read(prepared, tmp_path, monkeypatch):
    asked, of_split = [], type(prepared.images).of_split

    def noting(self, split):
        asked.append(split)
        return of_split(self, split)

    monkeypatch.setattr(type(prepared.images), "of_split", noting)
    search(prepared, 1, tmp_path / "s")
    assert set(asked) == {"train", "val"}


def test_nothing_came_to_its_end(prepared, validated, tmp_path):
    study = search(prepared, 1, tmp_path / "s", seconds=0)
    with pytest.raises(TrainingError, match="no trial came to its end; give more --time"):
        ranked(study)
