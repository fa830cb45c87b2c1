import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ramstrans.data.records import Record
from ramstrans.evaluation.early_exit import exits_at
from ramstrans.evaluation.ranking import top_classes
from ramstrans.evaluation.report.predictions import write_predictions
from tests.evaluation.builders import make_predictions, names

SIDES = ("x0", "y0", "x1", "y1", "has_region")


def written(predictions, tmp_path, class_names=None):
    path = tmp_path / "new" / "predictions.csv"
    write_predictions(predictions, class_names or names(predictions), path)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_early_exit_has_its_own_answer(tmp_path):
    """The first image is sure at once, the second goes on."""
    predictions = make_predictions(num_images=2, num_classes=2)._replace(
        probabilities=np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.0, 1.0], [0.1, 0.9]]], np.float32)
    )
    write_predictions(predictions, ["crow", "owl"], tmp_path / "p.csv", exits_at(predictions, 0.8))
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["early_exit_label"].tolist() == ["crow", "owl"]
    assert table["early_exit_scales"].tolist() == [1, 2]
    assert table["predicted"].tolist() == ["owl", "owl"]
    assert "early_exit_label" not in written(predictions, tmp_path)[0]


def test_a_row_by_hand(tmp_path):
    predictions = make_predictions(num_images=1, num_classes=3)
    predictions = predictions._replace(
        probabilities=np.array([[[0.5, 0.3, 0.2]], [[0.1, 0.3, 0.6]]], np.float32),
        labels=np.array([1]),
        boxes=np.array([[[1.25, 2, 3, 4]], [[5, 6, 7, 8]]], np.float32),
        has_region=np.array([[False], [True]]),
        records=(Record(Path("birds/b\udce9d, 1.jpg"), 1, "test"),),
    )
    (row,) = written(predictions, tmp_path, ["crow", "owl", "wr\nen"])
    assert list(row.items()) == [
        ("path", r"birds/b\udce9d, 1.jpg"),
        ("true", "owl"),
        ("predicted", "wr\nen"),
        ("correct", "False"),
        ("probability_of_true", "0.3"),
        *(("label_1", "wr\nen"), ("label_2", "crow"), ("label_3", "owl")),
        *(("probability_1", "0.4"), ("probability_2", "0.3"), ("probability_3", "0.3")),
        *(("scale_1_label", "crow"), ("scale_1_probability", "0.5")),
        *(("scale_1_x0", "1.25"), ("scale_1_y0", "2.0"), ("scale_1_x1", "3.0"), ("scale_1_y1", "4.0")),
        ("scale_1_has_region", "False"),
        *(("scale_2_label", "wr\nen"), ("scale_2_probability", "0.6")),
    ]


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_rows_are_the_predictions_in_order(num_scales, tmp_path):
    predictions = make_predictions(num_scales=num_scales, num_images=13, num_classes=7)
    rows = written(predictions, tmp_path)
    table = pd.read_csv(tmp_path / "new" / "predictions.csv")
    assert [row["path"] for row in rows] == [str(record.path) for record in predictions.records]
    answers = predictions.fused.argmax(axis=1)
    assert table["predicted"].tolist() == [f"bird {label}" for label in answers]
    assert table["correct"].tolist() == (answers == predictions.labels).tolist()
    assert table["label_1"].tolist() == table["predicted"].tolist()
    assert "label_5" in table
    assert "label_6" not in table
    for scale in range(1, num_scales + 1):
        best = predictions.probabilities[scale - 1].argmax(axis=1)
        assert table[f"scale_{scale}_label"].tolist() == [f"bird {label}" for label in best]
        assert all((f"scale_{scale}_{side}" in table) == (scale < num_scales) for side in SIDES)
        if scale < num_scales:
            boxes = table[[f"scale_{scale}_{side}" for side in SIDES[:4]]].to_numpy()
            np.testing.assert_allclose(boxes, predictions.boxes[scale - 1], atol=0.01)


@given(
    arrays(np.float32, st.integers(1, 9), elements=st.sampled_from([0, 0.25, 0.5, np.nan])), st.integers(1, 9)
)
def test_top_classes_are_those_of_a_stable_sort(probabilities, top_k):
    expected = np.argsort(-probabilities, kind="stable")[:top_k]
    assert top_classes(probabilities, top_k).tolist() == expected.tolist()
