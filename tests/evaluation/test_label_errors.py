import dataclasses
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramstrans.data.config import DataConfig
from ramstrans.data.datasets.cub import read_cub
from ramstrans.errors import DataError
from ramstrans.evaluation import label_errors as module
from ramstrans.evaluation.label_errors import (
    LabelIssue,
    LabelIssues,
    as_in_training,
    class_thresholds,
    confident_classes,
    find_label_issues,
    issues,
    to_finding,
)
from ramstrans.saved.model import load_metadata, load_state, save_model
from tests.evaluation.builders import make_predictions, names

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


def of(probabilities, labels):
    predictions = make_predictions(num_images=len(labels), num_classes=probabilities.shape[1])
    return predictions._replace(probabilities=probabilities[None].astype(np.float32), labels=labels)


def test_by_hand():
    assert class_thresholds(HAND, LABELS) == pytest.approx([0.5, 0.5, 0.4])
    assert confident_classes(HAND, LABELS).tolist() == [0, 1, 1, -1, 0]
    found = issues(of(HAND, LABELS), ["crow", "wren", "tit"])
    assert [(doubt.path.name, doubt.given, doubt.suspected) for doubt in found] == [
        ("1.jpg", "crow", "wren"),
        ("4.jpg", "tit", "crow"),
    ]
    assert [doubt.margin for doubt in found] == pytest.approx([0.5, 0.15])
    assert (found[0].confidence, found[0].given_confidence) == pytest.approx((0.7, 0.2))
    assert not any(doubt.is_seen for doubt in found)


def test_a_class_that_no_image_is_given_is_never_suspected():
    probabilities = np.array([[0.1, 0.2, 0.7], [0.3, 0.5, 0.2]])
    assert class_thresholds(probabilities, np.array([0, 1])).tolist() == [0.1, 0.5, np.inf]
    assert confident_classes(probabilities, np.array([0, 1])).tolist() == [0, 1]


def test_a_hard_class_is_not_doubted_for_being_hard():
    sure = np.tile([0.9, 0.1], (5, 1))
    hard = np.tile([0.6, 0.4], (5, 1))
    labels = np.repeat([0, 1], 5)
    probabilities = np.concatenate([sure, hard])
    assert (probabilities.argmax(axis=1) == 0).all()
    assert not issues(of(probabilities, labels), ["crow", "wren"])


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), num_images=st.integers(1, 31), num_classes=st.integers(1, 7))
def test_confident_classes_are_those_of_the_slow_twin(seed, num_images, num_classes):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(num_classes), num_images).astype(np.float32)
    labels = rng.integers(0, num_classes, num_images)
    confident = confident_classes(probabilities, labels)
    assert confident.tolist() == slow_confident_classes(probabilities, labels)
    assert (confident[probabilities.argmax(axis=1) == labels] >= -1).all()


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
    predictions = of(probabilities, labels)
    found = issues(predictions, names(predictions))
    assert {int(doubt.path.stem) for doubt in found} == set(swapped.tolist())
    assert all(doubt.suspected == f"bird {true[int(doubt.path.stem)]}" for doubt in found)
    margins = [doubt.margin for doubt in found]
    assert margins == sorted(margins, reverse=True)


def test_a_finding_says_what_and_that_the_model_saw_it():
    doubt = LabelIssue("a.jpg", "crow", "wren", 0.934, 0.021, is_seen=False)
    finding = to_finding(doubt)
    assert (finding.kind, finding.paths, finding.severity) == ("suspected label", ("a.jpg",), "note")
    assert finding.detail == "given 'crow' (2%), suspected 'wren' (93%)"
    assert to_finding(doubt._replace(is_seen=True)).detail.endswith(
        "; the model was trained on it, which makes this weaker"
    )


def test_of_a_model_that_saw_none_that_is_all():
    assert str(LabelIssues([], 7, 0)) == "the model doubts 0 of 7 labels that it has not seen"


