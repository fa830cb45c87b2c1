"""Cross-validation: one run per fold, each tested on its own part of the images, and one report."""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy.stats import t as student_t

from ramstrans.console import Progress, no_progress
from ramstrans.errors import StoppedError, UsageError
from ramstrans.evaluation.metrics import wilson_interval
from ramstrans.evaluation.report.blocks import Table
from ramstrans.evaluation.report.build import Report, print_table, print_warnings, write_report
from ramstrans.evaluation.report.html import render
from ramstrans.evaluation.report.markdown import notes, worst_classes
from ramstrans.evaluation.report.page import class_table
from ramstrans.evaluation.report.tables import table
from ramstrans.plain import to_plain
from ramstrans.training.config import OPTIONS_FILE, RunConfig
from ramstrans.training.outline import outline
from ramstrans.training.run import prepare, train
from ramstrans.training.run_folder import (
    REPORT_FILE,
    check_output,
    check_unfinished,
    claim_output,
    default_output,
    is_finished,
    options_of,
    resume_hint,
    write_options,
)
from ramstrans.training.setup import start_processes

logger = logging.getLogger(__name__)


def is_cross_validation(config: RunConfig) -> bool:
    """Whether a config asks for the runs of all folds."""
    return config.data.folds is not None and config.data.fold is None


def fold_config(config: RunConfig, fold: int, folder: Path | None, *, overwrite: bool = False) -> RunConfig:
    """The config of one fold's run."""
    data = dataclasses.replace(config.data, fold=fold)
    return dataclasses.replace(config, data=data, output=folder, overwrite=overwrite)


def cross_validate(
    config: RunConfig, *, resumes: bool = False, command: str = "", progress: Progress = no_progress
) -> tuple[Report, Path]:
    """Train and test one run per fold in `OUTPUT/fold_1`, ...; write one report of all into OUTPUT.

    Args:
        config: Options of the runs, with `data.folds`.
        resumes: Whether to go on in `config.output`: finished folds are kept, a stopped one is resumed.
        command: The line that started it, for the report.
        progress: Called with (done, total, what).

    Returns:
        The report, see `summarize`, and its folder.

    Raises:
        StoppedError: A signal came; what was done is saved.
        UsageError: There are several processes.
        RamsTransError: A run cannot be made; the message says why.
    """
    folds, output = config.data.folds, config.output or default_output(config)
    assert folds is not None, "data.folds of a cross-validation"
    if start_processes(config).num_processes > 1:
        raise UsageError(
            "data.folds makes its runs in one process, one after the other; start it without torchrun, or "
            f"start one run per fold: --data.fold 1 ... {folds}"
        )
    if resumes:
        check_unfinished(output, config)
        write_options(output, dataclasses.replace(config, output=output))  # there may be more epochs
    else:
        check_output(output, overwrite=config.overwrite)
    reports: list[Report] = []
    for fold in range(1, folds + 1):
        folder = output / f"fold_{fold}"
        if resumes and is_finished(folder, config):
            logger.info("fold %d of %d is finished: %s", fold, folds, folder)
            reports.append(json.loads((folder / REPORT_FILE).read_text(encoding="utf-8")))
            continue
        logger.info("fold %d of %d", fold, folds)
        goes_on = resumes and (folder / OPTIONS_FILE).is_file()
        run = fold_config(config, fold, folder, overwrite=folder.exists() and not goes_on)
        prepared = prepare(run, progress, resumes=goes_on)
        if fold == 1 and not resumes:
            for line in outline(prepared, folds):
                logger.info("%s", line)
            claim_output(output, overwrite=config.overwrite)
            write_options(output, dataclasses.replace(config, output=output))
        try:
            reports.append(train(prepared, folder, command=command, progress=progress))
        except StoppedError as error:
            message = str(error).replace(resume_hint(folder), resume_hint(output))
            raise StoppedError(f"fold {fold} of {folds}: {message}", error.signal_number) from error
    report = summarize(reports) | {"command": command, "config": options_of(config)}
    write_report(output, report, markdown_page(report), html_page(report))
    return report, output


def summarize(reports: Sequence[Mapping[str, Any]]) -> Report:
    """Sum up the reports of all folds; all fractions in percent.

    Returns:
        `folds` (top-1 of each scale and fused, per fold), `mean` (of the folds' fused top-1, with `sd` and
        the 95 % `interval` of `mean_interval`), `scales` and `fused` (all images, each predicted by the run
        that has not seen it: top-1 with Wilson's interval, top-5), `classes`, `num_images`, `warnings`.
    """
    top1 = [report["fused"]["top1"] for report in reports]
    classes = pooled_classes(reports)
    accuracies = [entry["accuracy"] for entry in classes if entry["num_images"]]
    scales = zip(*(report["scales"] for report in reports), strict=True)
    sizes = [report["num_images"] for report in reports]
    summary: Report = to_plain(
        {
            "folds": [
                {
                    "fold": fold,
                    "num_images": report["num_images"],
                    "top1_scales": [scale["top1"] for scale in report["scales"]],
                    "top1": report["fused"]["top1"],
                    "epoch": report["epoch"],
                    "seconds": report["seconds"],
                }
                for fold, report in enumerate(reports, start=1)
            ],
            "num_images": sum(sizes),
            "mean": {
                "top1": float(np.mean(top1)),
                "sd": float(np.std(top1, ddof=1)),
                "interval": mean_interval(top1),
            },
            "scales": [pooled(scale, sizes) for scale in scales],
            "fused": pooled([report["fused"] for report in reports], sizes)
            | {"mean_class_accuracy": float(np.mean(accuracies))},
            "classes": classes,
            "warnings": [
                f"fold {fold}: {warning}"
                for fold, report in enumerate(reports, start=1)
                for warning in report["warnings"]
            ],
        },
        "report",
    )
    return summary


