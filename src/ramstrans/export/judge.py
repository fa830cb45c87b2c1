"""What a graph of fewer bits costs and saves: accuracy on labelled photographs, time, bytes."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ramstrans.bench.timing import Candidate, interleave
from ramstrans.console import Progress, no_progress
from ramstrans.data.config import DataConfig
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import Record
from ramstrans.errors import DataError, UnreadableImageError
from ramstrans.evaluation.localization import paired_iou
from ramstrans.export.runner import Runner
from ramstrans.export.standalone import read_example

BATCH_SIZE = 8
NUM_ROUNDS = 7

SAME_IOU = 0.95
"""Overlap from which boxes are the same; on a grid of 14 x 14 a patch is more of a difference."""


class Judgement(NamedTuple):
    """A graph of fewer bits beside the one in float32, on the same pixels.

    Attributes:
        judged_on: Where the photographs are from, in words.
        num_images: Photographs.
        top1_fp32: Accuracy of the float32 graph, percent.
        top1: Accuracy of this one, percent.
        points_lost: Their difference; negative for a gain.
        num_worse: Photographs that only the float32 graph gets right.
        num_better: Photographs that only this one gets right.
        boxes_equal: Share of boxes that are the same by `SAME_IOU`; 1 without boxes.
        speedup: Time of the float32 graph divided by this one's, in batches of 8; median over rounds.
        megabytes_fp32: Size of the float32 graph.
        megabytes: Size of this one.
        num_calibrated: Photographs that the ranges of activations are from.
        quantised_by: Library that did it, and whose result was the better one.
    """

    judged_on: str
    num_images: int
    top1_fp32: float
    top1: float
    points_lost: float
    num_worse: int
    num_better: int
    boxes_equal: float
    speedup: float
    megabytes_fp32: float
    megabytes: float
    num_calibrated: int
    quantised_by: str


class Answered(NamedTuple):
    """What a graph gives for N photographs.

    Attributes:
        classes: (N,) int, the best ones.
        boxes: (L - 1, N, 4), see `Answers`; None with one look.
    """

    classes: NDArray[np.int64]
    boxes: NDArray[np.float32] | None

    def boxes_like(self, other: "Answered") -> float:
        """Share of boxes that are another's by `SAME_IOU`, of those that both have; 1 without boxes."""
        if self.boxes is None or other.boxes is None:
            return 1.0
        count = min(len(self.boxes), len(other.boxes))  # one may have fewer scales
        ours, theirs = (boxes[:count].reshape(-1, 4) for boxes in (self.boxes, other.boxes))
        same = (paired_iou(ours, theirs) >= SAME_IOU) | (ours == theirs).all(axis=-1)
        return float(same.mean()) if len(same) else 1.0


def pixel_batches(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    max_pixels: int = DataConfig.max_pixels,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[NDArray[np.uint8], list[int]]]:
    """Batches (B, 3, height, width) of the photographs that can be read, and their indices."""
    pixels, kept = [], []
    for index, path in enumerate(paths):
        try:
            pixels.append(read_example(path, preprocessing, max_pixels).pixels)
        except UnreadableImageError:
            continue
        kept.append(index)
        if len(pixels) == batch_size:
            yield np.stack(pixels), kept
            pixels, kept = [], []
    if pixels:
        yield np.stack(pixels), kept


def answer(
    runners: Mapping[str, Runner],
    records: Sequence[Record],
    preprocessing: Preprocessing,
    max_pixels: int = DataConfig.max_pixels,
    progress: Progress = no_progress,
) -> tuple[dict[str, Answered], NDArray[np.int64]]:
    """The answers of several graphs for the same pixels, and the true classes of those photographs.

    Raises:
        DataError: None of the photographs can be read.
    """
    classes: dict[str, list[Any]] = {name: [] for name in runners}
    boxes: dict[str, list[Any]] = {name: [] for name in runners}
    labels: list[int] = []
    paths = [record.path for record in records]
    for pixels, indices in pixel_batches(paths, preprocessing, max_pixels):
        labels += [records[index].label for index in indices]
        for name, run in runners.items():
            outputs = run(pixels)
            classes[name].append(outputs["probabilities"].argmax(axis=1))
            boxes[name] += [outputs["boxes"]] if "boxes" in outputs else []
        progress(indices[-1] + 1, len(records), "answering")
    if not labels:
        raise DataError(f"none of the {len(records)} labelled photographs can be read, e.g. {paths[0]}")
    found = {
        name: Answered(
            np.concatenate(classes[name]), np.concatenate(boxes[name], axis=1) if boxes[name] else None
        )
        for name in runners
    }
    return found, np.array(labels)


def times(runners: Mapping[str, Runner], pixels: NDArray[np.uint8]) -> dict[str, list[float]]:
    """Seconds of each graph for a batch, taken in turn, round by round."""
    candidates = {name: Candidate(partial(run, pixels), len(pixels)) for name, run in runners.items()}
    return interleave(candidates, NUM_ROUNDS, torch.device("cpu"))


def judged(
    answered: Answered, reference: Answered, labels: NDArray[np.int64], judged_on: str
) -> dict[str, Any]:
    """The fields of a `Judgement` that are about answers.

    >>> one, other = (Answered(np.array(classes), None) for classes in ([0, 1, 2, 2], [0, 1, 1, 0]))
    >>> found = judged(other, one, np.array([0, 1, 2, 0]), "photographs")
    >>> found["top1_fp32"], found["top1"], found["points_lost"], found["num_worse"], found["num_better"]
    (75.0, 75.0, 0.0, 1, 1)
    """
    before, after = reference.classes == labels, answered.classes == labels
    return {
        "judged_on": judged_on,
        "num_images": len(labels),
        "top1_fp32": 100 * float(before.mean()),
        "top1": 100 * float(after.mean()),
        "points_lost": 100 * float(before.mean() - after.mean()),
        "num_worse": int((before & ~after).sum()),
        "num_better": int((after & ~before).sum()),
        "boxes_equal": answered.boxes_like(reference),
    }