def test_the_held_out_images_are_drawn_as_in_training():
    config = DataConfig("folder", "here", val_fraction=0.5, on_unreadable="skip", max_pixels=99)
    trained_on = {"name": "cub", "root": "there", "val_fraction": 0.25, "split_seed": 7, "max_pixels": 5}
    assert as_in_training(config, trained_on) == dataclasses.replace(
        config, val_fraction=0.25, split_seed=7, on_unreadable="stop"
    )
    assert as_in_training(config, {}).val_fraction == 0.5


@pytest.fixture
def predicted(monkeypatch):
    """What was predicted, and predictions that doubt the first of each batch of images: class 1 for sure."""
    calls, predict_split = [], module.predict_split

    def doubting(model, loader, *args, **options):
        predictions, sizes = predict_split(model, loader, *args, **options)
        calls.append(predictions.records)
        probabilities = np.full_like(predictions.probabilities, 0.05)
        probabilities[:, np.arange(len(predictions.labels)), predictions.labels] = 0.9
        first = int(np.flatnonzero(predictions.labels == 0)[0])
        probabilities[:, first] = [0.02, 0.96, 0.02]
        return predictions._replace(probabilities=probabilities), sizes

    monkeypatch.setattr(module, "predict_split", doubting)
    return calls


def test_a_run_doubts_what_it_saw_and_what_it_did_not(trained, birds, predicted):
    config = DataConfig("cub", birds, val_fraction=0.5)
    doubts = find_label_issues(trained.folder, config, batch_size=4, device="cpu")
    assert (doubts.num_unseen, doubts.num_seen) == (9, 9)
    assert str(doubts) == (
        "the model doubts 1 of 9 labels that it has not seen, "
        "and 1 of 9 that it was trained on and knows by heart"
    )
    found = doubts.issues
    images = trained.prepared.images
    held_out = [record.path for split in ("val", "test") for record in images.of_split(split)]
    assert [len(records) for records in predicted] == [9, 9]
    assert {record.path for record in predicted[0]} == set(held_out)
    assert [doubt.is_seen for doubt in found] == [False, True]
    assert found[0].path in held_out
    assert found[1].path in {record.path for record in images.of_split("train")}
    assert {(doubt.given, doubt.suspected) for doubt in found} == {tuple(images.class_names[:2])}


def test_what_the_tiny_run_itself_doubts(trained, birds):
    found = find_label_issues(trained.folder, DataConfig("cub", birds), batch_size=4, device="cpu").issues
    labels = {record.path: record.label for record in read_cub(birds).records}
    class_names = read_cub(birds).class_names
    assert all(class_names[labels[doubt.path]] == doubt.given != doubt.suspected for doubt in found)
    seen = [doubt.is_seen for doubt in found]
    assert seen == sorted(seen)


def test_unreadable_files_are_left_out(trained, birds, tmp_path):
    root = tmp_path / "birds"
    shutil.copytree(birds, root)
    broken = {record.path for record in read_cub(root).records if record.split == "test"}
    for path in broken:
        path.write_bytes(b"")
    config = DataConfig("cub", root)
    with pytest.raises(DataError, match="empty file"):
        find_label_issues(trained.folder, config, device="cpu")
    doubts = find_label_issues(trained.folder, config, unreadable=broken, device="cpu")
    assert not {doubt.path for doubt in doubts.issues} & broken
    assert doubts.num_unseen + doubts.num_seen == len(read_cub(root).records) - len(broken)


def test_a_model_folder_without_a_run(trained, birds, tmp_path, predicted):
    metadata = dataclasses.replace(load_metadata(trained.folder), training={})
    save_model(tmp_path / "model", load_state(trained.folder), metadata)
    find_label_issues(tmp_path / "model", DataConfig("cub", birds, val_fraction=0.0), device="cpu")
    assert [len(records) for records in predicted] == [6, 12]


def test_other_classes_are_told(trained, colors):
    with pytest.raises(DataError, match="3 classes are not among the model's 3"):
        find_label_issues(trained.folder, DataConfig("folder", colors), device="cpu")