def pooled(entries: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> dict[str, Any]:
    """Top-1 and top-5 over the images of all folds together.

    Args:
        entries: One scale's metrics in each fold, percent.
        sizes: Number of test images of each fold.

    >>> pooled([{"top1": 50.0, "top5": 100.0}, {"top1": 100.0, "top5": 100.0}], [2, 6])["top1"]
    87.5
    """
    right, among5 = (
        sum(round(entry[key] * size / 100) for entry, size in zip(entries, sizes, strict=True))
        for key in ("top1", "top5")
    )
    total = sum(sizes)
    return {
        "top1": 100 * right / total,
        "top1_interval": wilson_interval(right, total),
        "top5": 100 * among5 / total,
    }


def pooled_classes(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was measured of each class over all folds, as in `class_rows`, but not what it is confused with.

    The precision is None for a fold of an older version, which did not count what was taken for a class.
    """
    rows = []
    for entries in zip(*(report["classes"] for report in reports), strict=True):
        total = sum(entry["num_images"] for entry in entries)
        right = sum(
            round(entry["accuracy"] * entry["num_images"] / 100) for entry in entries if entry["num_images"]
        )
        taken = sum(entry.get("num_predicted", 0) for entry in entries)
        rows.append(
            {
                "name": entries[0]["name"],
                "num_images": total,
                "accuracy": 100 * right / total if total else None,
                "interval": wilson_interval(right, total) if total else None,
                "num_predicted": taken,
                "precision": 100 * right / taken if taken else None,
                "confused_with": None,
                "num_confused": 0,
            }
        )
    return rows


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of K folds' accuracies, within 0 and 100 percent.

    Runs of a cross-validation share most of their training images, so their spread is too small. With the
    correction of Nadeau and Bengio (2003, section 4, https://doi.org/10.1023/A:1024068626366):

        mean +- t(K - 1, 97.5 %) * sd * sqrt(1 / K + num_test / num_train)
        num_test / num_train = 1 / (K - 1)

    >>> [round(end, 2) for end in mean_interval([80, 90])]  # 85 +- 12.71 * 7.07 * sqrt(1 / 2 + 1)
    [0, 100]
    >>> [round(end, 2) for end in mean_interval([80, 84, 86, 88, 82])]  # 84 +- 2.776 * 3.162 * sqrt(0.45)
    [78.11, 89.89]
    """
    num = len(values)
    half = float(student_t.ppf(0.975, num - 1)) * float(np.std(values, ddof=1))
    half *= math.sqrt(1 / num + 1 / (num - 1))
    mean = float(np.mean(values))
    return max(mean - half, 0), min(mean + half, 100)


def headline(report: Report) -> str:
    """The mean over the folds and the pooled accuracy, in a line."""
    mean, fused = report["mean"], report["fused"]
    return (
        f"Top-1, mean of {len(report['folds'])} folds: {mean['top1']:.1f} % (standard deviation "
        f"{mean['sd']:.1f}, 95 % interval {mean['interval'][0]:.1f} - {mean['interval'][1]:.1f}); all "
        f"{report['num_images']} images, each by the run that has not seen it: {fused['top1']:.1f} % "
        f"({fused['top1_interval'][0]:.1f} - {fused['top1_interval'][1]:.1f})"
    )


def fold_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows: images, chosen epoch, and top-1 of each scale and fused, for each fold."""
    scales = [f"scale {index}" for index in range(1, len(report["scales"]) + 1)]
    rows = [
        [f"{row['fold']}", f"{row['num_images']}", f"{row['epoch']}"]
        + [f"{value:.1f}" for value in (*row["top1_scales"], row["top1"])]
        for row in report["folds"]
    ]
    return ["fold", "test images", "epoch", *scales, "fused"], rows


def print_report(report: Report, console: Console) -> None:
    """Print the folds, the headline and the warnings."""
    print_table(console, "Top-1 of each fold, percent", *fold_table(report), first_right=0)
    console.print(headline(report), highlight=False, soft_wrap=True)
    print_warnings(report, console)


def markdown_page(report: Report) -> str:
    """Render the report as Markdown."""
    folds = [f"[fold {row['fold']}](fold_{row['fold']}/report.md)" for row in report["folds"]]
    sections = [
        f"# {title(report)}",
        f"{headline(report)}.",
        "The first interval says how much the accuracy depends on which images are trained on and tested on "
        "(Student's t, corrected for runs that share training images: Nadeau and Bengio 2003); the second "
        "one is Wilson's.",
        *notes(report),
        "## Folds",
        table(*fold_table(report)),
        f"Reports: {', '.join(folds)}.",
        "## Hardest classes",
        worst_classes(report),
        "## How this was made",
        f"```\n{report['command']}\n```",
        f"Every option: `{OPTIONS_FILE}`.",
    ]
    return "\n\n".join(sections) + "\n"


def html_page(report: Report) -> str:
    """Render the report as HTML."""
    return render(
        "folds.html",
        title=title(report),
        report=report,
        headline=headline(report),
        folds=Table(*fold_table(report)),
        rows=class_table(report),
        options_file=OPTIONS_FILE,
    )


def title(report: Report) -> str:
    """What the report is about."""
    return f"Cross-validation: {len(report['folds'])} folds of {report['num_images']} images"
