"""Exported folders: the same answers, without torch, or nothing at all."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError, TrainingError, UsageError, WeightsError
from ramstrans.export import folder as module
from ramstrans.export import standalone
from ramstrans.export.folder import closure, export_folder, graph_of
from ramstrans.export.standalone import Standalone
from ramstrans.export.verify import check_tolerance, verify
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_json
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.build import build_model
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.saved.model import save_model
from ramstrans.serve.engine import ExportedEngine
from tests.inference.builders import draw, make_folder
from tests.shared import CUB50, DEIT_TINY, needs

pytestmark = pytest.mark.slow  # a graph takes half a minute to export

WITHOUT_TORCH = (
    "import runpy, sys; sys.modules.update(dict.fromkeys(('torch', 'scipy', 'safetensors')));"
    "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
)


def test_the_answers_are_the_models(exported):
    folder, check = exported.folder, exported.check
    assert (check.num_images, check.boxes_equal, check.top1_equal) == (5, 1.0, 1.0)
    assert check.probability < 1e-5
    assert check.unknown_score < 1e-5
    assert check.rules_from_file == 1.0
    assert check.probability_from_file < 0.02
    assert json.loads((folder / "verification.json").read_text()) == check._asdict()
    assert {path.name for path in folder.iterdir()} == {
        *("model.onnx", "labels.json", "preprocessing.json", "predict.py", "README.md", "lib"),
        *("verification.json", "calibration.json"),
    }


def test_a_process_without_torch_prints_the_lines_of_predict(exported, photographs):
    predictor, folder = exported.predictor, exported.folder
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
        assert found["probabilities"] == pytest.approx(theirs["probabilities"], abs=0.02)
        assert (found["unknown"], found["set"]) == (theirs["unknown"], theirs["set"])
        if theirs["error"] is None:
            assert [found["answer"][key] for key in ("name", "rank")] == [
                theirs["answer"][key] for key in ("name", "rank")
            ]
            assert found["unknown_score"] == pytest.approx(theirs["unknown_score"], rel=1e-3)
        for one, other in zip(found["scales"], theirs["scales"], strict=True):
            assert one["has_region"] == other["has_region"]
            assert one["box"] == (None if other["box"] is None else pytest.approx(other["box"], abs=8))


def test_glsim_names_the_box_of_its_second_look(photographs, tmp_path):
    make_folder(tmp_path / "run", method="glsim", preprocessing=Preprocessing(61, (53, 37)))
    predictor = Predictor.load(tmp_path / "run", "cpu", "fp32")
    check = export_folder(predictor, tmp_path / "out", "onnx", photographs)
    assert (check.boxes_equal, check.boxes_from_file) == (1.0, 1.0)
    found = list(Standalone(tmp_path / "out").stream(photographs[:2], 3))
    for one, other in zip(found, predictor(photographs[:2], top_k=3), strict=True):
        assert one.scales[0].has_region is True
        assert one.scales[0].box == pytest.approx(other.scales[0].box, abs=0.1)


PRIORS = 'class,month,weight\n"{0}",6,5\n"{1}",1..3,2\n*,5..7,1\n'


def test_priors_and_the_confidence_of_ranks_are_those_of_predict(exported, photographs, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:06:01 10:00:00"
    summer = draw(tmp_path / "summer.jpg", 300, 260, seed=9, exif=exif)
    priors = tmp_path / "priors.csv"
    priors.write_text(PRIORS.format(*exported.predictor.class_names[2:4]))
    options = {"rank_confidence": 0.9, "priors": priors}
    paths = [*photographs, summer]
    predictor = Predictor.load(exported.saved, "cpu", "fp32", **options)
    found = list(Standalone(exported.folder, **options).stream(paths, 7))
    for one, other in zip(found, predictor(paths, top_k=7), strict=True):
        assert (one.labels[:1], one.prediction_set) == (other.labels[:1], other.prediction_set)
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.02)
        assert (one.answer and one.answer[:2]) == (other.answer and other.answer[:2])
        assert (one.priors and one.priors.matched) == (other.priors and other.priors.matched)
    assert found[-1].priors.matched == "month 6; month 5..7"
    assert found[0].priors.matched is None
    assert {one.answer.rank for one in found if one.answer} == {"root"}  # at 0.51 some are families


def test_predict_py_into_a_pipe_that_is_closed(exported, photographs):
    command = [sys.executable, "-I", exported.folder / "predict.py", *photographs * 400, "--batch_size", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")


def test_predict_py_that_is_stopped(exported, photographs):
    command = [sys.executable, "-I", exported.folder / "predict.py", *photographs * 400, "--batch_size", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"{")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, b"")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "labels.json",
            lambda _: None,
            r"labels\.json or preprocessing\.json cannot be read \(.*No such file",
        ),
        ("preprocessing.json", lambda _: "{}", r"cannot be read \('max_pixels'\); export the model again"),
        (
            "labels.json",
            lambda text: json.dumps(json.loads(text)[1:]),
            "has 6 names, and the model 7 classes",
        ),
    ],
)
def test_an_incomplete_folder_is_told(exported, photographs, tmp_path, name, change, message):
    folder = shutil.copytree(exported.folder, tmp_path / "copy")
    text = change((folder / name).read_text())
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        list(Standalone(folder).stream(photographs[:1]))


def test_options_of_predict_py(exported, photographs, tmp_path):
    (tmp_path / "list.txt").write_text(exported.predictor.class_names[1] + "\n")
    command = [sys.executable, "-I", exported.folder / "predict.py", photographs[0], "--priors"]
    done = subprocess.run([*command, tmp_path / "list.txt"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["labels"][0] == exported.predictor.class_names[1]
    done = subprocess.run([*command, tmp_path / "none.txt"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "none.txt" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "summer.csv").write_text(PRIORS.format(*exported.predictor.class_names[2:4]))
    done = subprocess.run([*command, tmp_path / "summer.csv"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    line = (
        "predict.py: 1 of 1 image was answered without priors: no condition holds for it, or no class is left"
    )
    assert done.stderr.splitlines() == [line]


def test_priors_need_a_calibration(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "out")
    (folder / "calibration.json").unlink()
    with pytest.raises(UsageError, match=r"out is not calibrated; run `ramstrans calibrate` on its run"):
        Standalone(folder, priors=tmp_path / "list.txt")


def test_some_of_the_photographs_are_unknown_and_sets_differ(exported, photographs):
    found = exported.predictor(photographs)[:-1]
    assert [one.unknown for one in found].count(True) == 3
    assert len({one.prediction_set for one in found}) > 1
    assert {one.answer.rank for one in found} >= {"family"}
    outputs = Standalone(exported.folder).graph(np.zeros((2, 3, 53, 37), np.uint8))
    assert outputs["unknown_score"].shape == (2,)


def test_a_server_answers_as_predict_py(exported, photographs):
    engine, paths = ExportedEngine(exported.folder), photographs[:3]
    answers = engine.answer([engine.read(path.read_bytes()) for path in paths], 7)
    expected = Standalone(exported.folder).stream(paths, 7)
    assert [one.prediction for one in answers] == [one._replace(path=None) for one in expected]
    assert all(one.prediction.unknown is not None for one in answers)


def test_a_damaged_calibration_is_one_line(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "out")
    (folder / "calibration.json").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"out/calibration\.json: not JSON of a calibration"):
        Standalone(folder)
    newer = json.loads((exported.folder / "calibration.json").read_text()) | {"format_version": 99}
    (folder / "calibration.json").write_text(json.dumps(newer))
    with pytest.raises(ConfigError, match="was written by a newer ramstrans"):
        Standalone(folder)


def test_a_damaged_graph_is_one_line(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "out")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"out/model\.onnx cannot be loaded by onnxruntime \(Inval"):
        Standalone(folder)


@pytest.mark.parametrize("content", ["[0.5,", "[]", '{"a": 1}', '["x", 1, 1, 1, 1, 1, 1]'])
def test_damaged_thresholds_are_one_line(exported, tmp_path, content):
    folder = shutil.copytree(exported.folder, tmp_path / "out")
    (folder / "thresholds.json").write_text(content)
    with pytest.raises(ConfigError, match=r"thresholds\.json is not a list of 7 numbers; export the model"):
        Standalone(folder)


def test_a_graph_without_the_score_that_its_calibration_needs(exported, photographs, tmp_path, monkeypatch):
    graph = Standalone(exported.folder).graph

    def lacking(pixels):
        return {name: value for name, value in graph(pixels).items() if name != "unknown_score"}

    monkeypatch.setattr(standalone, "open_graph", lambda *_, **_options: lacking)
    with pytest.raises(ConfigError, match=r"no output unknown_score.*export the model again"):
        list(Standalone(exported.folder).stream(photographs, 7))


def test_any_batch_gives_the_same(exported, photographs):
    standalone = Standalone(exported.folder)
    one, several = (list(standalone.stream(photographs, 7, size)) for size in (1, 5))
    for first, second in zip(one, several, strict=True):
        assert first.labels == second.labels
        assert first.probabilities == pytest.approx(second.probabilities, abs=1e-6)


def test_soft_regions_of_real_photographs_are_exported(tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    needs(DEIT_TINY, CUB50)
    torch.manual_seed(0)
    regions = {"component": "soft", "saliency_layers": 6, "class_tokens": "shared", "zoom_source": "full"}
    config = ModelConfig("deit_tiny_patch16_224", 7, weights=DEIT_TINY, **regions)
    metadata = ModelMetadata(config, tuple("abcdefg"), Preprocessing(512, (448, 448)))
    save_model(tmp_path / "run", build_model(config).state_dict(), metadata)
    predictor = Predictor.load(tmp_path / "run", "cpu", "fp32")
    photographs = sorted(CUB50.glob("images/*/*.jpg"))[::100]
    check = export_folder(predictor, tmp_path / "out", "onnx", photographs)
    assert (check.num_images, check.boxes_equal, check.equal_from_file) == (len(photographs), 1.0, 1.0)


def test_answers_that_differ_from_file_to_answer_are_counted(exported, photographs, monkeypatch):
    graph = Standalone(exported.folder).graph

    def other(pixels):
        outputs = graph(pixels)
        flat = np.full_like(outputs["probabilities"], 1 / 7)
        return outputs | {"probabilities": flat}

    monkeypatch.setattr(standalone, "open_graph", lambda *_, **_options: other)
    check = verify(exported.predictor, graph_of(exported.predictor, "onnx"), exported.folder, photographs)
    assert (check.equal_from_file, check.boxes_from_file) == (0.0, 1.0)


def test_answers_that_differ_from_file_to_answer_are_refused(exported):
    check_tolerance(exported.check._replace(probability_from_file=0.04, is_soft=True))
    with pytest.raises(TrainingError, match=r"differ by up to 0\.04; nothing was written"):
        check_tolerance(exported.check._replace(probability_from_file=0.04))
    with pytest.raises(TrainingError, match=r"80\.0 % the same best class"):
        check_tolerance(exported.check._replace(top1_from_file=0.8))
    check_tolerance(exported.check._replace(boxes_equal=0.95, is_soft=True))
    with pytest.raises(TrainingError, match=r"95\.0 % of boxes"):
        check_tolerance(exported.check._replace(boxes_equal=0.95))
    check_tolerance(exported.check._replace(equal_from_file=0.9))
    with pytest.raises(TrainingError, match=r"80\.0 % of photographs .*nothing was written"):
        check_tolerance(exported.check._replace(equal_from_file=0.8))


def test_another_answer_leaves_nothing(exported, photographs, tmp_path, monkeypatch):
    verify = module.verify
    monkeypatch.setattr(module, "verify", lambda *args: verify(*args)._replace(boxes_equal=0.9))
    monkeypatch.setattr(module, "write_graph", lambda *args: _copied(exported, args[2]))
    with pytest.raises(TrainingError, match=r"90\.0 % of boxes .*nothing was written"):
        export_folder(exported.predictor, tmp_path / "out", "onnx", photographs)
    assert list(tmp_path.iterdir()) == []


def test_another_score_of_the_unknown_leaves_nothing(exported, photographs, tmp_path, monkeypatch):
    graph = Standalone(exported.folder).graph

    def other(pixels):
        outputs = graph(pixels)
        return outputs | {"unknown_score": outputs["unknown_score"] * 1.01}

    monkeypatch.setattr(standalone, "open_graph", lambda *_, **_options: other)
    monkeypatch.setattr(module, "write_graph", lambda *args: _copied(exported, args[2]))
    with pytest.raises(TrainingError, match=r"score of the unknown: it differs by 0\.01 of its size"):
        export_folder(exported.predictor, tmp_path / "out", "onnx", photographs)
    assert list(tmp_path.iterdir()) == []


def _copied(exported, folder):
    (folder / "model.onnx").write_bytes((exported.folder / "model.onnx").read_bytes())
    return folder / "model.onnx"


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """The Python of an environment that has only what predict.py names."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--retries", "1", "numpy", "pillow", "onnxruntime"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1]}")
    return python


def test_predict_needs_only_numpy_pillow_and_onnxruntime(bare_python, exported, photographs):
    listed = subprocess.run([bare_python, "-m", "pip", "list"], capture_output=True, text=True, check=True)
    assert not {"torch", "ramstrans", "timm"} & {line.split()[0] for line in listed.stdout.splitlines()}
    command = [bare_python, "-I", exported.folder / "predict.py", *photographs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = exported.predictor(photographs)
    assert [row["labels"][:1] for row in rows] == [list(one.labels[:1]) for one in expected]
    assert [row["error"] is None for row in rows] == [one.error is None for one in expected]


def test_the_modules_that_go_along():
    names = closure("ramstrans.export.standalone")
    assert {"ramstrans", "ramstrans.errors", "ramstrans.data.reading.decode"} <= names
    assert not any(name.startswith(("ramstrans.models", "ramstrans.training")) for name in names)
