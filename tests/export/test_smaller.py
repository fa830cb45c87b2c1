"""Graphs in int8 and float16, OpenVINO's, and PyTorch's own: nearly the same answers, or nothing."""

import json
import shutil

import numpy as np
import pytest

from ramstrans.errors import TrainingError, UsageError
from ramstrans.export import smaller as module
from ramstrans.export.formats import convert, write_graph
from ramstrans.export.graph import Graph
from ramstrans.export.judge import Judgement
from ramstrans.export.photographs import Labelled
from ramstrans.export.quantize import halve, head_names, in_backbone, quantised_names
from ramstrans.export.runner import open_graph
from ramstrans.export.smaller import Int8, megabytes, write_int8
from ramstrans.export.standalone import Standalone, pixels_size
from ramstrans.export.verify import check_tolerance, verify

pytestmark = pytest.mark.slow  # they need an exported graph


@pytest.fixture
def draft(exported, tmp_path):
    return shutil.copytree(exported.folder, tmp_path / "draft")


@pytest.fixture
def source(exported, tmp_path):
    (tmp_path / "work").mkdir()
    return shutil.copy(exported.folder / "model.onnx", tmp_path / "work" / "model.onnx")


@pytest.fixture
def graph(exported):
    return Graph(exported.predictor.model, exported.predictor.metadata)


@pytest.fixture
def onnx_model(exported):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    return onnx.load(str(exported.folder / "model.onnx"))


def test_only_the_backbones_products_with_weights_become_int8(onnx_model, graph):
    heads = head_names(graph)
    assert heads == ("model.encoder.model.head",)
    names = quantised_names(onnx_model, heads)
    nodes = [node for node in onnx_model.graph.node if node.name in names]
    assert len(nodes) == 2 * 2 * 4  # scales, blocks, and qkv, proj, fc1, fc2 each
    assert {node.op_type for node in nodes} <= {"MatMul", "Gemm"}
    assert all(in_backbone(node, heads) for node in nodes)


def test_the_file_has_no_lines_of_source_or_folders_of_this_machine(exported):
    content = (exported.folder / "model.onnx").read_bytes()
    assert b".py" not in content
    assert b"/src/" not in content


@pytest.mark.parametrize("format_name", ["onnx", "openvino"])
def test_int8_is_judged_and_takes_the_place(
    exported, labelled, draft, graph, source, format_name, photographs
):
    if format_name == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
        convert(draft / "model.onnx", draft, "openvino")
        (draft / "model.onnx").unlink()
    how = Int8(photographs, Labelled(labelled, "drawings"), max_drop=100.0)
    before = megabytes(draft)
    found = Judgement(**write_int8(source, draft, format_name, head_names(graph), how))
    assert (found.num_images, found.num_calibrated, found.judged_on) == (24, 5, "drawings")
    assert found.top1_fp32 > 90  # the classes are the model's own answers, but for the resize
    assert found.points_lost == pytest.approx(100 * (found.num_worse - found.num_better) / 24)
    assert found.megabytes_fp32 == before
    assert found.megabytes == megabytes(draft)
    after = verify(exported.predictor, graph, draft, photographs)
    assert after.probability > exported.check.probability  # it is another graph now
    json.dumps(found._asdict())
    assert {path.name for path in draft.iterdir()} >= {"predict.py", "labels.json"}


def test_int8_that_loses_too_much_is_refused(
    exported, labelled, draft, graph, source, photographs, monkeypatch
):
    judged = module.judged
    monkeypatch.setattr(module, "judged", lambda *args: judged(*args) | {"points_lost": 1.25, "num_worse": 7})
    how = Int8(photographs, Labelled(labelled, "drawings"), max_drop=1.0)
    with pytest.raises(
        TrainingError, match=r"int8 loses 1\.25 points on 24 drawings \(7 worse.*nothing was written"
    ):
        write_int8(source, draft, "onnx", head_names(graph), how)
    assert (draft / "model.onnx").read_bytes() == source.read_bytes()


def test_unreadable_photographs_cannot_calibrate(exported, labelled, draft, graph, source, photographs):
    how = Int8([photographs[-1]], Labelled(labelled, "drawings"), max_drop=1.0)
    with pytest.raises(UsageError, match=r"none of the 1 photographs to calibrate int8 .*--calibrate FOLDER"):
        write_int8(source, draft, "onnx", head_names(graph), how)


@pytest.mark.parametrize("format_name", ["onnx", "openvino"])
def test_float16_gives_nearly_the_same(exported, draft, graph, format_name, photographs):
    file = draft / "model.onnx"
    if format_name == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
        file.unlink()
        file = draft / "model.xml"
    halve(exported.folder / "model.onnx", file, format_name, head_names(graph))
    check = verify(exported.predictor, graph, draft, photographs)._replace(precision="fp16")
    check_tolerance(check)
    assert megabytes(draft) < 0.8 * megabytes(exported.folder)
    with pytest.raises(TrainingError, match="of boxes"):
        check_tolerance(check._replace(boxes_equal=0.9))


@pytest.mark.parametrize("format_name", ["openvino", "pt2"])
def test_other_formats_give_the_same_for_any_batch(exported, draft, graph, format_name, photographs):
    if format_name == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
        convert(exported.folder / "model.onnx", draft, format_name)
    else:
        write_graph(graph, pixels_size(exported.predictor.metadata.preprocessing), draft, format_name)
    (draft / "model.onnx").unlink()
    check = verify(exported.predictor, graph, draft, photographs, batch_size=3)
    check_tolerance(check)
    assert check.num_images == 5
    reference, run = Standalone(exported.folder), open_graph(draft, num_threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 53, 37), dtype=np.uint8)
    for name, value in reference.graph(pixels).items():
        np.testing.assert_allclose(run(pixels)[name], value, atol=1e-4)
