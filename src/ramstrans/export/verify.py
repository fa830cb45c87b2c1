"""Whether an exported graph gives the answers of the model: on the same pixels, and from file to answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ramstrans.errors import TrainingError, UsageError
from ramstrans.export.graph import Graph
from ramstrans.export.runner import open_graph
from ramstrans.export.standalone import Standalone, read_example
from ramstrans.inference.prediction import Prediction
from ramstrans.inference.predictor import Predictor

SAME_PIXELS = 1e-3
"""Largest difference of probabilities on the same pixels: sums in another order, nothing else."""

FROM_FILES = 0.03
"""Largest difference from file to answer: Pillow's resize is another than torchvision's, by a grey level."""

PIXEL = 0.05
"""Largest difference of a box's edges on the same pixels, in pixels."""


class Check(NamedTuple):
    """How far an exported graph and the model agree on some photographs.

    Attributes:
        num_images: Photographs that both could read.
        probability: Largest difference of a probability, fused or of a scale, on the same pixels.
        boxes_equal: Share of boxes that are the same to `PIXEL` on the same pixels; 1 without boxes.
        top1_equal: Share of photographs with the same best class on the same pixels.
        probability_from_file: Largest difference of a fused probability from file to answer.
        top1_from_file: Share of photographs with the same best class, from file to answer.
    """

    num_images: int
    probability: float
    boxes_equal: float
    top1_equal: float
    probability_from_file: float
    top1_from_file: float


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
    differences, boxes, top = [], [], []
    readable = [path for path, one in zip(paths, ours, strict=True) if not one.error]
    for first in range(0, len(readable), batch_size):
        some = readable[first : first + batch_size]
        pixels = np.stack(
            [read_example(path, standalone.preprocessing, standalone.max_pixels).pixels for path in some]
        )
        with torch.inference_mode():
            expected = [output.numpy() for output in graph(torch.from_numpy(pixels))]
        found = (
            list(open_graph(folder)(pixels).values())
            if first == 0
            else list(standalone.graph(pixels).values())
        )
        differences += [
            float(np.abs(one - other).max()) for one, other in zip(expected[:2], found[:2], strict=True)
        ]
        top += (expected[0].argmax(axis=1) == found[0].argmax(axis=1)).tolist()
        if len(expected) > 2:
            boxes += (np.abs(expected[2] - found[2]).max(axis=-1) <= PIXEL).ravel().tolist()
    from_file = [_difference(one, other) for one, other in both]
    return Check(
        len(both),
        max(differences),
        float(np.mean(boxes)) if boxes else 1.0,
        float(np.mean(top)),
        max(from_file),
        float(np.mean([one.labels[0] == other.labels[0] for one, other in both])),
    )


def check_tolerance(check: Check) -> None:
    """Raise unless the answers are the same.

    Raises:
        TrainingError: They differ by more than rounding.
    """
    same = check.probability <= SAME_PIXELS and check.boxes_equal == check.top1_equal == 1.0
    if not same:
        raise TrainingError(
            "the exported graph does not give the model's answers on the same pixels: probabilities differ "
            f"by up to {check.probability:.2g} (allowed: {SAME_PIXELS:g}); {100 * check.boxes_equal:.1f} % "
            f"of boxes and {100 * check.top1_equal:.1f} % of best classes are equal; nothing was written"
        )
    if check.probability_from_file > FROM_FILES:
        raise TrainingError(
            f"from file to answer, probabilities differ by up to {check.probability_from_file:.2g} "
            f"(allowed: {FROM_FILES:g}); nothing was written"
        )


def _difference(one: Prediction, other: Prediction) -> float:
    """Largest difference of a class's fused probability."""
    mine = dict(zip(one.labels, one.probabilities, strict=True))
    others = zip(other.labels, other.probabilities, strict=True)
    return max(abs(mine[name] - value) for name, value in others)
