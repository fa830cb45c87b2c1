"""The folder of an exported model: the graph, what is needed to use it, and how well it was checked."""

import ast
import json
import logging
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import ramstrans
from ramstrans.calibration.fitted import CALIBRATION_FILE
from ramstrans.console import Progress, no_progress
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import UsageError
from ramstrans.export.formats import Format, check_libraries, convert, write_graph
from ramstrans.export.graph import Graph
from ramstrans.export.judge import Judgement
from ramstrans.export.quantize import halve, head_names
from ramstrans.export.runner import FILES, UNKNOWN_SCORE
from ramstrans.export.smaller import Int8, in_words, megabytes, write_int8
from ramstrans.export.standalone import LABELS, PREPROCESSING, THRESHOLDS, pixels_size
from ramstrans.export.verify import Check, check_tolerance, rules_in_words, verify
from ramstrans.export.web import check_page, page_readme, write_page
from ramstrans.files import new_folder
from ramstrans.inference.predictor import Predictor
from ramstrans.plain import counted

logger = logging.getLogger(__name__)

CHECK_FILE = "verification.json"

PREDICT = '''"""Classify photographs: `python predict.py FILES|FOLDERS` prints a line of JSON each.

Needs {libraries}; not PyTorch. `python predict.py --help` has the options.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER / "lib"))

from ramstrans.export.standalone import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(FOLDER))
'''
"""The text of predict.py."""

_RUNTIME = {"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch"}


def export_folder(
    predictor: Predictor,
    output: Path,
    format_name: Format,
    photographs: list[Path],
    runtime: Path | None = None,
    *,
    precision: Literal["fp32", "fp16"] = "fp32",
    int8: Int8 | None = None,
    progress: Progress = no_progress,
) -> Check:
    """Write a model as a folder that stands alone, checked on photographs; or nothing.

    Args:
        predictor: Of the model, in fp32 on the CPU, without early exit.
        output: The folder: new, or empty.
        format_name: Of the graph.
        photographs: To compare the answers on.
        runtime: With format `web`, the folder of npm's onnxruntime-web; None: npm gets it.
        precision: What the backbone computes in.
        int8: Quantise the backbone, calibrated and judged on these photographs.
        progress: Called while a graph in int8 is judged.

    Raises:
        RamsTransError: It cannot be exported, or answers differently; nothing is left behind.
    """
    check_format(format_name, precision, int8=int8 is not None)
    graph = graph_of(predictor, format_name)
    programs = check_page(graph, runtime) if format_name == "web" else None
    size = pixels_size(predictor.metadata.preprocessing)
    with new_folder(output) as draft, tempfile.TemporaryDirectory(dir=draft) as work:
        if precision == "fp32" and int8 is None:
            source, file = None, write_graph(graph, size, draft, format_name)
        else:
            source = write_graph(graph, size, Path(work), "onnx")
            file = convert(source, draft, format_name)
        write_answers(predictor, draft)
        write_program(draft, format_name, programs)
        check = verify(predictor, graph, draft, photographs)
        check_tolerance(check)
        if source is not None:
            found = make_smaller(source, file, format_name, head_names(graph), int8, progress)
            check = verify(predictor, graph, draft, photographs, "fp16" if found is None else "int8")
            check = check._replace(int8=found)
            check_tolerance(check)
        logger.info("%s: %.1f MB", file.name, megabytes(draft))
        (draft / CHECK_FILE).write_text(json.dumps(check._asdict(), indent=2) + "\n", encoding="utf-8")
        text = page_readme(predictor, check) if programs else readme(predictor, format_name, check)
        (draft / "README.md").write_text(text, encoding="utf-8")
    return check


def graph_of(predictor: Predictor, format_name: Format) -> Graph:
    """A model as a graph, with its temperatures and its score of the unknown.

    Raises:
        UsageError: It cannot be one graph.
    """
    return Graph(
        predictor.model,
        predictor.metadata,
        calibration=predictor.calibration,
        by_products=format_name == "web",
    )


