"""Graphs in int8 and float16, OpenVINO's, and PyTorch's own: nearly the same answers, or nothing."""

import json
import shutil

import numpy as np
import pytest

from ramstrans.errors import TrainingError, UsageError
from ramstrans.export import quantize
from ramstrans.export import smaller as module
from ramstrans.export.folder import graph_of
from ramstrans.export.formats import convert, openvino_of, write_graph
from ramstrans.export.judge import Judgement
from ramstrans.export.photographs import Labelled
from ramstrans.export.quantize import (
    WEIGHTED,
    halve,
    head_names,
    in_backbone,
    quantised_names,
    scopes_of,
)
from ramstrans.export.runner import open_graph
from ramstrans.export.smaller import Int8, best_of, megabytes, write_int8
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
    return graph_of(exported.predictor, "onnx")


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
    exported, labelled, draft, graph, source, format_name, photographs, monkeypatch
):
    if format_name == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
        monkeypatch.delitem(quantize._METHODS, "onnxruntime")  # each takes seconds
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
    monkeypatch.setattr(module, "quantise", lambda *_: {"nncf": source})
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
    file, heads = draft / "model.onnx", head_names(graph)
    if format_name == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
        file.unlink()
        file = draft / "model.xml"
        openvino_of(exported.folder / "model.onnx", file)
        whole = file.with_suffix(".bin").stat().st_size
    halve(exported.folder / "model.onnx", file, format_name, heads)
    check = verify(exported.predictor, graph, draft, photographs, "fp16")
    check_tolerance(check)
    assert check.probability > exported.check.probability  # it is another graph now
    if format_name == "onnx":
        assert weight_types(file, heads) == ({FLOAT16}, {FLOAT})
        pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 53, 37), dtype=np.uint8)
        boxes, expected = (open_graph(folder)(pixels)["boxes"] for folder in (draft, exported.folder))
        np.testing.assert_allclose(boxes, expected, atol=1e-4)  # which float16 would round to 1 / 32
    else:
        assert file.with_suffix(".bin").stat().st_size < 0.55 * whole


FLOAT, FLOAT16 = 1, 10
"""Types of ONNX's weights."""


def weight_types(file, heads):
    """Those of the products that become int8, and of the head."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = onnx.load(str(file))
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    inside = {types[node.input[1]] for node in model.graph.node if node.name in quantised_names(model, heads)}
    head = {
        types[node.input[1]]
        for node in model.graph.node
        if node.op_type in WEIGHTED and set(heads) & set(scopes_of(node))
    }
    return inside, head


def test_float16_too_far_off_is_refused(exported):
    check = exported.check._replace(precision="fp16")
    check_tolerance(check)
    with pytest.raises(TrainingError, match=r"90\.0 % of boxes"):
        check_tolerance(check._replace(boxes_equal=0.9))
    with pytest.raises(TrainingError, match=r"only 80\.0 % of unknown and set, or of labels, are the same"):
        check_tolerance(check._replace(rules_from_file=0.8))
    with pytest.raises(TrainingError, match=r"it differs by 0\.03 of its size \(allowed: 0\.02\)"):
        check_tolerance(check._replace(unknown_score=0.03))


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


def judgement(by, lost, speedup):
    return Judgement("drawings", 200, 90.0, 90 - lost, lost, 3, 2, 1.0, speedup, 22.0, 6.0, 64, by)


def test_the_one_that_loses_least_is_kept_and_of_equal_ones_the_fastest():
    one, other = judgement("nncf", 0.5, 1.4), judgement("onnxruntime", 0.0, 1.1)
    assert best_of([one, other], 1.0) == other
    faster = other._replace(quantised_by="nncf", speedup=1.2)
    assert best_of([other, faster], 1.0) == faster
    assert best_of([one._replace(points_lost=1.0)], 1.0).points_lost == 1.0  # "at most"
