"""Whether an exported graph gives the answers of the model: on the same pixels, and from file to answer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ramstrans.errors import TrainingError, UsageError
from ramstrans.export.graph import Graph
from ramstrans.export.runner import OUTPUTS, UNKNOWN_SCORE
from ramstrans.export.standalone import Standalone, read_example
from ramstrans.inference.prediction import Prediction
from ramstrans.inference.predictor import Predictor

Precision = Literal["fp32", "fp16", "int8"]
"""What a graph computes in."""


class Tolerance(NamedTuple):
    """How far an exported graph may be from the model.

    Attributes:
        probability: Largest difference on the same pixels, of photographs whose boxes are equal.
        boxes_equal: Least share of equal boxes on the same pixels.
        top1_equal: Least share of equal best classes on the same pixels.
        from_file: Largest difference of probabilities that count as equal from file to answer; but for soft
            regions, of any photograph whose boxes are equal.
        equal_from_file: Least share of photographs with equal boxes and probabilities, from file to answer.
        rules_from_file: Least share of photographs that are unknown in both, or in neither, and have the same
            prediction set, from file to answer; where images may have several labels, of equal labels.
        unknown_score: Largest difference of a score of the unknown on the same pixels, of photographs whose
            boxes are equal, as a share of the largest score, or of 1.
    """

    probability: float
    boxes_equal: float
    top1_equal: float
    from_file: float
    equal_from_file: float
    rules_from_file: float
    unknown_score: float


TOLERANCES = {
    # sums in another order; Pillow's resize, not torchvision's
    "fp32": Tolerance(1e-3, 1.0, 1.0, 0.03, 0.9, 0.9, 1e-3),
    # 11 bits: a patch at the threshold may change sides
    "fp16": Tolerance(0.02, 0.95, 0.98, 0.05, 0.9, 0.9, 0.02),
    "int8": Tolerance(1.0, 0.0, 0.0, 1.0, 0.0, 0.0, math.inf),  # judged by its accuracy, see `smaller`
}
"""By precision."""

SOFT = TOLERANCES | {"fp32": Tolerance(0.01, 0.95, 0.98, 0.05, 0.9, 0.9, 0.005)}
"""The same of soft regions, which every rounding moves by a hundredth of a pixel or a tenth."""

PIXEL = 0.5
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
        equal_from_file: Share of all photographs whose boxes are the same, and probabilities within
            `Tolerance.from_file`.
        rules_from_file: Share of photographs that are unknown in both, or in neither, and have the same
            prediction set, from file to answer; where images may have several labels, share of the labels
            that are there in both, or in neither. None if the model has neither rules nor several labels.
        unknown_score: Largest difference of a score of the unknown on the same pixels, as `Tolerance` has it;
            None if there is none.
        precision: What the exported graph computes in: fp32, fp16 or int8.
        is_soft: Whether `SOFT` is what is allowed.
        int8: What a graph in int8 costs and saves, see `Judgement`; None for others.
    """

    num_images: int
    probability: float
    boxes_equal: float
    top1_equal: float
    probability_from_file: float
    top1_from_file: float
    boxes_from_file: float = 1.0
    equal_from_file: float = 1.0
    rules_from_file: float | None = None
    unknown_score: float | None = None
    precision: Precision = "fp32"
    is_soft: bool = False
    int8: dict[str, Any] | None = None


