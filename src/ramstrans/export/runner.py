"""Run an exported graph: by onnxruntime, OpenVINO or torch, whichever its file needs; without torch else."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramstrans.errors import UsageError, WeightsError

INPUT = "pixels"
"""Name of the graph's input: (B, 3, height, width) uint8, RGB."""

OUTPUTS = ("probabilities", "scale_probabilities", "boxes", "found", "saliency")
"""Names of the graph's outputs; with one scale there are only the first two."""

UNKNOWN_SCORE = "unknown_score"
"""Name of a further output, of models that are calibrated to tell the unknown."""

NAMES_FILE = "outputs.txt"
"""In a pt2 file, whose outputs have no names: theirs, separated by spaces."""

FILES = {"onnx": "model.onnx", "openvino": "model.xml", "pt2": "model.pt2", "web": "model.onnx"}
"""File of the graph by format."""

_LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch"}

Runner = Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]
"""From pixels (B, 3, height, width) to the outputs by name."""


def open_graph(folder: Path, num_threads: int = 0, *, shares_cores: bool = False) -> Runner:
    """Load the graph of an exported folder.

    Args:
        folder: Of `ramstrans export`.
        num_threads: Of the processor; 0: as the library chooses.
        shares_cores: Whether other threads compute meanwhile. onnxruntime's threads then sleep between
            operations instead of spinning: a little slower alone, much faster beside others.

    Raises:
        WeightsError: There is no graph in the folder, or none that the library can load.
        UsageError: The library that runs it is not installed.
    """
    for name, file in FILES.items():
        if (folder / file).is_file():
            library = need(_LIBRARIES[name], "onnx" if name == "pt2" else name)
            try:
                return _OPENERS[name](library, folder / file, num_threads, shares_cores)
            except Exception as error:  # each library raises kinds of its own
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                raise WeightsError(
                    f"{folder / file} cannot be loaded by {_LIBRARIES[name]} ({reason}); "
                    "export the model again, or with another --format"
                ) from error
    raise WeightsError(
        f"{folder} has none of {', '.join(FILES.values())}; give a folder of `ramstrans export`"
    )


def format_of(folder: Path) -> str | None:
    """The format of an exported folder, or None."""
    return next((name for name, file in FILES.items() if (folder / file).is_file()), None)


def need(library: str, extra: str) -> Any:  # noqa: ANN401 - a module
    """Import an optional library.

    Raises:
        UsageError: It is not installed; the message names the extra.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise UsageError(f'{library} is not installed; pip install "ramstrans[{extra}]"') from error


def _open_onnx(runtime: Any, path: Path, num_threads: int, shares_cores: bool) -> Runner:  # noqa: ANN401
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(not shares_cores)))
    options.log_severity_level = 3  # warnings are about the graph, which was checked
    session = runtime.InferenceSession(str(path), options, providers=runtime.get_available_providers())
    names = [output.name for output in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(names, {INPUT: pixels}), strict=True))


def _open_openvino(openvino: Any, path: Path, num_threads: int, _shares_cores: bool) -> Runner:  # noqa: ANN401
    # like PyTorch; its default, bfloat16 where the processor has it, changes answers
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if num_threads:
        config["INFERENCE_NUM_THREADS"] = num_threads
    compiled = openvino.Core().compile_model(str(path), "CPU", config)
    names = [output.get_any_name() for output in compiled.outputs]
    return lambda pixels: {
        name: np.array(value) for name, value in zip(names, compiled([pixels]).values(), strict=True)
    }


def _open_pt2(torch: Any, path: Path, num_threads: int, _shares_cores: bool) -> Runner:  # noqa: ANN401
    if num_threads:
        torch.set_num_threads(num_threads)
    extra = {NAMES_FILE: ""}
    graph = torch.export.load(path, extra_files=extra).module()
    names = extra[NAMES_FILE].split()

    def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            outputs = graph(torch.from_numpy(pixels))
        return dict(zip(names, (output.numpy() for output in outputs), strict=True))

    return run


_OPENERS = {"onnx": _open_onnx, "openvino": _open_openvino, "pt2": _open_pt2}
