"""An exported page answers in a real browser as `predict` does, and asks nobody else."""

import json
import shutil

import pytest
from PIL import Image

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.export.folder import export_folder
from ramstrans.export.npm import RUNTIME
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_json
from tests.export.conftest import calibrate
from tests.inference.builders import NAMES, draw, make_folder
from tests.web.compare import ASK, agreement
from tests.web.conftest import Quiet
from tests.web.packages import needs_package

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytestmark = pytest.mark.slow  # a browser, and a graph that takes half a minute to export

PROBABILITY = 0.03
BOX = 4  # pixels of the original: regions are of whole patches, pixels are a grey level off


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Large, small, on its side, grey, transparent."""
    folder = tmp_path_factory.mktemp("photographs")
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [draw(folder / f"{n}.jpg", 300 + 40 * n, 260 - 20 * n, seed=n) for n in range(3)]
    paths.append(draw(folder / "side.jpg", 200, 120, seed=5, exif=exif))
    paths.append(draw(folder / "small.png", 70, 90, seed=7))
    Image.open(paths[0]).convert("L").save(folder / "grey.png")
    return [*paths, folder / "grey.png"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, photographs):
    """A model's predictor, and the page of its export."""
    runtime = needs_package(RUNTIME)
    root = tmp_path_factory.mktemp("export")
    saved = make_folder(root / "run", zoom_source="full", preprocessing=Preprocessing(61, (53, 37)))
    calibrate(saved, photographs)
    predictor = Predictor.load(saved, "cpu", "fp32")
    check = export_folder(predictor, root / "out", "web", photographs, runtime)
    assert check.boxes_equal == check.top1_equal == check.rules_from_file == 1.0
    return predictor, root / "out"


def test_the_folder_is_whole(exported):
    _, folder = exported
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("index.html", "style.css", "icon.svg", "app.js", "words.js", "photo.js", "image.js"),
        *("browser.js", "worker.js", "model.onnx", "labels.json", "preprocessing.json", "page.json"),
        *("calibration.json", "calibrated.js"),
        *("verification.json", "README.md", "runtime/LICENSE.txt", "runtime/ort.wasm.min.js"),
        *("runtime/ort-wasm-simd-threaded.js", "runtime/ort-wasm-simd-threaded.wasm"),
    }
    import onnx

    kinds = {node.op_type for node in onnx.load(folder / "model.onnx").graph.node}
    assert "GridSample" not in kinds
    assert "MatMul" in kinds


@pytest.fixture
def address(exported, photographs, serve, tmp_path):
    """Of the page, with the photographs beside it."""
    folder = tmp_path / "site"
    shutil.copytree(exported[1], folder)
    for path in photographs:
        shutil.copy(path, folder)
    return serve(folder)


def test_answers_are_those_of_predict(exported, address, open_page, photographs):
    predictor, _ = exported
    page = open_page(address)
    found = page.evaluate(ASK, [path.name for path in photographs])
    assert found["classes"] == list(NAMES)
    assert found["notice"] is None
    for answer, prediction in zip(found["answers"], predictor(photographs, top_k=7), strict=True):
        expected = to_json(prediction)
        probability, top1, box, rules = agreement(answer, expected)
        assert probability <= PROBABILITY
        assert top1
        assert box <= BOX
        assert rules
        assert answer["unknown_score"] == pytest.approx(expected["unknown_score"], rel=1e-3)
        regions = [[scale["has_region"] for scale in one["scales"]] for one in (answer, expected)]
        assert regions[0] == regions[1]
    saliency, view = found["answers"][0]["saliency"], found["answers"][0]["view"]
    assert (len(saliency), len(saliency[0])) == (3, 2)
    assert max(map(max, saliency)) == 1
    crop = predictor.explain(photographs[0]).views.crop_boxes[0]
    assert view == pytest.approx(crop, abs=0.01)


def test_labels_that_reach_their_thresholds(exported, open_page, photographs, serve, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(exported[1], folder)
    shutil.copy(photographs[0], folder)
    values = json.loads((folder / "page.json").read_text())
    assert values["has_thresholds"] is False
    (folder / "page.json").write_text(json.dumps(values | {"has_thresholds": True}))
    (folder / "thresholds.json").write_text(json.dumps([0.0, *[1.0] * 5, 0.0]))
    page = open_page(serve(folder))
    (answer,) = page.evaluate(ASK, [photographs[0].name])["answers"]
    assert sorted(answer["present"]) == sorted([NAMES[0], NAMES[6]])


def test_threads_give_the_same(exported, open_page, photographs, serve):
    """A server that isolates its pages lets the model use several threads."""

    class Isolating(Quiet):
        def end_headers(self):
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

    predictor, folder = exported
    page = open_page(serve(folder, Isolating))
    assert page.evaluate("() => crossOriginIsolated")
    page.locator("#files").set_input_files(photographs)
    page.locator("[data-state=done]").nth(len(photographs) - 1).wait_for(state="attached")
    best = [prediction.labels[0] for prediction in predictor(photographs)]
    shown = page.locator("#gallery strong").all_inner_texts()
    named = [text.removeprefix("not sure: ").removeprefix("unknown, nearest: ") for text in shown]
    assert [text.rsplit(",", 1)[0] for text in named] == best


def test_a_page_of_people(exported, address, open_page, photographs, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(photographs[0].read_bytes()[:200])
    page = open_page(address)
    page.locator("#lead").filter(has_text="tells 7 classes apart").wait_for()
    assert "stay on this device" in page.locator("#privacy").inner_text()
    page.locator("#known summary").click()
    assert page.locator("#known li").all_inner_texts() == list(NAMES)
    page.locator("#files").set_input_files([photographs[0], tmp_path / "broken.jpg"])
    page.locator("[data-state=failed]").wait_for()
    page.locator("#looks canvas").nth(1).wait_for()
    assert page.locator("#looks li").first.inner_text().startswith("First look: the middle of the photograph")
    page.locator("#gallery button").nth(1).click()
    assert "cannot read it as a photograph" in page.locator("#why").inner_text()


def test_a_model_that_is_cut_short_is_said(exported, open_page, serve, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(exported[1], folder)
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[:-1])
    page = open_page(serve(folder))
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == (
        "The model cannot be started: model.onnx is cut short. Reload the page to try again."
    )
    assert len(content) == json.loads((folder / "page.json").read_text())["bytes"]["model.onnx"]