def verify(
    predictor: Predictor,
    graph: Graph,
    folder: Path,
    paths: Sequence[Path],
    precision: Precision = "fp32",
    batch_size: int = 8,
) -> Check:
    """Compare an exported folder with the model it was made of.

    Args:
        predictor: Of the model, in fp32 on the CPU.
        graph: The same model as a graph.
        folder: The exported one.
        paths: Photographs.
        precision: What the exported graph computes in.
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
    batches = [readable[first : first + batch_size] for first in range(0, len(readable), batch_size)]
    found = [_on_pixels(graph, standalone, batch) for batch in batches]
    differences, boxes, top, scores = zip(*found, strict=True)
    same_boxes = [_boxes_agree(one, other) for one, other in both]
    rules = None
    if standalone.thresholds is not None:
        rules = _share([_labels_agree(*pair, num_classes) for pair in both])
    elif standalone.calibration is not None:
        rules = _share([_rules_agree(*pair) for pair in both])
    from_file = [_difference(*pair) for pair, same in zip(both, same_boxes, strict=True) if same]
    is_soft = predictor.metadata.model.component == "soft"
    allowed = (SOFT if is_soft else TOLERANCES)[precision]
    num_equal = sum(difference <= allowed.from_file for difference in from_file)
    return Check(
        len(both),
        float(np.concatenate(differences).max(initial=0.0)),
        _share(np.concatenate(boxes)),
        _share(np.concatenate(top)),
        max(from_file, default=0.0),
        _share([one.labels[0] == other.labels[0] for one, other in both]),
        _share(same_boxes),
        num_equal / len(both),
        rules,
        None if scores[0] is None else float(np.concatenate(scores).max(initial=0.0)),
        precision,
        is_soft,
    )


class OnPixels(NamedTuple):
    """How a graph and its file agree on the same pixels of B photographs.

    Attributes:
        differences: Largest one of a probability, for each photograph whose boxes are equal.
        boxes: ((L - 1) * B,) bool, which boxes are equal.
        top1: (B,) bool, whose best class is the same.
        unknown_scores: Differences of the score of the unknown, as `Tolerance` has them, for each photograph
            whose boxes are equal; None if there is none.
    """

    differences: NDArray[np.float32]
    boxes: NDArray[np.bool_]
    top1: NDArray[np.bool_]
    unknown_scores: NDArray[np.float32] | None


def _on_pixels(graph: Graph, standalone: Standalone, paths: Sequence[Path]) -> OnPixels:
    reading = standalone.preprocessing, standalone.max_pixels
    pixels = np.stack([read_example(path, *reading).pixels for path in paths])
    with torch.inference_mode():
        given = [output.numpy() for output in graph(torch.from_numpy(pixels))]
    expected, found = dict(zip(graph.output_names, given, strict=True)), standalone.graph(pixels)
    boxes = np.ones((0, len(paths)), dtype=bool)
    if "boxes" in expected:
        boxes = np.abs(expected["boxes"] - found["boxes"]).max(axis=-1) <= PIXEL
    fused, by_scale = (np.abs(expected[name] - found[name]) for name in OUTPUTS[:2])
    off = np.maximum(fused.max(axis=1), by_scale.max(axis=(0, 2)))
    best, same = (one["probabilities"].argmax(axis=1) for one in (expected, found))
    equal, scores = boxes.all(axis=0), None
    if UNKNOWN_SCORE in expected:
        exact = expected[UNKNOWN_SCORE]
        scores = (np.abs(exact - found[UNKNOWN_SCORE]) / max(1, np.abs(exact).max()))[equal]
    return OnPixels(off[equal], boxes.ravel(), best == same, scores)


def _share(same: Sequence[float] | NDArray[np.bool_]) -> float:
    """The share that is true, or the mean of shares; 1 of nothing."""
    return float(np.mean(same)) if len(same) else 1.0


def check_tolerance(check: Check) -> None:
    """Raise unless the answers are the same, or as near as the precision allows.

    Raises:
        TrainingError: They differ by more than rounding.
    """
    allowed = (SOFT if check.is_soft else TOLERANCES)[check.precision]
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
    # components that are the same hold the same pixels; soft ones that are equal to `SHARE` do not
    is_off = not check.is_soft and check.probability_from_file > allowed.from_file
    if is_off or min(check.equal_from_file, check.top1_from_file) < allowed.equal_from_file:
        raise TrainingError(
            f"from file to answer, {100 * check.equal_from_file:.1f} % of photographs have the same boxes "
            f"and probabilities within {allowed.from_file:g}, {100 * check.top1_from_file:.1f} % the same "
            f"best class (at least {100 * allowed.equal_from_file:g} %): boxes are equal for "
            f"{100 * check.boxes_from_file:.1f} %, probabilities differ by up to "
            f"{check.probability_from_file:.2g}; nothing was written"
        )
    if check.unknown_score is not None and check.unknown_score > allowed.unknown_score:
        raise TrainingError(
            f"the exported graph does not give the model's score of the unknown: it differs by "
            f"{check.unknown_score:.2g} of its size (allowed: {allowed.unknown_score:g}); nothing was written"
        )
    if check.rules_from_file is not None and check.rules_from_file < allowed.rules_from_file:
        raise TrainingError(
            f"from file to answer, only {100 * check.rules_from_file:.1f} % of unknown and set, or of "
            f"labels, are the same (at least {100 * allowed.rules_from_file:g} %); nothing was written"
        )


def rules_in_words(check: Check) -> list[str]:
    """How far unknown and sets, or labels, agree, as lines of a README; none without such rules."""
    if check.rules_from_file is None:
        return []
    return [f"The share of equal `unknown` and `set`, or `present`, is {check.rules_from_file:g}."]


def _boxes_agree(one: Prediction, other: Prediction) -> bool:
    """Whether two predictions of a photograph have the same boxes, to `SHARE`."""
    for first, second in zip(one.scales, other.scales, strict=True):
        if first.box is None or second.box is None:
            if first.box is not second.box:
                return False
        else:
            size = max(first.box[2:])
            if max(abs(a - b) for a, b in zip(first.box, second.box, strict=True)) > SHARE * size:
                return False
    return True


def _rules_agree(one: Prediction, other: Prediction) -> bool:
    """Whether two predictions agree in what is unknown, the classes of their sets, and rank and group."""
    first, second = (
        (found.unknown, set(found.prediction_set or ()), found.answer and found.answer[:2])
        for found in (one, other)
    )
    return first == second


def _labels_agree(one: Prediction, other: Prediction, num_labels: int) -> float:
    """Share of the labels that are there in both predictions, or in neither."""
    return 1 - len(set(one.present or ()) ^ set(other.present or ())) / num_labels


def _difference(one: Prediction, other: Prediction) -> float:
    """Largest difference of a class's fused probability."""
    mine = dict(zip(one.labels, one.probabilities, strict=True))
    others = zip(other.labels, other.probabilities, strict=True)
    return max(abs(mine[name] - value) for name, value in others)
