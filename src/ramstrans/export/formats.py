"""Write a graph as a file: ONNX, OpenVINO, or PyTorch's own."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from ramstrans.data.preprocessing import Size
from ramstrans.errors import RamsTransError, UsageError
from ramstrans.export.graph import Graph
from ramstrans.export.runner import FILES, INPUT, need

Format = Literal["onnx", "openvino", "pt2", "web"]

OPSET = 20
"""Of ONNX: the first with a GridSample of any rank and Gelu; onnxruntime knows it since 1.17."""

MAX_BATCH = 2**15
"""Most images of a batch that a graph is exported for."""

MAX_PROTOBUF = 2**31 - 2**24
"""Bytes of weights above which ONNX keeps them in a file of their own, `model.onnx.data`."""


def write_graph(graph: Graph, size: Size, folder: Path, name: Format) -> Path:
    """Write a graph into a folder; returns its file.

    Args:
        graph: The graph, on the CPU.
        size: `(height, width)` of its pixels.
        folder: Exists.
        name: The format.

    Raises:
        UsageError: A library is missing, or the backbone cannot be exported.
    """
    path = folder / FILES[name]
    _WRITERS[name](graph, traced(graph, size), path)
    return path


def traced(graph: Graph, size: Size) -> torch.export.ExportedProgram:
    """The graph for any batch, as `torch.export` sees it.

    Raises:
        UsageError: The backbone does something that depends on the values of pixels.
    """
    example = torch.zeros(2, 3, *size, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(graph, (example,), dynamic_shapes=({0: batch},))
    except RamsTransError:
        raise
    except Exception as error:  # torch raises many kinds
        reason = " ".join(str(error).split())[:200]
        name = type(graph.model.encoder.model).__name__
        raise UsageError(
            f"a {name} cannot be exported as one graph ({type(error).__name__}: {reason}); see docs/export.md"
        ) from error


def write_onnx(graph: Graph, program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a traced graph as ONNX."""
    for library in ("onnx", "onnxscript"):
        need(library, "onnx")
    size = sum(weight.numel() * weight.element_size() for weight in graph.state_dict().values())
    with quiet():
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(graph.output_names),
            verbose=False,
        )
    assert exported is not None, "with dynamo"
    exported.save(str(path), external_data=size > MAX_PROTOBUF)


def write_openvino(graph: Graph, program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a traced graph as OpenVINO's model.xml and model.bin, by way of ONNX."""
    openvino = need("openvino", "openvino")
    onnx = path.with_suffix(".onnx")
    write_onnx(graph, program, onnx)
    openvino.save_model(openvino.convert_model(str(onnx)), str(path), compress_to_fp16=False)
    onnx.unlink()


def write_pt2(graph: Graph, program: torch.export.ExportedProgram, path: Path) -> None:  # noqa: ARG001 - as others
    """Write a traced graph in PyTorch's format."""
    torch.export.save(program, path)


_WRITERS: dict[Format, Callable[[Graph, torch.export.ExportedProgram, Path], None]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "pt2": write_pt2,
    "web": write_onnx,
}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and log lines of exporters, which are about themselves."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "torch.export")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
