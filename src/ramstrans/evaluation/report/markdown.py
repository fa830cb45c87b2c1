"""The report as a Markdown page, and what it shares with the printed table."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import yaml

from ramstrans.evaluation.report import trust
from ramstrans.evaluation.report.tables import cell, table
from ramstrans.plain import counted

REGION_ROWS = (
    ("fallbacks", "fallbacks", "", "images where nothing stood out: the next scale sees all of the input"),
    ("mean_area", "mean area", " %", "share of the image that the region covers; small means a strong zoom"),
    ("mean_iou", "mean IoU", " %", "overlap with the object's true box: intersection over union"),
    ("corloc", "CorLoc", " %", "images whose region overlaps the true box with an IoU of at least 50 %"),
    ("parts_inside", "parts inside", " %", "visible parts of the object that lie inside the region"),
)
"""Key, name, unit and meaning of each region metric."""

NUM_WORST = 10
NUM_CONFUSED = 10

WHOLE = "all"
"""The split of a report on a whole data set."""

Report = Mapping[str, Any]


def markdown_page(report: Report, pictures: Mapping[str, str], further: Sequence[str] = ()) -> str:
    """Render the whole page of a report from `build_report`.

    Args:
        report: The report.
        pictures: Figures, by their captions; paths relative to the page.
        further: More sections about the regions.
    """
    sections = [
        f"# Report: {images_of(report)}",
        *_headline(report),
        *notes(report),
        *regions_section(report),
        *further,
        *_early_exit(report),
        *trust.sections(report),
        *(["## Figures"] if pictures else []),
        *(f"![{cell(name)}]({quote(path)})\n\n*{cell(name)}*" for name, path in pictures.items()),
        "Every prediction, with its probabilities and regions: [predictions.csv](predictions.csv).",
        *_classes(report),
        *run_section(report),
    ]
    return "\n\n".join(sections) + "\n"


def images_of(report: Report) -> str:
    """How many images a report is about, and of which split.

    >>> images_of({"num_images": 7, "split": "test"}), images_of({"num_images": 7, "split": "all"})
    ('7 images of the test split', '7 images, all of the data set')
    """
    count, split = counted(report["num_images"], "image"), report["split"]
    return f"{count}, all of the data set" if split == WHOLE else f"{count} of the {split} split"


def headline(report: Report) -> tuple[list[str], list[list[str]]]:
    """The table of accuracies: its header, and a row per scale and, if there are several, for all fused.

    Top-5 is left out if there are no more than five classes.
    """
    has_top5 = len(report["classes"]) > 5
    names = scale_names(report)
    rows = [
        [
            name,
            f"{entry['top1']:.1f}",
            "{:.1f} - {:.1f}".format(*entry["top1_interval"]),
            *([f"{entry['top5']:.1f}"] if has_top5 else []),
            f"{entry['mean_class_accuracy']:.1f}",
        ]
        for name, entry in zip(names, [*report["scales"], report["fused"]], strict=False)
    ]
    header = ["", "top-1", "95 % interval", *(["top-5"] if has_top5 else []), "mean class accuracy"]
    return header, rows


LABEL_METRICS = (
    ("f1_micro", "F1, all answers alike"),
    ("f1_macro", "F1, mean over labels"),
    ("precision_micro", "precision, all answers alike"),
    ("precision_macro", "precision, mean over labels"),
    ("recall_micro", "recall, all answers alike"),
    ("recall_macro", "recall, mean over labels"),
    ("exact_match", "exact match"),
)
"""Key and name of the metrics that thresholds decide, of images that may have several labels."""


def label_headline(report: Report) -> tuple[list[str], list[list[str]]]:
    """The table for images that may have several labels: mAP of each scale, then what thresholds decide."""

    def row(name: str, entry: Mapping[str, Any], key: str) -> list[str]:
        return [name, f"{entry[key]:.1f}", "{:.1f} - {:.1f}".format(*entry[f"{key}_interval"])]

    names, fused = scale_names(report), report["fused"]
    entries = zip(names, [*report["scales"], fused], strict=False)
    rows = [row(f"mAP, {name}", entry, "map") for name, entry in entries if entry["map"] is not None]
    rows += [row(name, fused, key) for key, name in LABEL_METRICS]
    return ["", "", "95 % interval"], rows


def scale_names(report: Report) -> list[str]:
    """What each scale sees and, if there are several, the name of their mean."""
    further = [f"scale {index}: the region" for index in range(2, len(report["scales"]) + 1)]
    if further:
        mean = "weighted mean" if "fusion_weights" in report else "mean of all"
        return ["scale 1: whole input", *further, f"fused: {mean}"]
    return ["image and crop" if report.get("regions_used") else "whole input"]


def zooms(report: Report) -> list[tuple[int, Mapping[str, Any]]]:
    """Number of each scale whose region is looked at, with its region metrics."""
    count = report.get("regions_used", len(report["scales"]) - 1)
    return list(enumerate(report["regions_by_scale"][:count], start=1))


def format_value(value: float | None, unit: str) -> str:
    """Format a number for people; a dash if it is unknown.

    >>> format_value(61.26, " %"), format_value(7, ""), format_value(None, " %")
    ('61.3 %', '7', '-')
    """
    if value is None:
        return "-"
    return f"{value:.1f}{unit}" if isinstance(value, float) else f"{value}{unit}"


def _headline(report: Report) -> list[str]:
    fused = "The fused" if len(report["scales"]) > 1 else "The"
    words = (
        "All numbers in percent. The interval (95 %, Wilson) shows how much top-1 depends on the choice of "
        f"images. Mean class accuracy gives every class that has images the same weight. {fused} "
        f"probabilities are off by {report['fused']['ece']:.1f} percentage points on average (expected "
        f"calibration error, 15 bins){trust.after(report)}."
    )
    if len(report["scales"]) > 1:
        words += (
            " Compared with scale 1 alone, fusing all scales corrected "
            f"{counted(report['zoom_gain']['corrected'], 'image')} and "
            f"spoiled {report['zoom_gain']['spoiled']}."
        )
    return ["## Accuracy", table(*headline(report)), words]


def regions_section(report: Report) -> list[str]:
    """The section about regions: a table of `REGION_ROWS`, a column per scale that proposes some."""
    scales = zooms(report)
    if not scales:
        return ["## Regions", "The model looks once: it sees the whole input only, and no region is used."]
    header = ["", *(f"scale {scale} -> {scale + 1}" for scale, _ in scales), "meaning"]
    rows = [
        [name, *(format_value(regions[key], unit) for _, regions in scales), meaning]
        for key, name, unit, meaning in REGION_ROWS
    ]
    first = scales[0][1]
    words = (
        f"Measured on {counted(first['num_boxes'], 'true box')} and "
        f"{counted(first['num_parts'], 'visible part')}, which the model never sees. A dash: the data set "
        "has none. A good region is small and contains the parts."
    )
    return ["## Regions", "The region that each scale proposes for the next.", table(header, rows), words]


def early_exit_line(report: Report) -> str | None:
    """What early exit costs and saves, in a line; None if it was not evaluated."""
    early = report.get("early_exit")
    if early is None:
        return None
    return (
        f"Early exit at confidence {early['confidence']:.3f}: top-1 {early['top1']:.1f} % "
        f"({0 - early['top1_lost']:+.2f} points, {early['changed']:.2f} % of the predictions change), "
        f"{early['exited_early']:.1f} % of the images exit early, "
        f"{early['mean_scales_used']:.2f} scales on average, "
        f"{early['speedup']:.2f} times as fast"
    )


def _early_exit(report: Report) -> list[str]:
    line = early_exit_line(report)
    if line is None:
        return []
    choice = report.get("early_exit_choice")
    how = "The confidence was given."
    if choice:
        how = (
            f"The confidence was chosen on {counted(choice['num_images'], 'image')} "
            f"({choice['chosen_on']}), where it costs {choice['top1_lost']:.2f} points and takes "
            f"{choice['mean_scales_used']:.2f} scales; "
            "`ramstrans predict --early_exit auto` uses it."
        )
    seconds = report["early_exit"]["seconds"]
    return [
        "## Early exit",
        "An image whose highest mean probability reaches the confidence skips the remaining scales.",
        f"{line}.",
        f"{how} Time of the model alone, alternating batch by batch: {seconds['full']:.1f} s with all "
        f"scales, {seconds['early']:.1f} s with early exit.",
    ]


def _classes(report: Report) -> list[str]:
    num_present = sum(1 for entry in report["classes"] if entry["num_images"])
    sections = [
        "## Hardest classes",
        f"The least accurate of {counted(num_present, 'class')} with images"
        + (", all scales fused." if len(report["scales"]) > 1 else "."),
        worst_classes(report),
        "## Most confused",
    ]
    if not report["confused"]:
        return [*sections, "No image was classified wrongly."]
    pairs = [
        [pair["true"], pair["predicted"], f"{pair['count']} of {pair['num_images']}"]
        for pair in report["confused"][:NUM_CONFUSED]
    ]
    return [*sections, table(("true class", "predicted class", "images"), pairs)]


def worst_classes(report: Report) -> str:
    """The table of the least accurate classes that have images."""
    present = [entry for entry in report["classes"] if entry["num_images"]]
    worst = sorted(present, key=lambda entry: entry["accuracy"])[:NUM_WORST]
    rows = [[entry["name"], f"{entry['accuracy']:.1f} %", str(entry["num_images"])] for entry in worst]
    return table(("class", "accuracy", "images"), rows)


def notes(report: Report) -> list[str]:
    """The warnings, each as a paragraph."""
    return [f"> **Note:** {cell(warning)}." for warning in report["warnings"]]


def run_section(report: Report) -> list[str]:
    """The command, and as YAML every number and string of the report and the options of the run."""
    known = {"split", "num_images", "command"}
    values = {
        key: value
        for key, value in report.items()
        if key == "config" or (key not in known and isinstance(value, str | int | float))
    }
    command = [f"```\n{report['command']}\n```"] if "command" in report else []
    options = [f"```yaml\n{yaml.safe_dump(values, sort_keys=False)}```"] if values else []
    return ["## How this was made", *command, *options] if command or options else []
