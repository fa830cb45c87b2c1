"""Write a graph as a file: ONNX, OpenVINO, or PyTorch's own."""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ramstrans.data.preprocessing import Size
from ramstrans.errors import RamsTransError, UsageError
from ramstrans.export.graph import Graph
from ramstrans.export.runner import FILES, INPUT, NAMES_FILE, need
from ramstrans.models.function_mode import FunctionMode

if TYPE_CHECKING:
    import onnx_ir as ir

Format = Literal["onnx", "openvino", "pt2", "web"]

OPSET = 20
"""Of ONNX: the first with a GridSample of any rank and Gelu; onnxruntime knows it since 1.17."""

MAX_BATCH = 2**15
"""Most images of a batch that a graph is exported for."""

MAX_PROTOBUF = 2**31 - 2**24
"""Bytes of weights above which ONNX keeps them in a file of their own, `model.onnx.data`."""

LIBRARIES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "pt2": (),
}
"""What each format is written and run by."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Key of a node's metadata: the list of the modules that it lies in, as text."""


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
    check_libraries(name)
    _WRITERS[name](graph, traced(graph, size), path)
    return path


def convert(onnx: Path, folder: Path, name: Format) -> Path:
    """Write a graph that is an ONNX file into another folder, as ONNX or OpenVINO; returns its file."""
    path = folder / FILES[name]
    if name == "openvino":
        openvino_of(onnx, path)
    else:
        for source in onnx.parent.glob(f"{onnx.name}*"):  # weights may be in a file of their own
            shutil.copy(source, folder / source.name)
    return path


def check_libraries(name: Format) -> None:
    """Raise, before any work is done, unless the libraries that write and run a format are installed.

    Raises:
        UsageError: One is missing; the message names the extra.
    """
    for library in LIBRARIES.get(name, LIBRARIES["onnx"]):
        need(library, "openvino" if name == "openvino" else "onnx")


def traced(graph: Graph, size: Size) -> torch.export.ExportedProgram:
    """The graph for any batch, as `torch.export` sees it.

    Raises:
        UsageError: The backbone does something that depends on the values of pixels.
    """
    example = torch.zeros(2, 3, *size, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with torch.no_grad(), quiet(), refusing(graph), _FlatAttention():
        return torch.export.export(graph, (example,), dynamic_shapes=({0: batch},))


class _FlatAttention(FunctionMode):
    """Give attention that has windows or groups beside batch and heads, and no mask, four dimensions.

    Hiera, Nest and Twins have five, which PyTorch's ONNX exporter does not take.
    """

    function = staticmethod(F.scaled_dot_product_attention)

    def _replacement(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """See `FunctionMode`."""
        is_masked = any(isinstance(given, Tensor) for given in (*args, *kwargs.values()))
        if query.ndim <= 4 or is_masked:
            return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)
        flat: list[Any] = [tensor.flatten(0, -4) for tensor in (query, key, value)]
        attended = F.scaled_dot_product_attention(*flat, *args, **kwargs)
        return attended.reshape(*query.shape[:-1], value.shape[-1])


@contextmanager
def refusing(graph: Graph) -> Iterator[None]:
    """Turn what an exporter raises into one line about the backbone.

    Raises:
        UsageError: It cannot be exported.
    """
    try:
        yield
    except RamsTransError:
        raise
    except Exception as error:  # torch raises many kinds
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:200]
        name = type(graph.model.encoder.model).__name__
        raise UsageError(
            f"a {name} cannot be exported as one graph ({type(cause).__name__}: {reason}); see docs/export.md"
        ) from error


def write_onnx(graph: Graph, program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a traced graph as ONNX."""
    size = sum(weight.numel() * weight.element_size() for weight in graph.state_dict().values())
    with quiet(), refusing(graph):
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(graph.output_names),
            custom_translation_table={torch.ops.aten.sort.stable: sort_stable},
            verbose=False,
        )
    assert exported is not None, "with dynamo"
    tidy(exported.model)
    exported.save(str(path), external_data=size > MAX_PROTOBUF)


def sort_stable(
    values: Any,  # noqa: ANN401 - a value of onnxscript
    stable: bool | None = None,  # noqa: ARG001 - TopK always is: of equal values the first comes first
    dim: int = -1,
    descending: bool = False,
) -> Any:  # noqa: ANN401
    """ONNX's way to sort, which PyTorch's exporter lacks for `stable=True`."""
    from onnxscript import opset20 as onnx

    count = onnx.Shape(values, start=dim, end=None if dim == -1 else dim + 1)
    return onnx.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def tidy(model: "ir.Model") -> None:
    """Store weights as their products take them, and forget the exporter's notes but `SCOPES`.

    A transposed weight is known to quantisers and converters as a weight; the notes hold lines of source code
    and folders of this machine. Limits of fused clips get back into the graph: onnxscript names them by what
    is clipped, and keeps one of each name.
    """
    from onnxscript.optimizer import optimize_ir

    optimize_ir(model, should_fold=lambda node: True if node.op_type == "Transpose" else None)
    for index, node in enumerate(model.graph):
        for value in node.inputs:
            if value is not None and value.const_value is not None and value.producer() is None:
                model.graph.initializers[str(value.name)] = value
        node.name = f"{node.op_type}_{index}"  # some have the same, which quantisers do not take
        scopes = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()
        node.doc_string = None
        if scopes is not None:
            node.metadata_props[SCOPES] = scopes
        for output in node.outputs:
            output.metadata_props.clear()


def write_openvino(graph: Graph, program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a traced graph as OpenVINO's model.xml and model.bin, by way of ONNX."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        onnx = Path(folder, FILES["onnx"])
        write_onnx(graph, program, onnx)
        openvino_of(onnx, path)


def openvino_of(onnx: Path, path: Path, *, half: bool = False) -> None:
    """Convert an ONNX file to OpenVINO's model.xml and model.bin; with `half`, weights in float16."""
    openvino = need("openvino", "openvino")
    path.with_suffix(".bin").unlink(missing_ok=True)  # an open one is mapped into memory
    openvino.save_model(openvino.convert_model(str(onnx)), str(path), compress_to_fp16=half)


def write_pt2(graph: Graph, program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a traced graph in PyTorch's format."""
    torch.export.save(program, path, extra_files={NAMES_FILE: " ".join(graph.output_names)})


_WRITERS: dict[Format, Callable[[Graph, torch.export.ExportedProgram, Path], None]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "pt2": write_pt2,
    "web": write_onnx,
}

NOISY = ("root", "torch.onnx", "onnxscript", "torch.export", "nncf")
"""Loggers of exporters and quantisers; onnxruntime's quantiser logs to the root."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and log lines of exporters, which are about themselves."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    root = logging.getLogger()
    handlers = root.handlers[:]  # the first message to the root adds one, which would repeat all of ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
