from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.errors import UsageError
from ramstrans.evaluation import early_exit as module
from ramstrans.evaluation.early_exit import (
    NEVER,
    choose_exit,
    exit_curve,
    exit_report,
    exit_warnings,
    exited_early,
    num_scales_used,
    running_means,
    time_exit,
)
from ramstrans.evaluation.metrics import classification_metrics
from ramstrans.saved.metadata import EarlyExit
from ramstrans.saved.model import load_metadata, load_state, save_model
from ramstrans.training.run import prepare, train
from tests.evaluation.builders import make_predictions
from tests.tiny import tiny_run


def two_scales(first, second, labels):
    """Predictions of two classes: the probability of class 1 at each scale."""
    probabilities = np.array([first, second])
    predictions = make_predictions(num_images=len(labels), num_classes=2)
    return predictions._replace(
        probabilities=np.stack([1 - probabilities, probabilities], axis=2), labels=np.array(labels)
    )


# Confident and right twice, less confident and wrong at first, unsure and wrong at first.
HAND = two_scales([0.95, 0.1, 0.2, 0.4], [0.9, 0.2, 0.95, 0.9], [1, 0, 1, 1])


def test_the_curve_by_hand():
    curve = exit_curve(HAND)
    assert curve.confidences == pytest.approx([0.6, 0.8, 0.9, 0.95, np.inf])
    assert curve.mean_scales_used == pytest.approx([1, 1.25, 1.5, 1.75, 2])
    # at 0.6 both wrong ones exit; from 0.8 on the last one is corrected; above, the third too
    assert curve.top1 == pytest.approx([50, 75, 100, 100, 100])
    assert curve.changed == pytest.approx([50, 25, 0, 0, 0])


def test_the_choice_by_hand():
    choice = choose_exit(HAND)
    assert choice.confidence == pytest.approx(0.9)
    assert (choice.chosen_on, choice.num_images) == ("test", 4)
    assert choice.top1_lost == 0
    assert choice.mean_scales_used == 1.5
    assert choose_exit(HAND, max_accuracy_drop=25).confidence == pytest.approx(0.8)
    assert choose_exit(HAND, max_accuracy_drop=24).confidence == pytest.approx(0.9)
    assert choose_exit(HAND, max_accuracy_drop=100).mean_scales_used == 1


def test_a_lucky_confidence_below_a_costly_one_is_not_chosen():
    # all exit at 0.6: two of three are right; at 0.7 image 0 passes scale 2, which spoils it
    predictions = two_scales([0.6, 0.3, 0.9], [0.1, 0.9, 0.9], [1, 1, 1])
    curve = exit_curve(predictions)
    assert curve.confidences == pytest.approx([0.6, 0.7, 0.9, np.inf])
    assert curve.top1 == pytest.approx([200 / 3, 100 / 3, 200 / 3, 200 / 3])
    assert choose_exit(predictions).confidence == pytest.approx(0.9)


def test_a_gain_does_not_offset_a_loss():
    # exiting at once spares image 0 the scale that spoils it, and image 1 the one that corrects it
    predictions = two_scales([0.8, 0.2], [0.1, 0.95], [1, 1])
    curve = exit_curve(predictions)
    assert curve.top1 == pytest.approx([50, 50])
    assert curve.changed == pytest.approx([100, 0])
    assert choose_exit(predictions).confidence == NEVER


def test_if_every_exit_costs_none_is_taken():
    choice = choose_exit(two_scales([0.4, 0.45], [0.9, 0.8], [1, 1]))
    assert choice.confidence == NEVER
    assert (choice.mean_scales_used, choice.top1_lost) == (2, 0)


def test_a_confidence_chosen_on_few_images_needs_a_margin():
    choice = EarlyExit(0.9, "val", 12, 0.0, 1.5)
    [warning] = exit_warnings(choice)
    assert "none of the 12 images" in warning
    assert "up to 24 % of other predictions" in warning  # z^2 / (n + z^2), with z = 1.96
    assert "--early_exit 0.950" in warning  # halfway to 1
    assert exit_warnings(replace(choice, num_images=50)) == []
    assert exit_warnings(replace(choice, confidence=NEVER)) == []


def test_a_single_scale_cannot_be_skipped():
    with pytest.raises(UsageError):
        choose_exit(make_predictions(num_scales=1))


@given(seed=st.integers(0, 1000), num_scales=st.integers(2, 4), confidence=st.floats(0.01, 1.1))
def test_images_exit_at_the_first_confident_scale(seed, num_scales, confidence):
    means = running_means(make_predictions(num_scales, num_images=7, num_classes=3, seed=seed).probabilities)
    for image, used in enumerate(num_scales_used(means, confidence)):
        confident = [means[scale, image].max() >= confidence for scale in range(num_scales)]
        assert not any(confident[: used - 1])
        assert confident[used - 1] or used == num_scales
        assert exited_early(means, confidence)[image].tolist() == means[used - 1, image].tolist()


@given(seed=st.integers(0, 1000), num_scales=st.integers(2, 4))
def test_a_higher_confidence_uses_more_scales_up_to_all(seed, num_scales):
    predictions = make_predictions(num_scales, num_images=13, num_classes=3, seed=seed)
    curve = exit_curve(predictions)
    assert (np.diff(curve.mean_scales_used) >= 0).all()
    assert curve.mean_scales_used[0] == 1 or num_scales > 2
    assert curve.mean_scales_used[-1] == num_scales
    assert curve.top1[-1] == pytest.approx(classification_metrics(predictions.fused, predictions.labels).top1)


