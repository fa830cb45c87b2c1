"""Graphs beside each other on labelled photographs."""

import numpy as np
import pytest

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import Record
from ramstrans.errors import DataError
from ramstrans.export.judge import Answered, answer, pixel_batches
from tests.inference.builders import draw

PREPROCESSING = Preprocessing((16, 12), (16, 12), "squash")


@pytest.fixture
def records(tmp_path):
    paths = [draw(tmp_path / f"{n}.png", 20, 30, seed=n) for n in range(11)]
    paths[4].write_bytes(b"not an image")
    return [Record(path, number % 3, "val") for number, path in enumerate(paths)]


def constant(label):
    def run(pixels):
        probabilities = np.zeros((len(pixels), 3), np.float32)
        probabilities[:, label] = 1
        boxes = np.tile(np.float32([0, 0, label, 5]), (1, len(pixels), 1))
        return {"probabilities": probabilities, "boxes": boxes}

    return run


def test_batches_leave_out_what_cannot_be_read(records):
    batches = list(pixel_batches([record.path for record in records], PREPROCESSING, batch_size=4))
    assert [indices for _, indices in batches] == [[0, 1, 2, 3], [5, 6, 7, 8], [9, 10]]
    assert [pixels.shape for pixels, _ in batches] == [(4, 3, 16, 12), (4, 3, 16, 12), (2, 3, 16, 12)]


def test_all_graphs_answer_the_same_photographs(records):
    found, labels = answer({"one": constant(1), "two": constant(2)}, records, PREPROCESSING)
    assert labels.tolist() == [0, 1, 2, 0, 2, 0, 1, 2, 0, 1]  # without the fifth
    assert found["one"].classes.tolist() == [1] * 10
    assert found["one"].boxes.shape == (1, 10, 4)
    assert found["one"].boxes_like(found["one"]) == 1.0
    assert found["one"].boxes_like(found["two"]) == 0.0


def test_boxes_that_overlap_by_nearly_all_are_equal():
    boxes = np.tile(np.float32([0, 0, 224, 224]), (1, 4, 1))
    other = boxes.copy()
    other[0, 0, 2] = 213  # 213 / 224 = 0.951
    other[0, 1, 2] = 208  # a patch less: 13 / 14
    classes = np.zeros(4, int)
    assert Answered(classes, boxes).boxes_like(Answered(classes, other)) == 0.75
    assert Answered(classes, boxes).boxes_like(Answered(classes, np.concatenate([other, other]))) == 0.75
    empty = np.zeros((1, 4, 4), np.float32)
    assert Answered(classes, empty).boxes_like(Answered(classes, empty)) == 1.0
    assert Answered(classes, empty[:0]).boxes_like(Answered(classes, empty)) == 1.0
    assert Answered(classes, None).boxes_like(Answered(classes, None)) == 1.0


def test_no_photograph_that_can_be_read_is_an_error(records):
    with pytest.raises(DataError, match="none of the 1 labelled photographs can be read"):
        answer({"one": constant(1)}, records[4:5], PREPROCESSING)
