"""What the page makes of a calibration is what `calibration.answers` does."""

import json

import numpy as np
import pytest

from ramstrans.calibration.answers import from_calibrated
from ramstrans.calibration.conformal import SET_METHODS
from ramstrans.calibration.fitted import Calibration, FusedRule, SetRule, UnknownRule, promises
from ramstrans.calibration.taxonomy import Taxonomy
from ramstrans.inference.prediction import calibrated_prediction, present_labels
from ramstrans.inference.writers import to_json

pytestmark = pytest.mark.slow  # a browser

NUM_CLASSES = 8
CLASSES = [f"class {label}" for label in range(NUM_CLASSES)]
FIELDS = ("unknown", "unknown_score", "set", "answer")

TAXONOMY = Taxonomy(
    ("species", "genus", "family"),
    (("A", "B", "C"), ("X", "Y")),
    ((0, 0, 1, 1, 2, 2, 2, -1), (0, 0, 0, 0, 1, 1, 1, -1)),
    0.6,
)

ASK = """async ([calibration, images, names]) => {
  const {calibratedFields, promises} = await import("/calibrated.js");
  const of = ([probabilities, score]) =>
    calibratedFields(calibration, Float64Array.from(probabilities), score, names);
  return [images.map(of), promises(calibration)];
}"""


@pytest.fixture(scope="module")
def images():
    """Probabilities (N, C), some sure, some not, some equal, and scores of the unknown."""
    rng = np.random.default_rng(2)
    drawn = [rng.dirichlet(np.full(NUM_CLASSES, alpha), 12) for alpha in (0.05, 0.3, 2.0)]
    equal = [[1 / NUM_CLASSES] * NUM_CLASSES, [0.5, 0.5, *[0] * (NUM_CLASSES - 2)]]
    probabilities = np.concatenate([*drawn, equal])
    return probabilities, rng.normal(0, 1, len(probabilities))


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("method", SET_METHODS)
def test_answers_are_those_of_python(page, images, method, per_class):
    limits = tuple(np.linspace(0.4, 0.99, NUM_CLASSES)) if per_class else (0.9,)
    sets = SetRule(method, 0.95, per_class, **dict.fromkeys(SET_METHODS, limits))
    unknown = UnknownRule("energy", (1, 2), 0.25, 0.05, "name", None, None)
    rules = (FusedRule(2.0, None, None), FusedRule(1.5, unknown, sets))
    calibration = Calibration("val", 60, "", (1.5, 1.2), rules, taxonomy=TAXONOMY)
    probabilities, scores = images
    given = from_calibrated(calibration, probabilities, scores)
    expected = [
        to_json(calibrated_prediction(given, row, CLASSES, 1, TAXONOMY)) for row in range(len(scores))
    ]
    asked = [[*pair] for pair in zip(probabilities.tolist(), scores.tolist(), strict=True)]
    found, promised = page.evaluate(ASK, [json.loads(calibration.to_json()), asked, CLASSES])
    assert found == [{name: one[name] for name in FIELDS} for one in expected]
    assert promised == promises(calibration) == {"coverage": 0.95, "reject": 0.05}
    assert len({len(one["set"]) for one in found}) > 2
    assert {one["answer"]["rank"] for one in found} == {"species", "genus", "family", "root"}
    assert {one["unknown"] for one in found} == {True, False}


LABELS = """async ([probabilities, thresholds, names]) => {
  const {toAnswer} = await import("/image.js");
  const data = Float32Array.from(probabilities);
  const outputs = {probabilities: {data}, scale_probabilities: {data}};
  const example = {offset: [0, 0], scale: [1, 1], width: 9, height: 9};
  return toAnswer(outputs, example, names, 2, {width: 9, height: 9, calibration: null, thresholds});
}"""


def test_labels_that_reach_their_thresholds(page):
    probabilities = [0.5, 0.75, 0.25, 0.75]
    for thresholds in ([0.5, 0.5, 0.5, 0.8], [0.9] * 4):
        found = page.evaluate(LABELS, [probabilities, thresholds, CLASSES[:4]])
        expected = present_labels(np.array(probabilities), CLASSES[:4], thresholds)
        assert tuple(found["present"]) == expected
        assert found["labels"] == ["class 1", "class 3"]
    assert "present" not in page.evaluate(LABELS, [probabilities, None, CLASSES[:4]])


def test_what_was_not_fitted_is_null(page, images):
    asked = [[images[0][0].tolist(), None]]
    bare = Calibration("val", 60, "", (1.5,), (FusedRule(1.5, None, None),))
    for calibration in (None, json.loads(bare.to_json())):
        (found,), promised = page.evaluate(ASK, [calibration, asked, CLASSES])
        assert found == dict.fromkeys(FIELDS)
        assert promised == {"coverage": None, "reject": None}
    assert promises(bare) == promises(None) == promised
