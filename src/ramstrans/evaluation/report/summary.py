"""A report in plain words: what was tested, how often the answer was right, what to be careful of."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from ramstrans.evaluation.report.markdown import images_of, zooms
from ramstrans.plain import counted

Report = Mapping[str, Any]

FEW_PER_CLASS, FEW_IN_ALL = 20, 200
"""With fewer images than these, the accuracy of a class, or of all, is uncertain by 20 or by 7 points."""
UNBALANCED = 5
"""Times as many images in the largest class as in the smallest."""
MISLEADING = 5
"""Percentage points by which confidence and accuracy may differ before a reader is told."""


class Tile(NamedTuple):
    """A figure that is seen first: what it is, its value, and how certain it is."""

    what: str
    value: str
    note: str


def tiles(report: Report) -> list[Tile]:
    """The figures that matter most."""
    fused, gain = report["fused"], report["zoom_gain"]
    found = [Tile("right answers", f"{fused['top1']:.1f} %", percent_range(fused["top1_interval"]))]
    if len(report["scales"]) > 1:
        interval = "{:+.1f} to {:+.1f}".format(*gain["interval"])
        found.append(Tile("by looking again", f"{gain['points']:+.1f} points", interval))
    if len(report["classes"]) > 5:
        found.append(Tile("right among the first five", f"{fused['top5']:.1f} %", "top-5"))
    mean = f"{fused['mean_class_accuracy']:.1f} %"
    found.append(Tile("each class with the same weight", mean, "mean class accuracy"))
    return found


def summary(report: Report) -> list[str]:
    """What was tested, how often it was right, and what further scales add; a sentence or two each."""
    found = [_tested(report), _right(report), *_second_look(report), *_confused(report)]
    return [*found, *_confidence(report), *_ranks(report)]


def cautions(report: Report) -> list[str]:
    """What a reader must be careful of, with the warnings of the report."""
    present = [entry for entry in report["classes"] if entry["num_images"]]
    counts = [entry["num_images"] for entry in present]
    few = [entry for entry in present if entry["num_images"] < FEW_PER_CLASS]
    found = []
    if report["num_images"] < FEW_IN_ALL:
        found.append(
            f"{counted(report['num_images'], 'image')} are few: other images of the same kind may well give "
            "another accuracy, as the interval shows."
        )
    if few:
        who = "Every class has" if len(few) == len(present) else f"{len(few)} of {len(present)} classes have"
        found.append(
            f"{who} fewer than {FEW_PER_CLASS} images here (median of all: {median(counts):g}). The accuracy "
            "of such a class is a rough figure; its interval says how rough."
        )
    if max(counts) >= UNBALANCED * min(counts):
        found.append(
            f"The classes are unbalanced: from {min(counts)} to {counted(max(counts), 'image')}. Large ones "
            "determine the share of right answers; with the same weight for each class it is "
            f"{report['fused']['mean_class_accuracy']:.1f} %."
        )
    return [*found, *(f"{line[:1].upper()}{line[1:]}." for line in report["warnings"])]


def _ranks(report: Report) -> list[str]:
    """How often an answer at some rank is certain; nothing if the model has no ranks."""
    if "ranks" not in report or report["ranks"]["right"] is None:
        return []
    ranks = report["ranks"]
    return [
        f"With the ranks of the classes, {100 - ranks['unanswered']:.1f} % of the images get an answer that "
        f"is {ranks['confidence']:g} % sure, be it a class or a group of classes; {ranks['right']:.1f} % of "
        "these answers are right."
    ]


def percent_range(interval: Sequence[float]) -> str:
    """An interval of a share.

    >>> percent_range([80.64, 84.62])
    '80.6 to 84.6 %'
    """
    return "{:.1f} to {:.1f} %".format(*interval)


def _tested(report: Report) -> str:
    present = sum(bool(entry["num_images"]) for entry in report["classes"])
    return f"Tested on {images_of(report)}, of {counted(present, 'class')}."


def _right(report: Report) -> str:
    fused = report["fused"]
    num_right = round(fused["top1"] * report["num_images"] / 100)
    words = (
        f"The answer was right for {num_right} of them: {fused['top1']:.1f} %. For other images of the same "
        f"kind, {percent_range(fused['top1_interval'])} is to be expected (95 % interval)."
    )
    if len(report["classes"]) > 5:
        words += f" The right class was among the first five for {fused['top5']:.1f} %."
    return words


def _second_look(report: Report) -> list[str]:
    number = len(report["scales"])
    if number == 1:
        return [] if report.get("regions_used") else ["The model looks once, at the whole image."]
    gain = report["zoom_gain"]
    low, high = gain["interval"]
    looks = "a second look at a region" if number == 2 else f"{number - 1} further looks at regions"
    words = (
        f"With {looks}, {counted(gain['corrected'], 'answer')} became right and {gain['spoiled']} became "
        f"wrong: {gain['points']:+.1f} points against the first look alone, {low:+.1f} to {high:+.1f} with "
        "other images (95 % interval)"
    )
    if low <= 0 <= high:
        words += "; that may be chance"
    elif high < 0:
        words += "; the first look alone is better here"
    areas = " and ".join(f"{regions['mean_area']:.0f} %" for _, regions in zooms(report))
    return [
        f"{words}. A region covers {areas} of the image on average; each look costs another pass through the "
        "network."
    ]


def _confused(report: Report) -> list[str]:
    if not report["confused"]:
        return ["No image was classified wrongly."]
    pair = report["confused"][0]
    if pair["count"] == 1:
        return []
    return [
        f"The most frequent mistake: {pair['true']} taken for {pair['predicted']}, {pair['count']} of "
        f"{counted(pair['num_images'], 'image')}."
    ]


def _confidence(report: Report) -> list[str]:
    """Whether probabilities mean what they say; nothing if a calibration says it."""
    fused = report["fused"]
    gap = fused["confidence"] - fused["top1"]
    how = "about as often" if abs(gap) < MISLEADING else "less often" if gap > 0 else "more often"
    words = (
        f"Its highest probability is {fused['confidence']:.0f} % on average, and it is right {how}: "
        f"{fused['top1']:.0f} %."
    )
    if "calibration" in report:
        after = report["calibration"]["fused"]["after"]["ece"]
        words += (
            f" After calibration it is off by {after:.1f} points on average, before by {fused['ece']:.1f}."
        )
    elif fused["ece"] >= MISLEADING:
        off = f"{fused['ece']:.1f} points"
        words += f" Probabilities are off by {off} on average: do not read them as chances of being right."
    return [words]
