"""How far answers can be trusted, as blocks: calibration, the unknown, prediction sets, if measured."""

from collections.abc import Iterator, Mapping
from typing import Any

from ramstrans.evaluation.report.blocks import Block, Heading, Table, Text
from ramstrans.evaluation.report.ranks import rank_blocks
from ramstrans.plain import counted

Report = Mapping[str, Any]

MEASURES = (("ece", "ECE", 1), ("adaptive_ece", "adaptive ECE", 1), ("nll", "NLL", 3), ("brier", "Brier", 3))
"""Key, name and digits of each measure of calibration."""


def trust_blocks(report: Report) -> list[Block]:
    """Blocks on what a calibration adds to a report; none if the model is not calibrated."""
    parts = {"calibration": _calibration, "unknown": _unknown, "sets": _sets}
    found = [block for name, blocks in parts.items() if name in report for block in blocks(report[name])]
    return [*found, *rank_blocks(report)]


def _calibration(calibration: Report) -> Iterator[Block]:
    entries = [(f"scale {number}", entry) for number, entry in enumerate(calibration["scales"], start=1)]
    entries = [*entries, ("all together", calibration["fused"])] if len(entries) > 1 else entries
    rows = [
        [name, f"{entry['temperature']:.2f}"]
        + [
            f"{entry['before'][key]:.{digits}f} → {entry['after'][key]:.{digits}f}"
            for key, _, digits in MEASURES
        ]
        for name, entry in entries
    ]
    yield Table(["", "temperature", *(name for _, name, _ in MEASURES)], rows)
    yield Text(
        f"Before → after temperature scaling, fitted on {counted(calibration['num_images'], 'image')} "
        f"({calibration['fitted_on']}). ECE: how far confidence and accuracy are apart on average, in "
        "percentage points. Calibration changes no answer, only how sure it is."
    )


def _unknown(unknown: Report) -> Iterator[Block]:
    yield Heading(3, "Images of no class of the model")
    yield Text(
        f"An image whose {unknown['score']} score is above {unknown['threshold']:.4g} is answered “unknown”. "
        f"Of the images tested here, which are all known, {unknown['rejected']:.1f} % are; "
        f"{unknown['asked']:g} % were asked for."
    )
    rows = [
        [entry["name"], str(entry["num_images"])]
        + [f"{entry[key]:.1f} %" for key in ("rejected", "auroc", "fpr95")]
        for entry in unknown["images"]
    ]
    if rows:
        yield Table(["images of no class", "images", "told to be unknown", "AUROC", "FPR95"], rows)
        yield Text(
            "AUROC: how often an unknown image has a higher score than a known one; 50 % is chance. FPR95: "
            "unknown images that pass where 95 % of the known ones do."
        )


def _sets(sets: Report) -> Iterator[Block]:
    used = sets["methods"][sets["method"]]
    yield Heading(3, "“One of these” answers")
    yield Text(
        f"Sets of classes that are to hold the right one for {sets['coverage']:g} % "
        f"{'of each class' if sets['per_class'] else 'of the images'} do so for {used['reached']:.1f} %. "
        f"They have {used['mean_size']:.2f} classes on average, at most {used['largest']}; "
        f"{used['singletons']:.1f} % name just one. For the class where it is worst, "
        f"{used['worst_class']:.1f} % hold it."
    )
