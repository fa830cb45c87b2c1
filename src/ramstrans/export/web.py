"""A page that runs a model in the browser: the page's files, the runtime beside them, and what they need."""

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path

import ramstrans
from ramstrans.calibration.fitted import CALIBRATION_FILE
from ramstrans.data.geometry import FILL
from ramstrans.data.reading.decode import MAX_ELONGATION
from ramstrans.errors import UsageError
from ramstrans.export.graph import Graph
from ramstrans.export.npm import RUNTIME, runtime_files
from ramstrans.export.runner import FILES
from ramstrans.export.standalone import THRESHOLDS
from ramstrans.export.verify import Check, rules_in_words
from ramstrans.inference.predictor import Predictor
from ramstrans.plain import counted

PAGE = "page.json"
"""What the page has to know before it loads the model."""

MAX_BYTES = 10**9
"""Largest weights: a browser holds them several times, in at most 4 GB."""

_SERVED, _IN_BROWSER = 'data-answers="server"', 'data-answers="browser"'


def check_page(graph: Graph, runtime: Path | None) -> list[Path]:
    """The files of the runtime, if a model can run in a browser.

    Args:
        graph: Of the model.
        runtime: Folder of npm's onnxruntime-web; None: npm gets it once.

    Raises:
        UsageError: The model is too large, or the runtime is not there.
    """
    size = sum(weight.numel() * weight.element_size() for weight in graph.state_dict().values())
    if size > MAX_BYTES:
        raise UsageError(
            f"the weights have {size / 1e6:,.0f} MB, and a browser can hold {MAX_BYTES / 1e6:,.0f} MB; "
            "export another format and serve that, or train a smaller model.backbone"
        )
    return runtime_files(runtime)


def write_page(folder: Path, programs: list[Path]) -> None:
    """Write the page and the runtime beside the graph of an exported folder.

    Args:
        folder: Has the graph and what turns its outputs into answers.
        programs: Files of the runtime; modules get the suffix .js, which every server knows.
    """
    with as_file(files("ramstrans") / "web") as page:
        shutil.copytree(page, folder, dirs_exist_ok=True)
    index = folder / "index.html"
    text = index.read_text(encoding="utf-8")
    assert text.count(_SERVED) == 1, "the page says once where answers come from"
    index.write_text(text.replace(_SERVED, _IN_BROWSER), encoding="utf-8")
    (folder / "server.js").unlink()
    for program in programs:
        name = program.name.removesuffix(".mjs") + ".js" if program.suffix == ".mjs" else program.name
        shutil.copyfile(program, folder / "runtime" / name)
    loaded = [folder / FILES["web"], *sorted((folder / "runtime").glob("*.wasm"))]
    values = {
        "ramstrans_version": ramstrans.__version__,
        "runtime": RUNTIME,
        "fill": list(FILL),
        "max_elongation": MAX_ELONGATION,
        "is_calibrated": (folder / CALIBRATION_FILE).is_file(),
        "has_thresholds": (folder / THRESHOLDS).is_file(),
        "bytes": {path.relative_to(folder).as_posix(): path.stat().st_size for path in loaded},
    }
    (folder / PAGE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def page_readme(predictor: Predictor, check: Check) -> str:
    """The README of a page."""
    num_classes = counted(len(predictor.class_names), "class")
    lines = [
        f"# {predictor.metadata.model.backbone}, {num_classes}: a page",
        "",
        f"Exported by ramstrans {ramstrans.__version__}. The page classifies photographs in the browser:",
        "they stay on the device, and nothing is requested but the files of this folder. Any static web",
        "server will do:",
        "",
        "    python -m http.server --directory .",
        "",
        "Then open http://localhost:8000. A browser does not run the page from a file:// address.",
        "",
        f"`{FILES['web']}` is the model, from pixels to probabilities; `runtime/` is {RUNTIME} (MIT).",
        "",
        f"Checked on {counted(check.num_images, 'photograph')} against the model in PyTorch, by onnxruntime:",
        f"on the same pixels probabilities differ by at most {check.probability:.1e}, and the share of equal",
        f"boxes is {check.boxes_equal:g}; from file to answer by at most {check.probability_from_file:.1e},",
        "each where boxes are equal,",
        f"with the same best class for {100 * check.top1_from_file:.1f} % of them.",
    ]
    return "\n".join([*lines, *rules_in_words(check)]) + "\n"
