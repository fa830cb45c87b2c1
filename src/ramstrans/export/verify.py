"""Whether an exported graph gives the answers of the model: on the same pixels, and from file to answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ramstrans.errors import TrainingError, UsageError
from ramstrans.export.graph import Graph
from ramstrans.export.standalone import Standalone, read_example
from ramstrans.inference.prediction import Prediction
from ramstrans.inference.predictor import Predictor

Precision = Literal["fp32", "fp16", "int8"]
"""What a graph computes in."""

Outputs = Sequence[NDArray[Any]]
"""Those of a graph, in its order."""


class Tolerance(NamedTuple):
    """How far an exported graph may be from the model.

    Attributes:
        probability: Largest difference on the same pixels, of photographs whose boxes are equal.
        boxes_equal: Least share of equal boxes on the same pixels.
        top1_equal: Least share of equal best classes on the same pixels.
        from_file: Largest difference from file to answer, of photographs whose boxes are equal.
        boxes_from_file: Least share of photographs with equal boxes, from file to answer.
    """

    probability: float
    boxes_equal: float
    top1_equal: float
    from_file: float
    boxes_from_file: float


TOLERANCES = {
    "fp32": Tolerance(1e-3, 1.0, 1.0, 0.03, 0.9),  # sums in another order; Pillow's resize, not torchvision's
    "fp16": Tolerance(0.02, 0.95, 0.98, 0.05, 0.9),  # 11 bits: a patch at the threshold may change sides
    "int8": Tolerance(1.0, 0.0, 0.0, 1.0, 0.0),  # judged by its accuracy, see `smaller`
}
"""By precision."""

PIXEL = 0.05
"""Largest difference of the edges of boxes that count as equal on the same pixels, in pixels."""

SHARE = 0.01
"""The same from file to answer, as a share of their largest coordinate; a patch is more."""


class Check(NamedTuple):
    """How far an exported graph and the model agree on some photographs.

    Attributes:
        num_images: Photographs that both could read.
        probability: Largest difference of a probability, fused or of a scale, on the same pixels, of
            photographs whose boxes are equal.
        boxes_equal: Share of boxes that are the same to `PIXEL` on the same pixels; 1 without boxes.
        top1_equal: Share of photographs with the same best class on the same pixels.
        probability_from_file: Largest difference of a fused probability from file to answer, of photographs
            whose boxes are equal.
        top1_from_file: Share of photographs with the same best class, from file to answer.
        boxes_from_file: Share of photographs whose boxes are the same to `SHARE`, from file to answer.
        precision: What the exported graph computes in: fp32, fp16 or int8.
        int8: What a graph in int8 costs and saves, see `Judgement`; None for others.
    """

    num_images: int
    probability: float
    boxes_equal: float
    top1_equal: float
    probability_from_file: float
    top1_from_file: float
    boxes_from_file: float = 1.0
    precision: Precision = "fp32"
    int8: dict[str, Any] | None = None


def verify(
    predictor: Predictor, graph: Graph, folder: Path, paths: Sequence[Path], batch_size: int = 8
) -> Check:
    """Compare an exported folder with the model it was made of.

    Args:
        predictor: Of the model, in fp32 on the CPU.
        graph: The same model as a graph.
        folder: The exported one.
        paths: Photographs.
        batch_size: Images per batch.

    Raises:
        UsageError: None of the photographs can be read.
    """
    standalone, num_classes = Standalone(folder), len(predictor.class_names)
    theirs = list(standalone.stream(paths, num_classes, batch_size))
    ours = list(predictor.stream(paths, num_classes, batch_size))
    both = [(one, other) for one, other in zip(ours, theirs, strict=True) if not (one.error or other.error)]
    if not both:
        raise UsageError(
            "none of the photographs to verify the export with can be read; give --verify FOLDER"
        )
    readable = [path for path, one in zip(paths, ours, strict=True) if not one.error]
    differences, boxes, top = [], [], []
    for first in range(0, len(readable), batch_size):
        some = readable[first : first + batch_size]
        pixels = np.stack(
            [read_example(path, standalone.preprocessing, standalone.max_pixels).pixels for path in some]
        )
        with torch.inference_mode():
            expected = [output.numpy() for output in graph(torch.from_numpy(pixels))]
        found = list(standalone.graph(pixels).values())
        same = _same_boxes(expected, found)
        off = np.maximum(
            np.abs(expected[0] - found[0]).max(axis=1), np.abs(expected[1] - found[1]).max(axis=(0, 2))
        )
        differences += off[same.all(axis=0)].tolist()
        boxes += same.ravel().tolist()
        top += (expected[0].argmax(axis=1) == found[0].argmax(axis=1)).tolist()
    same_boxes = [_boxes_agree(one, other) for one, other in both]
    from_file = [_difference(*pair) for pair, same in zip(both, same_boxes, strict=True) if same]
    return Check(
        len(both),
        max(differences, default=0.0),
        float(np.mean(boxes)) if boxes else 1.0,
        float(np.mean(top)),
        max(from_file, default=0.0),
        float(np.mean([one.labels[0] == other.labels[0] for one, other in both])),
        float(np.mean(same_boxes)),
    )


def check_tolerance(check: Check) -> None:
    """Raise unless the answers are the same, or as near as the precision allows.

    Raises:
        TrainingError: They differ by more than rounding.
    """
    allowed = TOLERANCES[check.precision]
    same = (
        check.probability <= allowed.probability
        and check.boxes_equal >= allowed.boxes_equal
        and check.top1_equal >= allowed.top1_equal
    )
    if not same:
        raise TrainingError(
            f"the exported graph does not give the model's answers on the same pixels: probabilities differ "
            f"by up to {check.probability:.2g} (allowed: {allowed.probability:g}); "
            f"{100 * check.boxes_equal:.1f} % of boxes (at least {100 * allowed.boxes_equal:g} %) and "
            f"{100 * check.top1_equal:.1f} % of best classes (at least {100 * allowed.top1_equal:g} %) are "
            "equal; nothing was written"
        )
    if check.probability_from_file > allowed.from_file or check.boxes_from_file < allowed.boxes_from_file:
        raise TrainingError(
            f"from file to answer, probabilities differ by up to {check.probability_from_file:.2g} "
            f"(allowed: {allowed.from_file:g}), and {100 * check.boxes_from_file:.1f} % of photographs have "
            f"the same boxes (at least {100 * allowed.boxes_from_file:g} %); nothing was written"
        )


def _same_boxes(expected: Outputs, found: Outputs) -> NDArray[np.bool_]:
    """(S - 1, B) which boxes are the same on the same pixels; (0, B) without boxes."""
    if len(expected) <= 2:
        return np.ones((0, len(expected[0])), dtype=bool)
    same: NDArray[np.bool_] = np.abs(expected[2] - found[2]).max(axis=-1) <= PIXEL
    return same


def _boxes_agree(one: Prediction, other: Prediction) -> bool:
    """Whether all boxes that two predictions of a photograph both have are the same to `SHARE`."""
    for first, second in zip(one.scales, other.scales, strict=True):
        if first.box is not None and second.box is not None:
            size = max(first.box[2:])
            if max(abs(a - b) for a, b in zip(first.box, second.box, strict=True)) > SHARE * size:
                return False
    return True


def _difference(one: Prediction, other: Prediction) -> float:
    """Largest difference of a class's fused probability."""
    mine = dict(zip(one.labels, one.probabilities, strict=True))
    others = zip(other.labels, other.probabilities, strict=True)
    return max(abs(mine[name] - value) for name, value in others)