def test_many_confidences_are_subsampled(monkeypatch):
    monkeypatch.setattr(module, "MAX_POINTS", 5)
    curve = exit_curve(make_predictions(num_images=97))
    assert len(curve.confidences) == 6
    assert curve.mean_scales_used[0] == 1


def test_report_by_hand():
    report = exit_report(HAND, 0.85, {"full": 3.0, "early": 2.0})
    assert report["top1"] == 100
    assert (report["top1_lost"], report["changed"]) == (0, 0)
    assert report["mean_scales_used"] == 1.5
    assert report["exited_early"] == 50
    assert report["speedup"] == 1.5
    assert report["seconds"] == {"full": 3.0, "early": 2.0}
    assert report["curve"]["mean_scales_used"].tolist() == [1, 1.25, 1.5, 1.75, 2]
    costly = exit_report(HAND, 0.5, {"full": 3.0, "early": 2.0})
    assert (costly["top1_lost"], costly["changed"]) == (50, 50)


def test_both_ways_are_timed_alternately_on_every_batch(monkeypatch):
    """A clock that advances by 5 for all scales, by 2 for early exit."""
    now, calls = [0.0], []

    def tick(name, seconds):
        def way(*_args, **_options):
            calls.append(name)
            now[0] += seconds

        return way

    class Model:
        device = torch.device("cpu")

        def eval(self):
            calls.append("eval")

        def normalize(self, images, high_res):
            return images, high_res

        __call__ = staticmethod(tick("full", 5.0))

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "exit_early", tick("early", 2.0))
    times = time_exit(
        Model(),
        [SimpleNamespace(images=None, high_res=None, boxes=None)] * 3,
        confidence=0.5,
        precision="fp32",
    )
    assert times == {"full": 15.0, "early": 6.0}
    assert calls == ["eval", "early", "full", "full", "early", "early", "full"]


@pytest.fixture
def model_folder(trained, tmp_path):
    folder = tmp_path / "model"
    save_model(folder, load_state(trained.folder), load_metadata(trained.folder))
    return folder


def test_a_choice_on_few_images_is_reported_with_a_margin(model_folder, evaluate, monkeypatch):
    choice = EarlyExit(0.9, "val", 3, 0.0, 1.5)
    monkeypatch.setattr("ramstrans.evaluation.evaluate.choose_exit", lambda *_, **__: choice)
    assert (
        "leave a margin, e.g. --early_exit 0.950" in evaluate(model_folder, early_exit="auto")["warnings"][0]
    )


def test_early_exit_is_chosen_on_validation_and_saved(model_folder, evaluate, tmp_path):
    report = evaluate(model_folder, early_exit="auto")
    choice = load_metadata(model_folder).early_exit
    assert (choice.chosen_on, choice.num_images) == ("val", 3)
    assert report["early_exit_choice"] == asdict(choice)
    early = report["early_exit"]
    assert early["confidence"] == choice.confidence
    assert 1 <= early["mean_scales_used"] <= 2
    assert early["top1"] == pytest.approx(report["fused"]["top1"] - early["top1_lost"])
    assert early["speedup"] > 0
    page = (tmp_path / "out" / "report.md").read_text()
    assert "chosen on 3 images (val)" in page
    assert "early_exit.png" in page
    assert (tmp_path / "out" / "early_exit.png").is_file()
    evaluate(model_folder)
    assert not (tmp_path / "out" / "early_exit.png").exists()  # it is renewed, and not added to


def test_early_exit_at_a_given_confidence_is_evaluated_and_not_saved(model_folder, evaluate, tmp_path):
    report = evaluate(model_folder, early_exit=1e-6)
    assert load_metadata(model_folder).early_exit is None
    assert "early_exit_choice" not in report
    assert report["early_exit"]["mean_scales_used"] == 1
    assert report["early_exit"]["exited_early"] == 100
    assert report["early_exit"]["top1"] == report["scales"][0]["top1"]
    assert "The confidence was given." in (tmp_path / "out" / "report.md").read_text()


def test_early_exit_that_is_not_possible(birds, evaluate, trained, tmp_path):
    with pytest.raises(UsageError, match="confidence of early exit is 0"):
        evaluate(early_exit=0.0)
    with pytest.raises(UsageError, match=r"confidence of early exit is 90\.0, which no image reaches"):
        evaluate(early_exit=90.0)
    whole = tiny_run(birds, data={"val_fraction": 0.0}, training={"max_steps": 1})
    train(prepare(whole), tmp_path / "whole")
    with pytest.raises(UsageError, match=r"none were held out; train with --data\.val_fraction above 0"):
        evaluate(tmp_path / "whole", early_exit="auto")
    train(prepare(tiny_run(birds, model={"num_scales": 1}, training={"max_steps": 1})), tmp_path / "plain")
    with pytest.raises(UsageError, match="--early_exit"):
        evaluate(tmp_path / "plain", early_exit=0.5)
    assert not (tmp_path / "out").exists()
