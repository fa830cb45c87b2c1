"""The loop on images of plain colour, which any network tells apart."""

import json
import math

import pytest
import torch

from ramstrans.errors import TrainingError
from ramstrans.training import loop
from ramstrans.training import step as stepping
from ramstrans.training.config import TrainingConfig
from ramstrans.training.loop import TrainLoop
from ramstrans.training.losses import ScaleForward, losses_by_scale
from ramstrans.training.memory import peak_bytes
from ramstrans.training.trainable import merged_state_dict
from tests.models.builders import randomise
from tests.training.builders import TINY, metrics_log, same_state, tiny_loader, tiny_model, validation_of


def test_regions_lie_anywhere_in_the_first_epochs_alone(run, monkeypatch):
    model, seen = tiny_model(), []
    placed = type(model).placed

    def noted(self, stage, images, scale, given):
        if scale == 0:
            seen.append((self.training, self.region_placement))
        return placed(self, stage, images, scale, given)

    monkeypatch.setattr(type(model), "placed", noted)
    run(model, epochs=3, random_region_epochs=2, validate_on="test")
    assert [placement for is_training, placement in seen if is_training] == ["random"] * 6 + ["found"] * 3
    assert {placement for is_training, placement in seen if not is_training} == {"found"}
    assert model.region_placement == "found"


def one_step(run, loss_weights, **options):
    """Weights before and after one step of plain SGD from the same random start."""
    model = randomise(tiny_model(**options))
    before = merged_state_dict(model)
    recipe = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "warmup_steps": 0, "max_steps": 1}
    result, _, _ = run(model, loss_weights=loss_weights, **recipe)
    return before, result.weights


def test_the_loss_falls_at_every_scale(run):
    _, _, rows = run(tiny_model(), epochs=8, lr=0.01)
    assert rows[0]["loss"] == pytest.approx(2 * math.log(3), rel=0.1)  # of three classes at random
    assert rows[-1]["loss"] < rows[0]["loss"] / 3
    assert all(
        last < first / 3 for first, last in zip(rows[0]["loss_scales"], rows[-1]["loss_scales"], strict=True)
    )


def test_both_scales_losses_are_trained(run):
    before, first = one_step(run, (1.0, 0.0))
    _, second = one_step(run, (0.0, 1.0))
    _, both = one_step(run, None)
    for name in ("encoder.model.head.weight", "encoder.model.patch_embed.proj.weight"):
        steps = [after[name] - before[name] for after in (first, second, both)]
        assert all(step.abs().max() > 0 for step in steps)
        assert not torch.allclose(steps[0], steps[1], rtol=0.01)
        assert not torch.allclose(steps[0], steps[2], rtol=0.01)


@pytest.mark.parametrize("scale", [0, 1])
def test_a_separate_class_token_learns_from_its_own_scale_alone(run, scale):
    weights = (1.0, 0.0) if scale == 0 else (0.0, 1.0)
    before, after = one_step(run, weights, class_tokens="separate")
    for name in ("encoder.model.cls_token", "encoder.model.pos_embed"):
        moved = (after[name] - before[name]).abs().amax(dim=(0, 2)) > 0
        assert moved[:2].tolist() == [scale == 0, scale == 1], name


def test_joint_class_tokens_learn_from_every_scale(run):
    before, after = one_step(run, (1.0, 0.0), class_tokens="joint")
    moved = (after["encoder.model.cls_token"] - before["encoder.model.cls_token"]).abs().amax(dim=2)
    assert (moved > 0).all()


