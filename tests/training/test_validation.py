"""Which epoch is kept, when a run ends early, and what it says of each epoch."""

import json
import math
import re

import pytest
import torch

from ramstrans.data.loading.transforms import Augmentation
from ramstrans.training import loop
from ramstrans.training.checkpoint import Checkpoints, RunState
from ramstrans.training.config import TrainingConfig
from ramstrans.training.loop import TrainLoop, validate
from ramstrans.training.trainable import merged_state_dict
from tests.training.builders import metrics_log, same_state, tiny_loader, tiny_model, validation_of


@pytest.fixture
def validated_as(monkeypatch):
    """Lets the validation of each epoch give these pairs of top-1 and loss: the weights at each."""

    def replace(*scores):
        states, remaining = [], iter(scores)

        def told(model, _loader, _precision, epoch):
            states.append(merged_state_dict(model))
            return validation_of(epoch, *next(remaining))

        monkeypatch.setattr(loop, "validate", told)
        return states

    return replace


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(10.0, 0.5), (30.0, 0.9), (20.0, 0.1), (20.0, 0.1)], 2),  # the highest accuracy, whatever its loss
        ([(30.0, 0.5), (30.0, 0.3), (30.0, 0.4), (20.0, 0.1)], 2),  # of equal ones the lower loss
        ([(10.0, 0.2), (30.0, 0.5), (30.0, 0.5), (30.0, 0.6)], 3),  # still equal: the later
    ],
)
def test_the_best_epoch_on_validation_is_chosen(run, validated_as, scores, best):
    states = validated_as(*scores)
    result, model, rows = run(tiny_model(), validate_on="train", epochs=4)
    assert (result.epoch, result.chosen_on, result.steps) == (best, "validation", 12)
    assert same_state(result.weights, states[best - 1])
    assert not same_state(result.weights, merged_state_dict(model))
    judged = [row for row in rows if row["kind"] == "validation"]
    assert [row["epoch"] for row in judged] == [1, 2, 3, 4]
    assert max(row["epoch"] for row in judged if row["is_best"]) == best


def test_a_choice_on_few_images_is_reported_as_unsure(run, validated_as):
    validated_as((25.0,), (75.0,))  # on 12 images: 9 right
    [warning] = run(tiny_model(), validate_on="train", epochs=2)[0].warnings
    assert "epoch 2 was chosen on 12 validation images" in warning
    assert "75.0 % right (95 % interval 46.8 - 91.1 %)" in warning
    assert "or none, and the last epoch is taken" in warning


def test_patience_ends_the_run_with_the_best_epoch(run, validated_as, caplog):
    caplog.set_level("INFO", "ramstrans")
    states = validated_as((10.0, 0.5), (30.0, 0.5), (30.0, 0.5), (20.0, 0.1), (90.0, 0.1))
    result, _, rows = run(tiny_model(), validate_on="train", epochs=9, patience=2)
    assert (result.epoch, result.steps, result.stopped_early) == (3, 12, True)
    assert same_state(result.weights, states[2])
    assert rows[-1] == {"kind": "stopped", "step": 12, "epoch": 4, "best_epoch": 3, "num_not_better": 2}
    assert "2 evaluations without a better epoch than 3" in caplog.messages[-1]


def test_patience_begins_again_with_every_better_epoch(run, validated_as):
    validated_as((10.0, 0.5), (10.0, 0.6), (10.0, 0.4), (10.0, 0.4), (20.0, 0.9), (20.0, 1.0))
    result, _, rows = run(tiny_model(), validate_on="train", epochs=6, patience=2)
    assert (result.epoch, result.stopped_early) == (5, False)
    assert "stopped" not in {row["kind"] for row in rows}


def test_patience_without_validation_is_ignored_with_a_warning(run, caplog):
    assert run(tiny_model(), epochs=2, patience=1)[0].steps == 6
    assert "training.patience is ignored" in caplog.text


def test_every_epoch_has_one_line(run, validated_as, caplog):
    caplog.set_level("INFO", "ramstrans")
    validated_as((30.0, 0.5), (20.0, 0.25))
    _, _, rows = run(tiny_model(), validate_on="train", epochs=3, evaluate_every=2)
    train = [row for row in rows if row["kind"] == "train"]
    losses = [sum(row["loss"] for row in train[first : first + 3]) / 3 for first in (0, 3, 6)]
    rates = [f"{train[last]['lr']:.1e}" for last in (2, 5, 8)]
    assert len(caplog.messages) == 3
    lines = [re.sub(r"[0-9.]+ images/s(, [0-9]+ s left)?", "SPEED", line) for line in caplog.messages]
    assert lines[0] == f"epoch 1/3: loss {losses[0]:.3f}, lr {rates[0]}, SPEED"  # no validation
    scores = "validation loss 0.500, top-1 0.0 / 0.0 / fused 30.0 %"
    assert lines[1] == f"epoch 2/3: loss {losses[1]:.3f}, {scores}, lr {rates[1]}, SPEED, best so far"
    scores = "validation loss 0.250, top-1 0.0 / 0.0 / fused 20.0 %"
    assert lines[2] == f"epoch 3/3: loss {losses[2]:.3f}, {scores}, lr {rates[2]}, SPEED"
    assert ["left" in line for line in caplog.messages] == [True, True, False]


