"""Write what a comparison shows: compare.json, compare.md, compare.html, the plots and the answers."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ramstrans.bench.report import describe_machine
from ramstrans.compare.costs import costs_of, timing_of
from ramstrans.compare.page import blocks_of
from ramstrans.compare.plan import Plan
from ramstrans.compare.plots import plot_accuracies, plot_costs, plot_curves
from ramstrans.compare.results import Results, answers_of, read_run, summarize
from ramstrans.compare.runs import Folders
from ramstrans.console import Progress, no_progress
from ramstrans.errors import TrainingError, first_few
from ramstrans.evaluation.report.blocks import markdown_of
from ramstrans.evaluation.report.html import html_of
from ramstrans.files import make_folder, write_file

logger = logging.getLogger(__name__)

JSON_FILE, MARKDOWN_FILE, HTML_FILE = "compare.json", "compare.md", "compare.html"


def build_results(
    plan: Plan,
    folders: Folders,
    errors: Mapping[str, str],
    *,
    command: str = "",
    measure: bool = False,
    progress: Progress = no_progress,
) -> Results:
    """Sum up the finished runs of a plan and write the pages into its output.

    Args:
        plan: The plan.
        folders: Where its runs are, and the pages go.
        errors: What went wrong, by the name of the run.
        command: The line that started it, for the page.
        measure: Whether to measure the time of the models that have none yet.
        progress: Called with (done, total, what).

    Raises:
        TrainingError: No run has finished.
        DataError: Runs cannot be compared; the message says why.
    """
    done = [run for run in plan.runs if folders.is_done(run)]
    if not done:
        why = first_few([f"{name}: {error}" for name, error in errors.items()], 1) or (
            "start without --jobs 0, or wait for the process that trains them"
        )
        raise TrainingError(
            f"none of the {len(plan.runs)} runs has finished, so there is nothing to show; {why}"
        )
    costs = costs_of(done, folders, measure=measure, progress=progress)
    judged = [read_run(plan, run, folders) for run in done]
    results = summarize(plan, judged, folders, errors, costs)
    results |= {
        "command": command,
        "versions": describe_machine(torch.device("cpu"))["versions"],
        "timing": timing_of(folders),
    }
    pictures = {data: draw(data, results, folders.output / "plots") for data in plan.data}
    blocks = list(blocks_of(results, pictures))
    pages = {
        JSON_FILE: json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        MARKDOWN_FILE: markdown_of(blocks, folders.output),
        HTML_FILE: html_of(blocks),
    }
    make_folder(folders.output / "answers")
    for data in plan.data:
        of_data = [one for one in judged if one.run.data == data]
        if of_data:
            pages[f"answers/{data}.csv"] = answers_of(of_data).to_csv(index=False, lineterminator="\n")
    for name, text in pages.items():
        write_file(folders.output / name, text.encode(errors="backslashreplace"))
    return results


def draw(data: str, results: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Draw the plots of one data set; returns the files by what they show."""
    entries = [entry for entry in results["results"] if entry["data"] == data]
    if not entries:
        return {}
    paths = {name: folder / f"{data}-{name}.png" for name in ("accuracies", "costs", "curves")}
    for path in paths.values():  # what is not drawn again is of other runs
        path.unlink(missing_ok=True)
    differences = [row for row in results["to_baseline"] if row["data"] == data]
    plot_accuracies(entries, differences, results["baseline"], paths["accuracies"])
    plot_costs(entries, paths["costs"])
    plot_curves(entries, paths["curves"])
    return {name: path for name, path in paths.items() if path.is_file()}