def test_the_gradient_is_clipped(run):
    model = randomise(tiny_model())
    before = merged_state_dict(model)
    recipe = {"optimizer": "sgd", "lr": 1.0, "momentum": 0.0, "warmup_steps": 0, "max_steps": 1}
    result, _, _ = run(model, gradient_clip=0.01, **recipe)
    step = torch.cat([(result.weights[name] - before[name]).flatten() for name in before])
    assert float(step.norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_seed_determines_every_bit(run):
    def weights(seed):
        model = tiny_model(seed=seed, dropout=0.1)
        return run(model, seed=seed, max_steps=4)[0].weights

    first = weights(3)
    assert same_state(first, weights(3))
    assert not same_state(first, weights(5))


def test_balanced_class_weights_follow_the_training_images(images, tmp_path):
    """With 4, 4 and 1 images of 3 classes the weights are 9 / (3 * 4), the same, and 9 / (3 * 1)."""
    records = images.of_split("train")
    records = [record for record in records if record.label < 2] + [records[-1]]
    rows = {}
    for class_weights in ("none", "balanced"):
        model = tiny_model()
        with torch.no_grad():
            model.encoder.model.head.weight.zero_()
            model.encoder.model.head.bias.copy_(torch.tensor([0.0, 0.0, 5.0]))
        log, accelerator = metrics_log(tmp_path)
        config = TrainingConfig(class_weights=class_weights, epochs=1, gradient_accumulation_steps=2)
        TrainLoop(model, tiny_loader(records, batch_size=9), None, config, accelerator, log).run()
        rows[class_weights] = json.loads(log.path.read_text().splitlines()[-1])["loss_scales"]
    wrong = math.log(math.exp(5) + 2)
    assert rows["none"] == pytest.approx([(8 * wrong + wrong - 5) / 9] * 2, rel=1e-4)
    assert rows["balanced"] == pytest.approx([(8 * 0.75 * wrong + 3 * (wrong - 5)) / 9] * 2, rel=1e-4)


def test_training_stops_after_max_steps(run):
    told = []
    result, _, rows = run(tiny_model(), epochs=7, max_steps=5, progress=lambda *news: told.append(news))
    assert result.steps == 5
    assert [(row["step"], row["epoch"]) for row in rows] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]
    assert told[-1] == (5, 5, f"epoch 2, loss {(rows[3]['loss'] + rows[4]['loss']) / 2:.3f}")
    rates = [row["lr"] / 0.003 for row in rows]  # 2 steps up, then a cosine over the 3 that are left
    assert rates == pytest.approx([0.5, 1, 1, 0.75, 0.25])


def test_rows_are_logged_now_and_then_and_at_the_end(run, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 3)
    _, _, rows = run(tiny_model(), max_steps=7, epochs=9, validate_on="train")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [3, 6, 7]
    for row in rows:
        if row["kind"] == "train":
            assert row.keys() == {
                *("kind", "step", "epoch", "loss", "loss_scales", "lr", "images_per_second"),
            }
            assert row["loss"] == pytest.approx(sum(row["loss_scales"]))
            assert row["images_per_second"] > 0
        else:
            assert row.keys() == {
                *("kind", "epoch", "loss_scales", "loss_fused", "top1_scales", "top1_fused", "is_best"),
            }
            assert len(row["top1_scales"]) == 2


@pytest.fixture
def spoilt(monkeypatch):
    """Makes the loss of some steps something else, once the forward pass is done; steps from 1."""

    def spoil(steps, value=math.nan):
        losses_by_scale, counted = stepping.losses_by_scale, []

        def losses(*args, **options):
            counted.append(None)
            factor = value if len(counted) in steps else 1.0
            for loss in losses_by_scale(*args, **options):
                yield factor * loss

        monkeypatch.setattr(stepping, "losses_by_scale", losses)

    return spoil


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_skipped_and_counted(run, spoilt, value, caplog):
    spoilt({2}, value)
    states = []
    model = tiny_model()
    result, _, rows = run(model, max_steps=4, progress=lambda *_: states.append(merged_state_dict(model)))
    assert same_state(states[0], states[1])  # the second step left the weights alone
    assert not same_state(states[1], states[2])
    assert all(tensor.isfinite().all() for tensor in result.weights.values())
    assert (result.steps, result.num_skipped) == (4, 1)
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("step 2 was skipped: the loss is ")
    [row] = [row for row in rows if row["kind"] == "skipped"]
    assert row["step"] == 2
    assert len(row["images"]) == 4
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert [loss is None for loss in losses] == [False, True, False, False]


def test_a_gradient_that_is_not_finite_is_skipped_too(run):
    model, broken = tiny_model(), []

    def spoil(gradient):
        broken.append(None)
        return gradient * math.nan if len(broken) == 2 else gradient

    model.encoder.model.head.weight.register_hook(spoil)  # called once a look
    result, _, rows = run(model, max_steps=3)
    assert result.num_skipped == 1
    assert [row["kind"] for row in rows] == ["skipped", "train", "train", "train"]
    assert rows[1]["loss"] is not None
    assert all(tensor.isfinite().all() for tensor in result.weights.values())


def test_too_many_steps_in_a_row_end_the_run_and_name_everything(run, spoilt, images):
    spoilt({1, 3, 4, 5})
    with pytest.raises(TrainingError) as caught:
        run(tiny_model(), max_steps=9, max_skipped_steps=2, warmup_steps=0, epochs=9)
    message = str(caught.value)
    assert "not finite in 3 steps in a row" in message
    assert "at step 5 with learning rate 0.00" in message
    assert "lower training.lr" in message
    named = [record for record in images.of_split("train") if str(record.path) in message]
    assert len(named) == 4
    assert caught.value.exit_code == 1


def test_good_steps_between_skipped_ones_begin_the_count_again(run, spoilt):
    spoilt({1, 2, 4, 5, 7})
    assert run(tiny_model(), max_steps=9, max_skipped_steps=2, epochs=9)[0].num_skipped == 5


