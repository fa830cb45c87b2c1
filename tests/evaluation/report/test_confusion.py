import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.evaluation.report.confusion import confusion_counts, most_confused_classes, plot_confusion
from tests.evaluation.builders import pixels


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
