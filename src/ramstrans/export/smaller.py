"""Exports in int8: the graph that loses least, judged before it takes the place of the float32 one."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ramstrans.console import Progress, no_progress
from ramstrans.errors import TrainingError, UsageError
from ramstrans.export.formats import Format, convert
from ramstrans.export.judge import Judgement, answer, judged, pixel_batches, times
from ramstrans.export.photographs import Labelled
from ramstrans.export.quantize import Pixels, quantise
from ramstrans.export.runner import FILES, open_graph
from ramstrans.export.standalone import Standalone

logger = logging.getLogger(__name__)

CALIBRATION = 128
"""Most photographs that the ranges of activations are taken from."""


class Int8(NamedTuple):
    """What a graph in int8 is made and judged with.

    Attributes:
        calibration: Photographs that ranges of activations are taken from, training images as a rule.
        labelled: Photographs that it is judged on.
        max_drop: Most points of top-1 accuracy that it may lose.
    """

    calibration: list[Path]
    labelled: Labelled
    max_drop: float


def write_int8(
    source: Path,
    draft: Path,
    format_name: Format,
    heads: tuple[str, ...],
    int8: Int8,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Put the best graph in int8 in the place of an exported folder's; returns its `Judgement` as a dict.

    Args:
        source: The graph in ONNX and float32; candidates are written beside it.
        draft: The exported folder, whose graph is in float32.
        format_name: Of the exported folder.
        heads: Modules that keep float32, see `head_names`.
        int8: What it is made and judged with.
        progress: Called while the graphs answer.

    Raises:
        TrainingError: It loses more than `max_drop` points.
        UsageError: No library is installed, nothing can be quantised, or no photograph can be read.
    """
    before = Standalone(draft)
    reading = before.preprocessing, before.max_pixels
    pixels = [batch for batch, _ in pixel_batches(int8.calibration, *reading, batch_size=1)]
    if not pixels:
        raise UsageError(
            f"none of the {len(int8.calibration)} photographs to calibrate int8 with can be read; give "
            "others: --calibrate FOLDER"
        )
    folders = {}
    for library, file in quantise(source, source.parent / "int8", heads, pixels).items():
        folders[library] = source.parent / library
        folders[library].mkdir()
        convert(file, folders[library], format_name)
    best = best_of(judge(draft, folders, int8, pixels, progress), int8.max_drop)
    for path in folders[best.quantised_by].iterdir():
        (draft / path.name).unlink()  # OpenVINO maps the open one into memory
        shutil.copy(path, draft / path.name)
    return best._asdict()


def judge(
    draft: Path, folders: Mapping[str, Path], int8: Int8, pixels: Pixels, progress: Progress = no_progress
) -> list[Judgement]:
    """Let the float32 graph of an exported folder and those in int8 answer the same photographs."""
    before = Standalone(draft)
    runners = {"fp32": before.graph} | {name: open_graph(folder) for name, folder in folders.items()}
    records, source = int8.labelled
    answers, labels = answer(runners, records, before.preprocessing, before.max_pixels, progress)
    seconds = times(runners, np.concatenate(pixels[:8]))
    return [
        Judgement(
            **judged(answers[name], answers["fp32"], labels, source),
            speedup=float(np.median(np.divide(seconds["fp32"], seconds[name]))),
            megabytes_fp32=megabytes(draft),
            megabytes=megabytes(folder),
            num_calibrated=len(pixels),
            quantised_by=name,
        )
        for name, folder in folders.items()
    ]


def best_of(found: Sequence[Judgement], max_drop: float) -> Judgement:
    """The one that loses least, of equal ones the fastest; all are logged.

    Raises:
        TrainingError: It loses more than `max_drop` points.
    """
    for judgement in found:
        logger.info("%s", in_words(judgement))
    best = min(found, key=lambda one: (one.points_lost, -one.speedup))
    if best.points_lost > max_drop:
        raise TrainingError(
            f"int8 loses {best.points_lost:.2f} points on {best.num_images} {best.judged_on} "
            f"({best.num_worse} worse, {best.num_better} better); allowed are {max_drop:g}: nothing was "
            "written; leave --int8 out, or give a higher --max_drop"
        )
    return best


def in_words(found: Judgement) -> str:
    r"""A judgement as a line.

    >>> found = Judgement("images of birds", 200, 90.0, 89.5, 0.5, 3, 2, 0.97, 1.84, 22.0, 6.0, 128, "nncf")
    >>> print(in_words(found).replace(", ", "\n"))
    int8 by nncf: 0.50 points lost on 200 images of birds (3 worse
    2 better)
    97.0 % of boxes equal
    1.84 times as fast
    6.0 MB in place of 22.0
    """
    return (
        f"int8 by {found.quantised_by}: {found.points_lost:.2f} points lost on {found.num_images} "
        f"{found.judged_on} ({found.num_worse} worse, {found.num_better} better), "
        f"{100 * found.boxes_equal:.1f} % of boxes equal, {found.speedup:.2f} times as fast, "
        f"{found.megabytes:.1f} MB in place of {found.megabytes_fp32:.1f}"
    )


def megabytes(folder: Path) -> float:
    """Size of the graph of a folder, weights included."""
    names = {name for file in FILES.values() for name in (file, f"{file}.data", file.replace(".xml", ".bin"))}
    return sum((folder / name).stat().st_size for name in names if (folder / name).is_file()) / 1e6