def test_a_run_that_ends_in_skipped_steps_is_no_success(run, spoilt):
    spoilt({3})
    with pytest.raises(TrainingError, match=r"in 1 step in a row.* at step 3 "):
        run(tiny_model(), max_steps=3)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 3},
        {"gradient_accumulation_steps": 99},
    ],
)
def test_parts_of_a_batch_give_the_gradients_of_the_whole(run, options):
    recipe = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "warmup_steps": 0, "max_steps": 2}
    whole, _, rows = run(randomise(tiny_model()), **recipe)
    parts, _, rows_of_parts = run(randomise(tiny_model()), **recipe, **options)
    assert not same_state(whole.weights, merged_state_dict(randomise(tiny_model())))
    for name, tensor in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], tensor, rtol=1e-4, atol=1e-6)
    assert rows_of_parts[1]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-5)


def test_the_average_is_judged_and_kept(run, monkeypatch):
    states, judged = [], []

    def told(model, *_):
        judged.append(merged_state_dict(model))
        return validation_of(1, 50.0)

    monkeypatch.setattr(loop, "validate", told)
    model = tiny_model()
    result, _, _ = run(
        model,
        max_steps=3,
        ema_decay=0.5,
        validate_on="train",
        progress=lambda *_: states.append(merged_state_dict(model)),
    )
    name = "encoder.model.head.weight"
    ema = states[0][name]
    for number, state in enumerate(states[1:], start=1):
        decay = min(0.5, (1 + number) / (10 + number))
        ema = decay * ema + (1 - decay) * state[name]
    torch.testing.assert_close(result.weights[name], ema)
    assert same_state(result.weights, judged[0])
    assert not same_state(result.weights, states[-1])


def test_norms_beside_the_head_are_trained_by_steps(run):
    model = tiny_model()
    before = merged_state_dict(model)
    after = run(model, max_steps=3, finetune="head", train_norms=True)[0].weights
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"encoder.model.head.weight", "encoder.model.head.bias", "encoder.model.norm.bias"} <= moved
    assert all("norm" in name or "head" in name for name in moved)


def test_lora_gives_plain_weights_that_moved(run):
    pytest.importorskip("peft")
    model = tiny_model()
    before = merged_state_dict(model)
    after = run(model, max_steps=4, finetune="lora", lora_rank=2, lr=0.01)[0].weights
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "encoder.model.blocks.0.attn.qkv.weight" in moved
    assert "encoder.model.blocks.0.mlp.fc1.weight" not in moved
    assert "encoder.model.patch_embed.proj.weight" not in moved


@pytest.mark.parametrize(
    "options",
    [
        *({"mixup": 0.4}, {"cutmix": 1.0}, {"contrastive": 1.0}, {"label_smoothing": 0.1}),
        *({"layer_decay": 0.5}, {"freeze_blocks": 1}, {"min_lr_factor": 0.5}, {"warmup_epochs": 0.0}),
        {"fused_target": 0.5},
    ],
)
def test_every_option_of_the_recipe_is_used(run, options):
    plain = run(tiny_model(), max_steps=7)[0].weights
    assert not same_state(plain, run(tiny_model(), max_steps=7, **options)[0].weights)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.2, "drop_path": 0.2}, {"num_scales": 3}])
def test_gradient_checkpointing_changes_nothing_but_memory(run, options):
    def weights(checkpointing):
        model = tiny_model(seed=5, **options)
        model.encoder.set_grad_checkpointing(checkpointing)
        return run(model, max_steps=4)[0].weights

    plain, checkpointed = weights(False), weights(True)
    for name, tensor in plain.items():
        torch.testing.assert_close(checkpointed[name], tensor, rtol=1e-5, atol=1e-7)


def test_gradient_checkpointing_keeps_less():
    model = tiny_model(backbone_options=TINY | {"depth": 8}).train()
    images = torch.randn(16, 3, 32, 32)

    def step():
        losses = losses_by_scale(ScaleForward(model), model, images, None, torch.zeros(16, dtype=torch.int64))
        for loss in losses:
            loss.backward()

    def peak(checkpointing):
        model.encoder.set_grad_checkpointing(checkpointing)
        step()
        return peak_bytes(step, torch.device("cpu"))

    assert peak(True) < peak(False) / 2


def test_a_copied_state_does_not_follow_the_model():
    model = tiny_model()
    state = merged_state_dict(model)
    before = state["encoder.model.cls_token"].clone()
    with torch.no_grad():
        model.encoder.model.cls_token.add_(1)
    assert torch.equal(state["encoder.model.cls_token"], before)
