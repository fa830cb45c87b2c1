"""The benchmark as a table, as JSON and as a picture."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from ramstrans.bench.cases import Case
from ramstrans.bench.results import Result
from ramstrans.errors import OutputError
from ramstrans.evaluation.report.style import FUSED_COLOR, RIGHT_COLOR, WRONG_COLOR, save_figure
from ramstrans.files import write_file

FORMAT_VERSION = 1
JSON_FILE, PICTURE_FILE = "bench.json", "bench.png"
UNJUDGED_COLOR = "#8899AA"


def check_output(output: Path) -> None:
    """Raise OutputError if a benchmark may not be written there; better known before it is run."""
    if output.is_dir() and any(output.iterdir()):
        raise OutputError(f"--output {output} exists; give another folder")
    nearest = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise OutputError(f"--output {output}: {nearest} is no folder that you can write to; give another")


def write_json(output: Path, machine: Mapping[str, Any], **measured: object) -> None:
    """Write bench.json: the machine, and what was measured on it."""
    values = {"format_version": FORMAT_VERSION, "machine": machine} | measured
    write_file(output / JSON_FILE, (json.dumps(values, indent=2) + "\n").encode())


def results_table(results: Sequence[Result]) -> Table:
    """A row for each case."""
    table = Table(title="For one image; ratio: median over rounds", title_justify="left", box=None)
    for heading in ("case", "model, batch", "figure"):
        table.add_column(heading, no_wrap=True)
    for heading in ("first", "second", "GMACs", "ratio", "middle half", "reach", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(*row_of(result))
    return table


def row_of(result: Result) -> tuple[str, ...]:
    """The cells of one case."""
    case, best, ratio = result.case, result.best, result.ratio
    model = f"{case.backbone.removesuffix('_patch16_224')}, {case.batch_size}"
    start = (result.name, model, " / ".join(case.figure))
    reach = case.reach_text("cuda" if case.needs_gpu else result.device_type)
    if best is None or ratio is None or result.macs is None:
        return (*start, "", "", "", "", f"not measured: {result.why_not}", reach, "")
    amounts = [amount(case, best.of_one_image(name)) for name in case.figure]
    work = f"{result.macs.ours / 1e9:.1f}"
    middle = f"{short(ratio.low)} - {short(ratio.high)}" if case.measure == "time" else ""
    verdict = {True: "yes", False: "no", None: ""}[result.reached]
    return (*start, *amounts, work, short(ratio.median), middle, reach, verdict)


def short(ratio: float) -> str:
    """A ratio with the digits that say something.

    >>> short(1.0804), short(0.000532)
    ('1.080', '0.00053')
    """
    return f"{ratio:.3f}" if ratio >= 0.1 else f"{ratio:.2g}"


def amount(case: Case, value: float) -> str:
    """Milliseconds or mebibytes."""
    return f"{value / 2**20:,.0f} MiB" if case.measure == "memory" else f"{1e3 * value:,.1f} ms"


def plot_results(results: Sequence[Result], path: Path) -> None:
    """Draw a bar for each measured case, with its middle half, and a mark at what it should reach."""
    measured = [result for result in results if result.ratio is not None]
    figure = Figure(figsize=(9, 1.4 + 0.36 * len(measured)), layout="constrained")
    axes = figure.subplots()
    for place, result in enumerate(measured):
        _bar(axes, place, result)
    labels = [f"{result.name}: {' / '.join(result.case.figure)}" for result in measured]
    axes.set_yticks(range(len(measured)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color=FUSED_COLOR, linewidth=0.8)
    axes.set(title="Ratios (mark: to be reached)", xlabel="first / second, time or memory of one image")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    save_figure(figure, path)


def _bar(axes: Axes, place: int, result: Result) -> None:
    ratio, reach = result.ratio, result.case.reach.get(result.device_type)
    assert ratio is not None, "only measured cases are drawn"
    color = {True: RIGHT_COLOR, False: WRONG_COLOR, None: UNJUDGED_COLOR}[result.reached]
    whiskers = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
    axes.barh(place, ratio.median, xerr=whiskers, color=color, height=0.6)
    axes.annotate(short(ratio.median), (ratio.high, place), (4, -3), textcoords="offset points", fontsize=8)
    if reach is not None:
        axes.plot([reach, reach], [place - 0.42, place + 0.42], color=FUSED_COLOR, linewidth=2)