def check_format(name: Format, precision: str, *, int8: bool) -> None:
    """Raise, before any work is done, unless a format can have what is asked for.

    Raises:
        UsageError: It cannot, or a library is missing.
    """
    if int8 and precision != "fp32":
        raise UsageError("--int8 true and --precision fp16 exclude each other; give one of them")
    if (int8 or precision != "fp32") and name not in ("onnx", "openvino"):
        asked = "--int8 true" if int8 else f"--precision {precision}"
        raise UsageError(f"{asked} is for --format onnx and openvino; --format {name} keeps fp32")
    check_libraries(name)


def make_smaller(
    source: Path,
    file: Path,
    format_name: Format,
    heads: tuple[str, ...],
    int8: Int8 | None,
    progress: Progress,
) -> dict[str, Any] | None:
    """Put a graph of fewer bits in the place of an exported folder's: float16, or int8 with its judgement."""
    if int8 is None:
        halve(source, file, format_name, heads)
        return None
    return write_int8(source, file.parent, format_name, heads, int8, progress)


def write_answers(predictor: Predictor, folder: Path) -> None:
    """Write what turns photographs into pixels, and outputs into answers."""
    write_labels(predictor, folder)
    if predictor.thresholds is not None:
        (folder / THRESHOLDS).write_text(json.dumps(list(predictor.thresholds)) + "\n", encoding="utf-8")
    if predictor.calibration is not None:
        (folder / CALIBRATION_FILE).write_text(
            predictor.calibration.to_json(), encoding="utf-8", errors="backslashreplace"
        )


def write_program(folder: Path, format_name: Format, programs: list[Path] | None) -> None:
    """Write what runs the graph: predict.py with the modules that it needs, or a page with its runtime."""
    if programs is not None:
        write_page(folder, programs)
        return
    write_library(folder / "lib")
    text = PREDICT.format(libraries=f"numpy, Pillow and {_RUNTIME[format_name]}")
    (folder / "predict.py").write_text(text, encoding="utf-8")


def write_labels(predictor: Predictor, folder: Path) -> None:
    """Write the names of the classes, and how photographs become pixels."""
    names = json.dumps(list(predictor.class_names), ensure_ascii=False, indent=0)
    (folder / LABELS).write_text(names + "\n", encoding="utf-8", errors="backslashreplace")
    values = preprocessing_values(predictor.metadata.preprocessing, predictor.max_pixels)
    (folder / PREPROCESSING).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def preprocessing_values(preprocessing: Preprocessing, max_pixels: int) -> dict[str, Any]:
    """How photographs become the pixels of a graph, as plain values."""
    height, width = pixels_size(preprocessing)
    return {
        "resize": preprocessing.resize,
        "crop": list(preprocessing.crop),
        "fit": preprocessing.fit,
        "height": height,
        "width": width,
        "channels": "RGB",
        "max_pixels": max_pixels,
    }


