"""Exported folders: the same answers, without torch, or nothing at all."""

import json
import subprocess
import sys

import pytest

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import TrainingError
from ramstrans.export import folder as module
from ramstrans.export.folder import closure, export_folder
from ramstrans.export.standalone import Standalone
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_json
from tests.inference.builders import draw, make_folder

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytestmark = pytest.mark.slow  # a graph takes half a minute to export

WITHOUT_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Large, small, upright, on its side, grey, transparent, and one that is damaged."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = [draw(folder / f"{n}.jpg", 300 + 40 * n, 260 - 20 * n, seed=n) for n in range(4)]
    paths.append(draw(folder / "small.png", 70, 90, seed=7))
    (folder / "broken.jpg").write_bytes(paths[0].read_bytes()[:200])
    return [*paths, folder / "broken.jpg"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, photographs):
    """A model's folder, its predictor, and the folder of its export."""
    root = tmp_path_factory.mktemp("export")
    saved = make_folder(root / "run", zoom_source="full", preprocessing=Preprocessing(61, (53, 37)))
    predictor = Predictor.load(saved, "cpu", "fp32")
    check = export_folder(predictor, root / "out", "onnx", photographs)
    return predictor, root / "out", check


def test_the_answers_are_the_models(exported):
    _, folder, check = exported
    assert (check.num_images, check.boxes_equal, check.top1_equal) == (5, 1.0, 1.0)
    assert check.probability < 1e-5
    assert check.probability_from_file < 0.02
    assert json.loads((folder / "verification.json").read_text()) == check._asdict()
    assert {path.name for path in folder.iterdir()} == {
        *("model.onnx", "labels.json", "preprocessing.json", "predict.py", "README.md", "lib"),
        "verification.json",
    }


def test_a_process_without_torch_prints_the_lines_of_predict(exported, photographs):
    predictor, folder, _ = exported
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_TORCH, folder / "predict.py", *photographs, "--top_k", "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line, expected in zip(done.stdout.splitlines(), predictor(photographs, top_k=7), strict=True):
        found, theirs = json.loads(line), to_json(expected)
        assert found.keys() == theirs.keys()
        assert (found["path"], found["error"]) == (theirs["path"], theirs["error"])
        assert found["labels"][:1] == theirs["labels"][:1]
        for one, other in zip(found["scales"], theirs["scales"], strict=True):
            assert one["has_region"] == other["has_region"]
            assert one["box"] == (None if other["box"] is None else pytest.approx(other["box"], abs=8))


def test_any_batch_gives_the_same(exported, photographs):
    _, folder, _ = exported
    standalone = Standalone(folder)
    one, several = (list(standalone.stream(photographs, 7, size)) for size in (1, 5))
    for first, second in zip(one, several, strict=True):
        assert first.labels == second.labels
        assert first.probabilities == pytest.approx(second.probabilities, abs=1e-6)


def test_another_answer_leaves_nothing(exported, photographs, tmp_path, monkeypatch):
    predictor, _, _ = exported
    verify = module.verify
    monkeypatch.setattr(module, "verify", lambda *args: verify(*args)._replace(boxes_equal=0.9))
    monkeypatch.setattr(module, "write_graph", lambda *args: _copied(exported, args[2]))
    with pytest.raises(TrainingError, match=r"90\.0 % of boxes .*nothing was written"):
        export_folder(predictor, tmp_path / "out", "onnx", photographs)
    assert list(tmp_path.iterdir()) == []


def _copied(exported, folder):
    (folder / "model.onnx").write_bytes((exported[1] / "model.onnx").read_bytes())
    return folder / "model.onnx"


def test_the_modules_that_go_along():
    names = closure("ramstrans.export.standalone")
    assert {"ramstrans", "ramstrans.errors", "ramstrans.data.reading.decode"} <= names
    assert not any(name.startswith(("ramstrans.models", "ramstrans.training")) for name in names)
