import numpy as np
import pytest

from ramstrans.errors import TrainingError
from ramstrans.evaluation.report.curves import plot_curves, plot_exit
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


def test_curves_leave_gaps_for_unknown_numbers_and_skip_other_kinds(tmp_path):
    rows = [{"kind": "start"}, train_row(1, None), train_row(2, 1.0), {"kind": "train", "step": 3}]
    plot_curves([*rows, VALIDATION | {"top1_scales": None}], tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 0


def test_curves_of_no_step_are_an_error(tmp_path):
    with pytest.raises(TrainingError, match="at least one training step"):
        plot_curves([VALIDATION], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_early_exit_is_drawn_with_its_confidence(tmp_path):
    predictions = make_predictions()
    for name, confidence in (("low", 0.2), ("high", 0.9)):
        plot_exit(predictions, confidence, tmp_path / f"{name}.png")
    assert not np.array_equal(pixels(tmp_path / "low.png"), pixels(tmp_path / "high.png"))