def write_library(folder: Path) -> None:
    """Copy the modules that predict.py needs: those of the package that it imports, and that they import."""
    for name in sorted(closure("ramstrans.export.standalone")):
        source = _source(name)
        assert source is not None, name
        target = folder.joinpath(*name.split("."))
        if source.name == "__init__.py":
            target = target / "__init__.py"
            text = f'"""Part of ramstrans {ramstrans.__version__}."""\n'
            if name == "ramstrans":
                text += f'\n__version__ = "{ramstrans.__version__}"\n'
        else:
            target, text = target.with_suffix(".py"), source.read_text(encoding="utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def closure(name: str) -> set[str]:
    """The package's modules that a module needs to be imported, directly or not, and their packages."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        source = None if module in found else _source(module)
        if source is None:
            continue
        found.add(module)
        waiting.append(module.rpartition(".")[0] or module)
        if source.name != "__init__.py":
            waiting += imports(source.read_text(encoding="utf-8"))
    return found


def imports(text: str) -> Iterator[str]:
    """Names of the package's modules that are imported at the top of a module's text.

    >>> list(imports("from ramstrans.errors import DataError"))
    ['ramstrans.errors', 'ramstrans.errors.DataError']
    """
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ramstrans":
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _source(module: str) -> Path | None:
    """The file of a module of the package; None if it is none."""
    try:
        spec = find_spec(module)
    except (ModuleNotFoundError, AttributeError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)


def readme(predictor: Predictor, format_name: Format, check: Check) -> str:
    """The README of an exported folder."""
    kinds = {"fp32": "", "fp16": ", the backbone in float16", "int8": ", the backbone in int8"}
    lines = [
        f"# {predictor.metadata.model.backbone}, {counted(len(predictor.class_names), 'class')}",
        "",
        f"Exported by ramstrans {ramstrans.__version__}: all from pixels to probabilities is one graph, "
        f"`{FILES[format_name]}`{kinds[check.precision]}.",
        "",
        f"    pip install numpy pillow {_RUNTIME[format_name]}",
        "    python predict.py PHOTOGRAPHS",
        "",
        *answered(predictor),
        "| name | shape | |",
        "|---|---|---|",
        *(f"| `{name}` | {shape} | {text} |" for name, shape, text in tensors(predictor)),
        "",
        *checked(check),
    ]
    return "\n".join(lines) + "\n"


def answered(predictor: Predictor) -> list[str]:
    """What `predict.py` makes of the outputs, as lines of a README."""
    if predictor.thresholds is not None:
        return [f"`present` are the labels whose probability reaches theirs in `{THRESHOLDS}`.", ""]
    if predictor.calibration is None:
        return []
    return [
        f"`unknown`, `set` and `answer` follow from `{CALIBRATION_FILE}`; `--priors FILE` says which classes",
        "occur, `--rank_confidence` how sure `answer` has to be.",
        "",
    ]


def tensors(predictor: Predictor) -> list[tuple[str, str, str]]:
    """Name, shape and meaning of what a graph takes and gives."""
    num_classes, model = len(predictor.class_names), predictor.model
    num_regions = model.num_looks - 1
    height, width = pixels_size(predictor.metadata.preprocessing)
    rows = [
        ("pixels", f"(B, 3, {height}, {width}) uint8", f"RGB, prepared as `{PREPROCESSING}` says; any B"),
        ("probabilities", f"(B, {num_classes}) float32", f"in the order of `{LABELS}`"),
        ("scale_probabilities", f"({model.num_scales}, B, {num_classes}) float32", "of each scale"),
    ]
    if num_regions:
        rows += [
            ("boxes", f"({num_regions}, B, 4) float32", "what later looks saw, `x0, y0, x1, y1` in pixels"),
            ("found", f"({num_regions}, B) bool", "false where nothing stood out"),
            ("saliency", "(B, h, w) float32", "of the first scale"),
        ]
    calibration = predictor.calibration
    rule = None if calibration is None else calibration.fused[-1].unknown
    if rule is not None:
        rows.append((UNKNOWN_SCORE, "(B,) float32", f"above {rule.threshold:.6g} the image is of no class"))
    return rows


def checked(check: Check) -> list[str]:
    """How well an export was checked, as lines of a README."""
    lines = [
        f"Checked on {counted(check.num_images, 'photograph')} against the model in PyTorch, in float32. On",
        f"the same pixels the share of equal boxes is {check.boxes_equal:g}, that of equal best classes is",
        f"{check.top1_equal:g}; where boxes are equal, probabilities differ by {check.probability:.1e}.",
        f"From file to answer the shares are {check.boxes_from_file:g} and {check.top1_from_file:g}, and the",
        f"largest difference is {check.probability_from_file:.1e}.",
    ]
    lines += rules_in_words(check)
    if check.int8 is not None:
        lines += [
            "",
            f"{in_words(Judgement(**check.int8))}; calibrated on {check.int8['num_calibrated']} photographs.",
        ]
    return lines
