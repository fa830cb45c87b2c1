"""Graphs of fewer bits: products with weights in int8, or a backbone in float16; the rest stays in float32.

Only convolutions and matrix products with weights inside the backbone become int8, without the first (of
pixels) and the head. Resize, normalisation, attention, saliency, regions, zoom and softmax keep float32: they
are cheap, and a saliency in 8 bits puts boxes elsewhere.
"""

import ast
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ramstrans.errors import UsageError
from ramstrans.export.formats import SCOPES, Format, openvino_of, quiet
from ramstrans.export.graph import Graph
from ramstrans.export.runner import FILES, INPUT, need

Pixels = Sequence[NDArray[np.uint8]]
"""Photographs (1, 3, height, width) that ranges of activations are taken from."""

WEIGHTED = ("Conv", "Gemm", "MatMul")
BACKBONE = "model.encoder.model."
"""What the names of a backbone's modules in a `Graph` begin with."""


def head_names(graph: Graph) -> tuple[str, ...]:
    """Names of the modules of a graph's head."""
    head = graph.model.encoder.get_classifier()
    parts = {id(part) for part in (head if isinstance(head, nn.ModuleList) else [head])}
    return tuple(name for name, module in graph.named_modules() if id(module) in parts)


def scopes_of(node: Any) -> list[str]:  # noqa: ANN401 - an ONNX node
    """Names of the modules that a node of a graph lies in, outermost first."""
    text = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return list(ast.literal_eval(text))


def in_backbone(node: Any, heads: Sequence[str]) -> bool:  # noqa: ANN401 - an ONNX node
    """Whether a node lies in the backbone, and in none of the heads."""
    scopes = scopes_of(node)
    is_inside = any(scope.startswith(BACKBONE) for scope in scopes)
    return is_inside and not any(head in scopes for head in heads)


def quantised_names(model: Any, heads: Sequence[str]) -> list[str]:  # noqa: ANN401 - a ModelProto
    """Names of the nodes that become int8.

    Raises:
        UsageError: There are none.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in WEIGHTED and node.input[1] in weights and in_backbone(node, heads)
    ]
    names = [node.name for node in nodes if node.input[1] != nodes[0].input[1]]
    if not names:
        raise UsageError(
            "this backbone has no products with weights that could become int8; export it as it is"
        )
    return names


def quantise(source: Path, target: Path, heads: Sequence[str], pixels: Pixels) -> dict[str, Path]:
    """Quantise an ONNX graph by every library that is installed.

    Args:
        source: The `model.onnx` in float32.
        target: A folder, which gets a file for each library.
        heads: See `head_names`.
        pixels: To calibrate on.

    Returns:
        ONNX files by the name of the library.

    Raises:
        UsageError: The graph is too large, or has nothing to quantise.
    """
    names = quantised_names(load_onnx(source), heads)
    files = {}
    for library, method in _METHODS.items():
        if find_spec(library) is not None:
            files[library] = target / library / FILES["onnx"]
            files[library].parent.mkdir(parents=True)
            need(library, "openvino")  # whose import sets how much it logs
            with quiet(), redirect_stdout(io.StringIO()):  # where results belong, and NNCF draws its progress
                method(source, files[library], names, pixels)
    return files


def load_onnx(path: Path) -> Any:  # noqa: ANN401 - a ModelProto
    """Read an ONNX graph.

    Raises:
        UsageError: Its weights are too many to be in one file, so that neither library changes them.
    """
    if path.with_name(f"{path.name}.data").is_file():
        raise UsageError("models of more than 2 GB export in fp32 only; leave --int8 and --precision out")
    return need("onnx", "onnx").load(str(path))


def _by_onnxruntime(source: Path, target: Path, names: list[str], pixels: Pixels) -> None:
    """Ranges from minimum to maximum, weights by channel."""
    quantization = need("onnxruntime.quantization", "onnx")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.remaining = iter(pixels)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self.remaining, None)
            return None if batch is None else {INPUT: batch}

    quantization.quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=list(WEIGHTED),
        nodes_to_quantize=names,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"OpTypesToExcludeOutputQuantization": list(WEIGHTED), "QuantizeBias": False},
    )


def _by_nncf(source: Path, target: Path, names: list[str], pixels: Pixels) -> None:
    """Ranges as NNCF takes them; with matrix products, outliers are moved into the weights (SmoothQuant)."""
    nncf, model = need("nncf", "openvino"), load_onnx(source)
    has_products = any(node.op_type != "Conv" for node in model.graph.node if node.name in names)
    others = [node.name for node in model.graph.node if node.name not in names]
    quantised = nncf.quantize(
        model,
        nncf.Dataset([{INPUT: batch} for batch in pixels]),
        subset_size=len(pixels),
        model_type=nncf.ModelType.TRANSFORMER if has_products else None,
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
    )
    need("onnx", "onnx").save(quantised, str(target))


_METHODS: dict[str, Callable[[Path, Path, list[str], Pixels], None]] = {
    "nncf": _by_nncf,
    "onnxruntime": _by_onnxruntime,
}


def halve(source: Path, target: Path, format_name: Format, heads: Sequence[str]) -> None:
    """Write a graph whose backbone computes in float16; its input and outputs stay as they are.

    OpenVINO's files hold all weights in float16, and the device decides what it computes in.

    Args:
        source: The `model.onnx` in float32.
        target: The file to write.
        format_name: onnx or openvino.
        heads: See `head_names`.
    """
    model = load_onnx(source)
    if format_name == "openvino":
        openvino_of(source, target, half=True)
        return
    float16 = need("onnxruntime.transformers.float16", "onnx")
    weights = {tensor.name for tensor in model.graph.initializer}
    shapes = [value for value in model.graph.value_info if value.name not in weights]
    del model.graph.value_info[:]  # of weights too: then those that stay float32 would be cast to it
    model.graph.value_info.extend(shapes)
    wide = [node.name for node in model.graph.node if not in_backbone(node, heads)]
    with quiet():
        half = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=wide)
    keep_float32(half)
    need("onnx", "onnx").save(half, str(target))


def keep_float32(model: Any) -> None:  # noqa: ANN401 - a ModelProto
    """Pass values from one node in float32 to the next one as they are.

    The converter casts them to float16 and back, which rounds boxes to an eighth of a pixel. The second cast
    is given the value itself; the first one is left without a reader, and runtimes drop both.
    """
    to_half, to_float = (
        {node.output[0]: node for node in model.graph.node if _casts_to(node, kind)} for kind in (10, 1)
    )
    for node in to_float.values():
        if node.input[0] in to_half:
            node.input[0] = to_half[node.input[0]].input[0]


def _casts_to(node: Any, kind: int) -> bool:  # noqa: ANN401 - an ONNX node
    """Whether a node casts to a type, by its number in ONNX: 1 is float32, 10 float16."""
    return node.op_type == "Cast" and any(entry.name == "to" and entry.i == kind for entry in node.attribute)
