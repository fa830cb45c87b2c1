"""`ramstrans export`: what cannot be exported is one line, and leaves nothing."""

import os
import signal
import sys

import pytest

from ramstrans.data.preprocessing import Preprocessing
from tests import processes
from tests.inference.builders import draw, make_folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    draw(folder / "a.jpg", 90, 70)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("saved") / "run", zoom_source="full")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--judge", "."], "--calibrate, --judge and --max_drop have no effect without --int8 true"),
        (["--max_drop", "2"], "have no effect without --int8 true"),
        (["--int8", "true", "--precision", "fp16"], "exclude each other"),
        (["--int8", "true", "--format", "pt2"], "--int8 true is for --format onnx and openvino"),
        (["--precision", "fp16", "--format", "pt2"], "--precision fp16 is for --format onnx and openvino"),
        (["--precision", "fp8"], "fp8"),
        (["--max_drop", "-1", "--int8", "true"], "max_drop"),
        (["--verify", "nowhere"], "--verify nowhere is not a folder"),
        ([], "the run's own photographs cannot be read"),
        (["--int8", "true", "--verify", "{photographs}"], "give others: --judge FOLDER"),
    ],
)
def test_wrong_options_are_one_line(fails, saved, photographs, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    options = [option.format(photographs=photographs) for option in options]
    assert message in fails(2, "export", saved, tmp_path / "out", *options)
    assert not list(tmp_path.iterdir())


def test_int8_needs_one_label_per_image(fails, photographs, tmp_path):
    several = make_folder(tmp_path / "run", multi_label=True)
    options = ("--int8", "true", "--verify", photographs)
    line = fails(2, "export", several, tmp_path / "out", *options)
    assert "--int8 true is judged by top-1, and images of this model may have several labels" in line
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_there_or_from_a_newer_version(fails, saved, tmp_path):
    assert "nowhere is not a folder" in fails(1, "export", tmp_path / "nowhere", tmp_path / "out")
    newer = tmp_path / "newer"
    newer.mkdir()
    text = (saved / "config.json").read_text().replace('"format_version": ', '"format_version": 9')
    (newer / "config.json").write_text(text)
    assert "newer ramstrans" in fails(2, "export", newer, tmp_path / "out")


def test_a_folder_with_content_stays_as_it_is(fails, saved, photographs):
    assert "is not empty" in fails(2, "export", saved, photographs)
    assert [path.name for path in photographs.iterdir()] == ["a.jpg"]


@pytest.mark.parametrize(
    ("library", "format_name", "extra"),
    [("onnxscript", "onnx", "onnx"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_library_is_named_with_its_extra(
    fails, saved, photographs, tmp_path, monkeypatch, library, format_name, extra
):
    for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None if name == library else sys)
    message = fails(2, "export", saved, tmp_path / "out", "--format", format_name, "--verify", photographs)
    assert f'{library} is not installed; pip install "ramstrans[{extra}]"' in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoom_source": "native"}, "--num_scales 1"),
        ({"region_placement": "given"}, "looks at the true boxes"),
    ],
)
def test_models_that_are_no_graph_are_refused(fails, photographs, tmp_path, monkeypatch, options, message):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, sys)  # nothing of them is needed to refuse
    saved = make_folder(tmp_path / "run", preprocessing=Preprocessing(61, (53, 37)), **options)
    assert message in fails(2, "export", saved, tmp_path / "out", "--verify", photographs)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_export_leaves_nothing(saved, photographs, tmp_path, number):
    child = processes.start("export", saved, tmp_path / "out", "--verify", photographs)
    child.wait_for(lambda: list(tmp_path.iterdir()))  # the draft
    os.kill(child.pid, number)
    done = child.wait()
    assert done.returncode == 128 + number, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
