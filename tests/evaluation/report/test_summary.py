import numpy as np
import pytest

from ramstrans.evaluation.report.build import build_report
from ramstrans.evaluation.report.summary import cautions, summary, tiles
from tests.evaluation.builders import make_predictions, names


def predictions_of(first, second, labels, num_classes=3):
    """(N,) answers of two scales, the second one surer, so that it decides."""
    eye = np.eye(num_classes, dtype=np.float32)
    probabilities = np.stack([0.6 * eye[first] + 0.4 / num_classes, 0.8 * eye[second] + 0.2 / num_classes])
    found = make_predictions(num_images=len(labels), num_classes=num_classes)
    return found._replace(probabilities=probabilities, labels=np.array(labels))


def report_of(predictions, **extra):
    return build_report(predictions, names(predictions), extra=extra)


def test_the_sentences_by_hand():
    """Ten images of two classes: 6 right at once, 3 corrected, 1 spoiled; 9 of 10 right in the end."""
    labels = [0] * 5 + [1] * 5
    first = [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    second = [0, 0, 0, 1, 0, 1, 1, 1, 1, 1]
    tested, right, look, confidence = summary(report_of(predictions_of(first, second, labels)))
    assert tested == "Tested on 10 images of the test split, of 2 classes."
    assert right == (
        "The answer was right for 9 of them: 90.0 %. For other images of the same kind, 59.6 to 98.2 % is to "
        "be expected (95 % interval)."
    )
    assert look.startswith(
        "With a second look at a region, 3 answers became right and 1 became wrong: +20.0 points against the "
        "first look alone, "
    )
    assert "with other images (95 % interval); that may be chance. A region covers" in look
    # Where the scales agree (6 of 10) the mean is 0.8, else 0.4 + 0.1 + 0.2 / 3; the last looks are surer.
    assert confidence.startswith("Its highest probability is ")
    assert "more often: 90 %." in confidence


def test_many_corrected_answers_are_not_chance_and_many_spoiled_ones_speak_against_it():
    for first, second, words in (
        ([1] * 40, [0] * 40, "(95 % interval). A region"),
        ([0] * 40, [1] * 40, "; the first look alone is better here."),
    ):
        look = summary(report_of(predictions_of(first, second, [0] * 40)))[2]
        assert words in look
        assert "chance" not in look


def test_one_scale_has_no_second_look_and_more_than_two_are_counted():
    report = report_of(make_predictions(num_scales=1))
    assert "The model looks once, at the whole image." in summary(report)
    report = report_of(make_predictions(num_scales=3))
    assert "With 2 further looks at regions, " in summary(report)[2]


def test_among_the_first_five_only_where_there_are_more():
    assert "among the first five for" in summary(report_of(make_predictions(num_classes=6)))[1]
    assert "first five" not in summary(report_of(make_predictions(num_classes=5)))[1]


@pytest.mark.parametrize(
    ("sure", "words"),
    [(0.9, "less often: 50 %."), (0.51, "about as often: 50 %.")],
    ids=["too sure", "honest"],
)
def test_probabilities_that_mislead_are_named(sure, words):
    predictions = make_predictions(num_scales=1, num_images=4, num_classes=2)
    probabilities = np.array([[[sure, 1 - sure]] * 4], dtype=np.float32)
    report = report_of(predictions._replace(probabilities=probabilities, labels=np.array([0, 0, 1, 1])))
    text = summary(report)[-1]
    assert words in text
    assert ("do not read them as chances" in text) == (sure == 0.9)


def test_a_calibration_is_named_instead():
    values = {"calibration": {"fused": {"after": {"ece": 2.31}}}}
    assert (
        "After calibration it is off by 2.3 points on average"
        in summary(report_of(make_predictions(), **values))[-1]
    )


def test_what_to_be_careful_of():
    labels = [0] * 30 + [1] * 3
    found = cautions(report_of(predictions_of(labels, labels, labels), warnings=["one file is damaged"]))
    assert found[0].startswith("33 images are few")
    assert found[1].startswith("1 of 2 classes have fewer than 20 images here (median of all: 16.5).")
    assert found[2].startswith("The classes are unbalanced: from 3 to 30 images.")
    assert "with the same weight for each class it is 100.0 %." in found[2]
    assert found[3] == "One file is damaged."


def test_many_balanced_images_are_no_reason_to_be_careful():
    labels = [0] * 100 + [1] * 100 + [2] * 100
    assert cautions(report_of(predictions_of(labels, labels, labels))) == []


def test_the_most_frequent_mistake_is_named_if_it_is_no_exception():
    labels, answers = [0] * 3 + [1] * 3, [1, 1, 0, 1, 2, 0]
    assert "The most frequent mistake: bird 0 taken for bird 1, 2 of 3 images." in summary(
        report_of(predictions_of(answers, answers, labels))
    )


def test_the_figures_that_are_seen_first():
    labels = [0] * 5 + [1] * 5
    report = report_of(predictions_of([0] * 10, [0] * 5 + [1] * 4 + [2], labels, num_classes=6))
    assert [(tile.what, tile.value) for tile in tiles(report)] == [
        ("right answers", "90.0 %"),
        ("by looking again", "+40.0 points"),
        ("right among the first five", "100.0 %"),
        ("each class with the same weight", "90.0 %"),
    ]
    assert tiles(report)[0].note == "59.6 to 98.2 %"
    assert len(tiles(report_of(make_predictions(num_scales=1, num_classes=5)))) == 2
