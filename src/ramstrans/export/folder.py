"""The folder of an exported model: the graph, what is needed to use it, and how well it was checked."""

import ast
import json
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ramstrans
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.export.formats import Format, write_graph
from ramstrans.export.graph import Graph
from ramstrans.export.runner import FILES
from ramstrans.export.standalone import LABELS, PREPROCESSING, pixels_size
from ramstrans.export.verify import Check, check_tolerance, verify
from ramstrans.export.web import check_page, page_readme, write_page
from ramstrans.files import new_folder
from ramstrans.inference.predictor import Predictor
from ramstrans.plain import counted

logger = logging.getLogger(__name__)

CHECK_FILE = "verification.json"

PREDICT = '''"""Classify photographs: `python predict.py FILES|FOLDERS` prints a line of JSON each.

Needs {libraries}; not PyTorch.
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
) -> Check:
    """Write a model as a folder that stands alone, checked on photographs; or nothing.

    Args:
        predictor: Of the model, in fp32 on the CPU, without early exit.
        output: The folder: new, or empty.
        format_name: Of the graph.
        photographs: To compare the answers on.
        runtime: With format `web`, the folder of npm's onnxruntime-web; None: npm gets it.

    Raises:
        RamsTransError: It cannot be exported, or answers differently; nothing is left behind.
    """
    is_page = format_name == "web"
    graph = Graph(
        predictor.model, predictor.metadata, temperatures=temperatures_of(predictor), by_products=is_page
    )
    programs = check_page(graph, runtime) if is_page else None
    size = pixels_size(predictor.metadata.preprocessing)
    with new_folder(output) as draft:
        file = write_graph(graph, size, draft, format_name)
        logger.info("%s: %.1f MB", file.name, sum(map(_size, draft.iterdir())) / 1e6)
        write_labels(predictor, draft)
        if programs is not None:
            write_page(draft, programs)
        else:
            write_library(draft / "lib")
            text = PREDICT.format(libraries=f"numpy, Pillow and {_RUNTIME[format_name]}")
            (draft / "predict.py").write_text(text, encoding="utf-8")
        check = verify(predictor, graph, draft, photographs)
        check_tolerance(check)
        (draft / CHECK_FILE).write_text(json.dumps(check._asdict(), indent=2) + "\n", encoding="utf-8")
        text = page_readme(predictor, check) if is_page else readme(predictor, format_name, check)
        (draft / "README.md").write_text(text, encoding="utf-8")
    return check


def temperatures_of(predictor: Predictor) -> tuple[tuple[float, ...], float] | None:
    """The temperatures of each scale that is exported, and of their mean; None if it is not calibrated."""
    calibration, count = predictor.calibration, predictor.model.num_scales
    return None if calibration is None else (calibration.scales[:count], calibration.temperatures[count - 1])


def write_labels(predictor: Predictor, folder: Path) -> None:
    """Write the names of the classes, and how photographs become pixels."""
    names = json.dumps(list(predictor.class_names), ensure_ascii=False, indent=0)
    (folder / LABELS).write_text(names + "\n", encoding="utf-8")
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


def _size(path: Path) -> int:
    return path.stat().st_size


def readme(predictor: Predictor, format_name: Format, check: Check) -> str:
    """The README of an exported folder."""
    num_classes, num_scales = len(predictor.class_names), predictor.model.num_scales
    height, width = pixels_size(predictor.metadata.preprocessing)
    rows = [
        ("pixels", f"(B, 3, {height}, {width}) uint8", f"RGB, prepared as `{PREPROCESSING}` says; any B"),
        ("probabilities", f"(B, {num_classes}) float32", f"in the order of `{LABELS}`"),
        ("scale_probabilities", f"({num_scales}, B, {num_classes}) float32", "of each scale"),
    ]
    if num_scales > 1:
        rows += [
            (
                "boxes",
                f"({num_scales - 1}, B, 4) float32",
                "what later scales saw, `x0, y0, x1, y1` in pixels",
            ),
            ("found", f"({num_scales - 1}, B) bool", "false where nothing stood out"),
            ("saliency", "(B, h, w) float32", "of the first scale"),
        ]
    lines = [
        f"# {predictor.metadata.model.backbone}, {counted(num_classes, 'class')}",
        "",
        f"Exported by ramstrans {ramstrans.__version__}: all from pixels to probabilities is one graph, "
        f"`{FILES[format_name]}`.",
        "",
        f"    pip install numpy pillow {_RUNTIME[format_name]}",
        "    python predict.py PHOTOGRAPHS",
        "",
        "| name | shape | |",
        "|---|---|---|",
        *(f"| `{name}` | {shape} | {text} |" for name, shape, text in rows),
        "",
        f"Checked on {counted(check.num_images, 'photograph')} against the model in PyTorch: on the same",
        f"pixels probabilities differ by at most {check.probability:.1e}, and the share of equal boxes is",
        f"{check.boxes_equal:g}; from file to answer by at most {check.probability_from_file:.1e}, with the",
        f"same best class for {100 * check.top1_from_file:.1f} % of them.",
    ]
    return "\n".join(lines) + "\n"
