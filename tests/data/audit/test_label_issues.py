from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramstrans.data.audit.label_issues import (
    class_thresholds,
    confident_classes,
    label_issues,
)

# Three classes, two images given as each of the first two, one as the third.
HAND = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.2, 0.7, 0.1],  # given as 0, confidently 1
        [0.1, 0.6, 0.3],
        [0.45, 0.4, 0.15],  # given as 1: 0.45 is short of 0's 0.5, and 0.4 of 1's
        [0.55, 0.05, 0.4],  # given as 2: above 0's 0.5 and at 2's own 0.4; 0 is likelier
    ]
)
LABELS = np.array([0, 0, 1, 1, 2])


def slow_confident_classes(probabilities, labels):
    """Image by image, in words of the paper."""
    num_images, num_classes = probabilities.shape
    answers = []
    for i in range(num_images):
        best = -1
        for j in range(num_classes):
            members = [probabilities[k, j] for k in range(num_images) if labels[k] == j]
            is_above = members and probabilities[i, j] >= np.mean(np.array(members, np.float64))
            if is_above and (best < 0 or probabilities[i, j] > probabilities[i, best]):
                best = j
        answers.append(best)
    return answers


def issues_of(probabilities, labels, class_names):
    paths = [Path(f"{index}.jpg") for index in range(len(labels))]
    return label_issues(probabilities.astype(np.float32), labels, paths, class_names)


def test_by_hand():
    assert class_thresholds(HAND, LABELS) == pytest.approx([0.5, 0.5, 0.4])
    assert confident_classes(HAND, LABELS).tolist() == [0, 1, 1, -1, 0]
    found = issues_of(HAND, LABELS, ["crow", "wren", "tit"])
    assert [(issue.kind, issue.severity, issue.paths[0].name, issue.detail) for issue in found] == [
        ("label issue", "warning", "1.jpg", "given 'crow' (20%), suggested 'wren' (70%)"),
        ("label issue", "warning", "4.jpg", "given 'tit' (40%), suggested 'crow' (55%)"),
    ]
    seen = label_issues(HAND, LABELS, [Path("a.jpg")] * 5, ["crow", "wren", "tit"], is_seen=True)
    assert seen[0].detail == f"{found[0].detail}; the model was trained on it, which makes this weaker"


def test_a_class_without_images_is_never_suggested():
    probabilities = np.array([[0.1, 0.2, 0.7], [0.3, 0.5, 0.2]])
    assert class_thresholds(probabilities, np.array([0, 1])).tolist() == [0.1, 0.5, np.inf]
    assert confident_classes(probabilities, np.array([0, 1])).tolist() == [0, 1]


def test_a_hard_class_is_not_reported_for_being_hard():
    sure = np.tile([0.9, 0.1], (5, 1))
    hard = np.tile([0.6, 0.4], (5, 1))
    labels = np.repeat([0, 1], 5)
    probabilities = np.concatenate([sure, hard])
    assert (probabilities.argmax(axis=1) == 0).all()
    assert not issues_of(probabilities, labels, ["crow", "wren"])


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), num_images=st.integers(1, 31), num_classes=st.integers(1, 7))
def test_confident_classes_are_those_of_the_slow_twin(seed, num_images, num_classes):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(num_classes), num_images).astype(np.float32)
    labels = rng.integers(0, num_classes, num_images)
    confident = confident_classes(probabilities, labels)
    assert confident.tolist() == slow_confident_classes(probabilities, labels)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_swapped_labels_of_a_good_model_are_found(seed):
    rng = np.random.default_rng(seed)
    true = np.arange(97) % 5
    confidence = np.array([0.9, 0.7, 0.8, 0.75, 0.6])[true, None]  # some classes are harder
    probabilities = confidence * np.eye(5)[true] + (1 - confidence) / 4 * (1 - np.eye(5)[true])
    labels = true.copy()
    swapped = rng.choice(97, 7, replace=False)
    labels[swapped] = (labels[swapped] + rng.integers(1, 5, 7)) % 5
    found = issues_of(probabilities, labels, [f"bird {label}" for label in range(5)])
    assert {int(issue.paths[0].stem) for issue in found} == set(swapped.tolist())
    indices = [int(issue.paths[0].stem) for issue in found]
    assert all(f"suggested 'bird {true[i]}'" in one.detail for i, one in zip(indices, found, strict=True))
    margins = [probabilities[index, true[index]] - probabilities[index, labels[index]] for index in indices]
    assert margins == pytest.approx(sorted(margins, reverse=True))
