"""How far answers can be trusted, as sections of a report and lines of a terminal."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from ramstrans.calibration.unknown import Candidate
from ramstrans.evaluation.report.blocks import markdown_of
from ramstrans.evaluation.report.ranks import rank_blocks, rank_lines
from ramstrans.evaluation.report.tables import table
from ramstrans.plain import counted

Report = Mapping[str, Any]

MEASURES = (
    ("ece", "ECE", 1),
    ("adaptive_ece", "adaptive ECE", 1),
    ("nll", "NLL", 3),
    ("brier", "Brier", 3),
)
"""Key, name and digits of each measure of calibration."""

METHOD_NAMES = {"lac": "LAC", "aps": "APS", "raps": "RAPS"}

CAVEAT = (
    "The share holds for new images that are drawn as those were on which the sets were fitted: not for "
    "other cameras, places or seasons. If the epoch to keep was chosen on the same images, it is a bit lower."
)


def after(report: Report) -> str:
    """What calibration makes of the mean error of the probabilities; nothing if there is none."""
    if "calibration" not in report:
        return ""
    return f", {report['calibration']['fused']['after']['ece']:.1f} after calibration"


def calibration_table(calibration: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows: temperature, and each measure before and after, of each scale and of all together."""
    header = ["", "temperature", *(name for _, name, _ in MEASURES)]
    entries = [(f"scale {number}", entry) for number, entry in enumerate(calibration["scales"], start=1)]
    entries = [*entries, ("all together", calibration["fused"])] if len(entries) > 1 else entries
    rows = [
        [
            name,
            f"{entry['temperature']:.2f}",
            *(
                f"{entry['before'][key]:.{digits}f} -> {entry['after'][key]:.{digits}f}"
                for key, _, digits in MEASURES
            ),
        ]
        for name, entry in entries
    ]
    return header, rows


def score_name(rule: Report) -> str:
    """A score of the unknown, with its scales.

    >>> score_name({"score": "energy", "scales": [1, 2]}), score_name({"score": "knn", "scales": [1]})
    ('energy, mean of scales 1 and 2', 'knn, scale 1')
    """
    scales = rule["scales"]
    if not scales:
        return str(rule["score"])
    numbers = " and ".join(map(str, scales))
    which = f"scale {numbers}" if len(scales) == 1 else f"mean of scales {numbers}"
    return f"{rule['score']}, {which}"


def candidates_table(candidates: Sequence[Candidate]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each score of the unknown, best first, with its figures; a dash if there are none."""
    rows = [
        [
            score_name(candidate._asdict()),
            *("-" if isnan(value) else f"{value:.1f}" for value in (candidate.auroc, candidate.fpr95)),
        ]
        for candidate in candidates
    ]
    return ["score", "AUROC", "FPR95"], rows


def lines(report: Report) -> list[str]:
    """What calibration, the unknown, sets, ranks and priors come to, a line each."""
    found = []
    if calibration := report.get("calibration"):
        before, now = (calibration["fused"][when]["ece"] for when in ("before", "after"))
        found.append(f"Calibration: probabilities are off by {now:.1f} points, {before:.1f} before (ECE)")
    if unknown := report.get("unknown"):
        kinds = [
            f"{entry['name']}: AUROC {entry['auroc']:.1f} %, FPR95 {entry['fpr95']:.1f} %, "
            f"{entry['rejected']:.1f} % rejected"
            for entry in unknown["images"]
        ]
        rejected = f"{unknown['rejected']:.1f} % of the known rejected ({unknown['asked']:g} % asked)"
        found.append(f"Unknown by {score_name(unknown)}: {'; '.join([rejected, *kinds])}")
    if sets := report.get("sets"):
        used = sets["methods"][sets["method"]]
        found.append(
            f"Prediction sets ({METHOD_NAMES[sets['method']]}): {used['reached']:.1f} % have the true class "
            f"({sets['coverage']:g} % asked), {used['mean_size']:.2f} classes on average, "
            f"{used['singletons']:.1f} % have one"
        )
    return [*found, *rank_lines(report)]


def sections(report: Report) -> list[str]:
    """The sections of a page; none if the model is not calibrated."""
    return [
        *(_calibration(report["calibration"]) if "calibration" in report else []),
        *(_unknown(report["unknown"]) if "unknown" in report else []),
        *(_sets(report["sets"]) if "sets" in report else []),
        *([markdown_of(blocks, Path()).rstrip()] if (blocks := rank_blocks(report, level=2)) else []),
    ]


def _calibration(calibration: Report) -> list[str]:
    return [
        "## Calibration",
        table(*calibration_table(calibration)),
        "Before -> after temperature scaling, which was fitted on "
        f"{counted(calibration['num_images'], 'image')} ({calibration['fitted_on']}). ECE: how far "
        "confidence and accuracy are apart, percentage points, over 15 equal bins of confidence; adaptive: "
        "over 15 bins of equally many images. NLL: mean of -log p of the true class. Brier: mean squared "
        "distance from the truth, 0 to 2. The temperature changes no order of classes, and so no accuracy.",
    ]


def _unknown(unknown: Report) -> list[str]:
    rows = [
        [entry["name"], str(entry["num_images"])]
        + [f"{entry[key]:.1f} %" for key in ("auroc", "fpr95", "rejected")]
        for entry in unknown["images"]
    ]
    header = ("images of no class of the model", "images", "AUROC", "FPR95", "rejected")
    chosen = {"name": "was asked for", "default": "is the default"}.get(
        unknown["chosen_by"], f"was chosen on {unknown['chosen_by']}"
    )
    words = (
        f"An image whose score is above {unknown['threshold']:.4g} is unknown. The score, "
        f"{score_name(unknown)}, {chosen}. Of the known images {unknown['rejected']:.1f} % are rejected; "
        f"{unknown['asked']:g} % were asked."
    )
    meaning = (
        "AUROC: how often an unknown image has a higher score than a known one, 50 % is chance. FPR95: "
        "unknown images that pass where 95 % of the known ones do."
    )
    return ["## Unknown", words, *([table(header, rows), meaning] if rows else [])]


def _sets(sets: Report) -> list[str]:
    rows = [
        [
            METHOD_NAMES[method] + (" (in answers)" if method == sets["method"] else ""),
            f"{entry['reached']:.1f} %",
            f"{entry['worst_class']:.1f} %",
            f"{entry['mean_size']:.2f}",
            f"{entry['singletons']:.1f} %",
            str(entry["largest"]),
        ]
        for method, entry in sets["methods"].items()
    ]
    header = ("", "true class inside", "of the worst class", "mean size", "of one class", "largest")
    of = "of each class" if sets["per_class"] else "of all images"
    words = f"Sets that are to have the true class for {sets['coverage']:g} % {of}. {CAVEAT}"
    return ["## Prediction sets", words, table(header, rows)]
