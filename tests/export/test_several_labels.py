"""An exported model of images with several labels says which are there, as `predict` does."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import UsageError
from ramstrans.export.folder import export_folder
from ramstrans.export.standalone import Standalone
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_json
from ramstrans.saved.model import SavedModel, load_model
from ramstrans.serve.engine import ExportedEngine
from tests.inference.builders import make_folder

pytestmark = pytest.mark.slow  # a graph takes half a minute to export


@pytest.fixture(scope="module")
def predictor(tmp_path_factory, photographs):
    """With thresholds that the labels of some photographs reach, and those of others do not."""
    folder = make_folder(
        tmp_path_factory.mktemp("several"),
        zoom_source="full",
        preprocessing=Preprocessing(61, (53, 37)),
        multi_label=True,
    )
    saved = load_model(folder, "cpu")
    names = saved.metadata.class_names
    given = Predictor(saved, "fp32")(photographs[:-1], top_k=len(names))
    by_name = [dict(zip(one.labels, one.probabilities, strict=True)) for one in given]
    thresholds = tuple(widest_gap([one[name] for one in by_name]) for name in names)
    return Predictor(SavedModel(saved.model, replace(saved.metadata, label_thresholds=thresholds)), "fp32")


def widest_gap(values):
    """The middle of the widest gap between neighbouring values, which no rounding crosses."""
    low, high = max(pairwise(sorted(values)), key=lambda pair: pair[1] - pair[0])
    return (low + high) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory, predictor, photographs):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    folder = tmp_path_factory.mktemp("export") / "out"
    check = export_folder(predictor, folder, "onnx", photographs)
    assert (check.boxes_equal, check.top1_equal, check.rules_from_file) == (1.0, 1.0, 1.0)
    assert check.unknown_score is None
    assert "`present` are the labels" in (folder / "README.md").read_text()
    return folder


def test_labels_are_those_of_predict(predictor, folder, photographs):
    assert json.loads((folder / "thresholds.json").read_text()) == list(predictor.thresholds)
    found = list(map(to_json, Standalone(folder).stream(photographs, 7)))
    expected = list(map(to_json, predictor(photographs, top_k=7)))
    assert [one["present"] for one in found] == [one["present"] for one in expected]
    assert [one.keys() for one in found] == [one.keys() for one in expected]
    assert len({tuple(one["present"]) for one in found}) > 2
    for one, other in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=0.02)
    assert found[-1]["present"] == []
    assert found[-1]["error"]


def test_priors_are_refused(folder, tmp_path):
    with pytest.raises(
        UsageError, match=r"--priors is for classes of which an image has one.*leave --priors out"
    ):
        Standalone(folder, priors=tmp_path / "list.txt")


def test_a_server_says_them_too(predictor, folder, photographs):
    engine = ExportedEngine(folder)
    (answer,) = engine.answer([engine.read(photographs[0].read_bytes())], 7)
    assert answer.prediction.present == predictor(photographs[0], top_k=7).present
    assert engine.about()["multi_label"] is True
