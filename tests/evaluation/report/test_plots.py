import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.evaluation.early_exit import exit_report
from ramstrans.evaluation.report.plots import (
    confusion_counts,
    most_confused_classes,
    plot_confusion,
    plot_curves,
    plot_exit,
)
from tests.evaluation.builders import make_predictions, pixels


def train_row(step, loss):
    scales = None if loss is None else [loss / 2, loss / 2]
    return {
        "kind": "train",
        "step": step,
        "epoch": 1,
        "loss": loss,
        "loss_scales": scales,
        "lr": 0.01,
        "images_per_second": 7.0,
    }


VALIDATION = {"kind": "validation", "epoch": 1, "top1_scales": [53.0, 59.0], "top1_fused": 61.0}
ROWS = [train_row(1, 3.0), train_row(2, 2.0)]


def test_curves_change_with_the_rows(tmp_path):
    drawn = []
    for index, rows in enumerate(
        [ROWS, [*ROWS, VALIDATION], [train_row(1, 3.0), train_row(2, 1.0)], ROWS[:1]]
    ):
        path = tmp_path / f"{index}.png"
        plot_curves(rows, path)
        drawn.append(pixels(path))
    assert all(not np.array_equal(drawn[0], other) for other in drawn[1:])


def test_validation_loss_is_drawn(tmp_path):
    for name, loss in (("without", None), ("low", 1.0), ("high", 2.0)):
        rows = [VALIDATION | {"loss_scales": loss and [loss, loss + 1], "loss_fused": loss}]
        plot_curves([*ROWS, *rows, rows[0] | {"epoch": 2, "loss_fused": 0.5}], tmp_path / f"{name}.png")
    drawn = [pixels(tmp_path / f"{name}.png") for name in ("without", "low", "high")]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_curves_leave_gaps_for_unknown_numbers_and_skip_other_kinds(tmp_path):
    rows = [{"kind": "start"}, train_row(1, None), train_row(2, 1.0), {"kind": "train", "step": 3}]
    plot_curves([*rows, VALIDATION | {"top1_scales": None}], tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 0


def test_early_exit_is_drawn_with_its_confidence(tmp_path):
    predictions = make_predictions()
    for name, confidence in (("low", 0.2), ("high", 0.9)):
        plot_exit(exit_report(predictions, confidence, {"full": 3.0, "early": 2.0}), tmp_path / f"{name}.png")
    assert not np.array_equal(pixels(tmp_path / "low.png"), pixels(tmp_path / "high.png"))


def test_confusion_changes_with_the_answers(tmp_path):
    drawn = []
    for index, predicted in enumerate([[0, 1, 2, 2], [0, 1, 1, 2]]):
        path = tmp_path / f"{index}.png"
        plot_confusion(np.eye(3)[predicted], np.array([0, 1, 2, 1]), ["$a", "鳥 $x^$", "wren" * 17], path)
        drawn.append(pixels(path))
    assert drawn[0].shape != drawn[1].shape or not np.array_equal(*drawn)


def test_confusion_of_one_right_image_is_drawn(tmp_path):
    plot_confusion(np.eye(5)[[3]], np.array([3]), list("abcde"), tmp_path / "confusion.png")
    assert pixels(tmp_path / "confusion.png").std() > 0


def test_most_confused_classes_by_hand():
    # 4 is taken for 1 twice, 3 for 0 once; 2 is always right.
    answers, labels = np.eye(5)[[1, 1, 0, 2]], np.array([4, 4, 3, 2])
    assert most_confused_classes(answers, labels, 2) == [1, 4]
    assert most_confused_classes(answers, labels, 3) == [1, 3, 4]
    assert most_confused_classes(answers, labels, 12) == [0, 1, 2, 3, 4]


@given(st.integers(0, 2**31), st.integers(1, 29), st.integers(2, 7))
def test_confusion_counts_agree_with_a_slow_count(seed, num_images, num_classes):
    rng = np.random.default_rng(seed)
    predicted, labels = rng.integers(0, num_classes, (2, num_images))
    shown = most_confused_classes(np.eye(num_classes)[predicted], labels, 3)
    counts = confusion_counts(np.eye(num_classes)[predicted], labels, shown)
    for row, true in enumerate(shown):
        answers = predicted[labels == true].tolist()
        assert counts[row, :-1].tolist() == [answers.count(label) for label in shown]
        assert counts[row].sum() == len(answers)