@pytest.mark.parametrize("killed_at", [5, 7, 10])
def test_patience_and_the_mean_loss_survive_a_resume(images, validated_as, tmp_path, caplog, killed_at):
    """3 steps per epoch; the best epoch is 2, the run ends after epoch 4 whether it was killed or not."""
    caplog.set_level("INFO", "ramstrans")
    scores = [(10.0, 0.5), (30.0, 0.5), (20.0, 0.5), (20.0, 0.1), (90.0, 0.1)]

    def run(folder, state, scores, progress=lambda *_: None):
        folder.mkdir(exist_ok=True)
        validated_as(*scores)
        log, accelerator = metrics_log(folder)
        train = tiny_loader(images.of_split("train"), augmentation=Augmentation())
        val = tiny_loader(images.of_split("train"), shuffle=False)
        config = TrainingConfig(epochs=9, patience=2, checkpoint_every=1, keep_checkpoints=9)
        checkpoints = Checkpoints(folder / "checkpoints", 9)
        trained = TrainLoop(tiny_model(), train, val, config, accelerator, log, checkpoints, state)
        return trained.run(progress), log.path.read_text().splitlines()[-1]

    def killed(step, *_):
        if step == killed_at:
            raise KeyboardInterrupt

    def lines():
        said = [re.sub(r"[0-9.]+ images/s, .* left", "", line) for line in caplog.messages]
        caplog.clear()
        return [line for line in said if line.startswith("epoch")]

    whole, last = run(tmp_path / "whole", RunState(), scores)
    expected = lines()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", RunState(), scores, killed)
    first = lines()
    state = Checkpoints(tmp_path / "killed" / "checkpoints").newest()
    assert state.step == killed_at
    resumed, same = run(tmp_path / "killed", state, scores[killed_at // 3 :])
    assert (resumed.epoch, resumed.steps, resumed.stopped_early) == (2, 12, True)
    assert same_state(resumed.weights, whole.weights)
    assert json.loads(same) == json.loads(last)
    assert first + lines() == expected
    again, _ = run(tmp_path / "killed", Checkpoints(tmp_path / "killed" / "checkpoints").newest(), [])
    assert (again.epoch, again.steps, again.stopped_early) == (2, 12, True)  # nothing is trained any more
    assert "nothing is trained: training.patience ended this run at step 12" in caplog.messages


def test_without_validation_the_last_epoch_is_taken(run):
    result, model, rows = run(tiny_model(), epochs=2)
    assert (result.epoch, result.chosen_on) == (2, "last epoch")
    assert same_state(result.weights, merged_state_dict(model))
    assert {row["kind"] for row in rows} == {"train"}
    assert result.seconds > 0


def test_validation_comes_every_so_many_epochs_and_at_the_end(run):
    _, _, rows = run(tiny_model(), validate_on="train", epochs=3, evaluate_every=2)
    assert [row["epoch"] for row in rows if row["kind"] == "validation"] == [2, 3]


def test_validation_leaves_the_weights_alone_and_counts_rightly(images):
    model = tiny_model()
    with torch.no_grad():
        model.encoder.model.head.weight.zero_()
        model.encoder.model.head.bias.copy_(torch.tensor([0.0, 5.0, 0.0]))  # everything is a Bistre owl
    expected = math.log(math.exp(5) + 2) - 5 / 3  # log-sum-exp, minus the mean logit of the true class
    before = merged_state_dict(model)
    row = validate(model, tiny_loader(images.of_split("test"), shuffle=False), "fp32", 3)
    assert row == {
        "kind": "validation",
        "epoch": 3,
        "loss_scales": pytest.approx([expected, expected], rel=1e-5),
        "loss_fused": pytest.approx(expected, rel=1e-5),
        "top1_scales": pytest.approx([100 / 3, 100 / 3]),
        "top1_fused": pytest.approx(100 / 3),
    }
    assert same_state(before, merged_state_dict(model))
