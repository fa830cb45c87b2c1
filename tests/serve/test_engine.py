"""An exported folder as an engine, with a graph that is a function."""

import json

import numpy as np
import pytest

from ramstrans.calibration.fitted import Calibration, FusedRule
from ramstrans.errors import UnreadableImageError, UsageError
from ramstrans.export import standalone
from ramstrans.serve.engine import ExportedEngine
from tests.serve.builders import png


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.onnx").touch()
    (tmp_path / "labels.json").write_text(json.dumps(["crow", "wren"]))
    values = {"resize": [40, 40], "crop": [20, 40], "fit": "squash", "max_pixels": 1000}
    (tmp_path / "preprocessing.json").write_text(json.dumps(values))
    return tmp_path


def graph(pixels):
    """Brighter images are more of a wren; the second scale looks at a box."""
    wren = pixels.mean(axis=(1, 2, 3)) / 255
    one = np.stack([1 - wren, wren], axis=1).astype(np.float32)
    boxes = np.array([[0.0, 10.0, 10.0, 20.0], [10.0, 10.0, 40.0, 40.0]])[: len(pixels)]
    return {
        "probabilities": one,
        "scale_probabilities": np.stack([one, one]),
        "boxes": boxes[None],
        "found": np.array([[True, False]])[:, : len(pixels)],
        "saliency": np.arange(len(pixels) * 4, dtype=np.float32).reshape(-1, 2, 2),
    }


def test_answers_of_a_graph_in_pixels_of_each_photograph(folder, monkeypatch):
    monkeypatch.setattr(standalone, "open_graph", lambda *_, **_options: graph)
    engine = ExportedEngine(folder)
    examples = [engine.read(png(30, 20)), engine.read(png(20, 40))]
    assert examples[0].pixels.shape == (3, 40, 40)
    first, second = engine.answer(examples, 1)
    assert first.prediction.labels == ("crow",)
    assert first.prediction.probabilities == pytest.approx([1 - 240 / 3 / 255])
    assert first.prediction.scales[0].box == (0, 5, 7.5, 10)  # 30 x 20 pixels were squashed to 40 x 40
    assert second.prediction.scales[0].box == (5, 10, 20, 40)
    assert [one.prediction.scales[0].has_region for one in (first, second)] == [True, False]
    assert first.prediction.scales[1].box is None
    assert (first.view, second.view) == ((0, 0, 30, 20), (0, 0, 20, 40))
    assert second.saliency.tolist() == [[4, 5], [6, 7]]


def test_priors_go_into_the_answers(folder, monkeypatch):
    monkeypatch.setattr(standalone, "open_graph", lambda *_, **_options: graph)
    fitted = Calibration("val", 60, "", (1.0, 1.0), (FusedRule(1.0, None, None),) * 2)
    (folder / "calibration.json").write_text(fitted.to_json())
    (folder / "list.txt").write_text("wren\n")
    engine = ExportedEngine(folder, priors=folder / "list.txt")
    (answer,) = engine.answer([engine.read(png(30, 20))], 2)
    assert answer.prediction.labels == ("wren", "crow")
    assert answer.prediction.probabilities == (1, 0)
    assert answer.prediction.priors[:2] == ("every photograph", "crow")
    assert answer.prediction.priors.changed
    assert engine.priors.name == "list.txt"


def test_a_graph_of_one_scale_has_no_saliency(folder, monkeypatch):
    def one_scale(pixels):
        outputs = graph(pixels)
        return {
            "probabilities": outputs["probabilities"],
            "scale_probabilities": outputs["scale_probabilities"][:1],
        }

    monkeypatch.setattr(standalone, "open_graph", lambda *_, **_options: one_scale)
    engine = ExportedEngine(folder)
    (answer,) = engine.answer([engine.read(png())], 2)
    assert answer.saliency is None
    assert answer.prediction.labels == ("crow", "wren")


def test_the_limit_of_pixels_can_be_another(folder, monkeypatch):
    monkeypatch.setattr(standalone, "open_graph", lambda *_, **_options: graph)
    engine = ExportedEngine(folder)
    assert engine.max_pixels == 1000
    about = {"kind": "exported", "format": "onnx", "classes": ["crow", "wren"], "multi_label": False}
    assert engine.about() == about | {"promises": {"coverage": None, "reject": None}}
    with pytest.raises(UnreadableImageError, match="over the limit of 1,000"):
        engine.read(png(40, 30))
    engine.max_pixels = 1200
    engine.read(png(40, 30))
    with pytest.raises(UsageError, match="serve the run folder"):
        engine.contrast(png(40, 30), "wren")
