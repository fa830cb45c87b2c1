"""Judge the regions of a model on some images: does its answer depend on them, and are they stable?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ramstrans.console import Progress, no_progress
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import ImageLoader
from ramstrans.data.records import Record
from ramstrans.evaluation.faithfulness import (
    CURVES,
    MASKS,
    TRUE_MASKS,
    Faithfulness,
    FirstLook,
    area_under,
    faithfulness,
)
from ramstrans.evaluation.localization import true_ious
from ramstrans.evaluation.predict import Predictions, in_order
from ramstrans.evaluation.stability import Inputs, Stability, outputs_of, regions_of, stability
from ramstrans.models.methods.base import Output
from ramstrans.models.methods.method import Method

NUM_PICTURES = 4
"""Images in each group of the pictures."""

MOVABLE = ("found", "centre")
"""Placements of regions that `region_placement` random puts elsewhere with the same sides."""

FILL = "the mean colour that the weights expect; insertion begins with a Gaussian blur of 1/32 of the side"
"""What deleted pixels become, for reports."""


class JudgedRegions(NamedTuple):
    """What was measured of N images and R regions of each.

    Attributes:
        indices: (N,) int64, of the images in the data set that they were drawn from.
        faithfulness: By the first look, arrays over N images.
        stability: Arrays over N images.
        right: (S + 1, N) bool: whether each scale, and all fused, are right.
        right_moved: The same with every region moved at random; None with one scale, or if regions are not
            where they were found.
    """

    indices: np.ndarray
    faithfulness: Faithfulness
    stability: Stability
    right: np.ndarray
    right_moved: np.ndarray | None


def draw_indices(num_images: int, wanted: int | Literal["all"]) -> np.ndarray:
    """Indices of so many of the images, ascending, the same ones for every model.

    >>> draw_indices(5, 3).tolist(), draw_indices(3, "all").tolist()
    ([2, 3, 4], [0, 1, 2])
    """
    count = num_images if wanted == "all" else min(wanted, num_images)
    return np.sort(np.random.default_rng(0).permutation(num_images)[:count])


def part_of(dataset: ImageDataset, indices: np.ndarray) -> ImageDataset:
    """The data set of some of its images."""
    return replace(dataset, records=[dataset.records[index] for index in indices])


@torch.no_grad()
def judge_regions(
    model: Method,
    loader: ImageLoader,
    indices: np.ndarray,
    *,
    precision: str = "fp32",
    progress: Progress = no_progress,
) -> JudgedRegions:
    """Judge the regions of every image of a loader; leaves the model in eval mode.

    Several processes share the batches, and each gets what all have found. `indices` (N,) are those of the
    images in the data set that the loader's is a part of, see `part_of`.
    """
    model.eval()
    look = FirstLook(model, precision)
    moves = model.num_scales > 1 and model.region_placement in MOVABLE
    gathered: list[tuple[np.ndarray, ...]] = []
    for done, batch in enumerate(loader, start=1):
        images, high_res = model.normalize(batch.images, batch.high_res)
        inputs, labels = Inputs(images, high_res, batch.boxes), batch.labels.numpy()
        output = outputs_of(model, inputs, precision)
        saliency = output.scales[0].saliency
        assert saliency is not None, "the first look proposes a region"
        judged = faithfulness(look, images, labels, regions_of(output), saliency, batch.boxes)
        stable = stability(model, inputs, output, precision)
        right = [right_answers(output, labels)]
        if moves:
            with model.placed_at_random():
                right.append(right_answers(outputs_of(model, inputs, precision), labels))
        gathered.append((batch.indices.numpy(), *judged, *stable, *right))
        progress(done, len(loader), "judging regions")
    first, second = len(Faithfulness._fields), len(Faithfulness._fields) + len(Stability._fields)
    arrays = in_order(gathered, [-1] * (second + 2 + moves))
    return JudgedRegions(
        indices,
        Faithfulness(*arrays[:first]),
        Stability(*arrays[first:second]),
        arrays[second],
        arrays[second + 1] if moves else None,
    )


def right_answers(output: Output, labels: np.ndarray) -> np.ndarray:
    """(S + 1, B) bool: whether each scale, and all fused, are right about B images."""
    answers = [*output.probabilities, output.fused]
    return np.stack([one.argmax(dim=1).cpu().numpy() == labels for one in answers])


def judged_report(judged: JudgedRegions, records: Sequence[Record]) -> dict[str, Any]:
    """Sum up what was measured, in percent.

    Args:
        judged: From `judge_regions`.
        records: Of its images.

    Returns:
        `num_images`, `num_boxes`, `fill`; `whole`: top-1 of the first look; `regions`, for each the top-1 of
        `MASKS`, `moved_iou` of the moved box and the region, `mirror_iou`, `shift_iou`, and `mirror_corloc`,
        the percent of images with an IoU of at least 0.5; `true_box`: top-1 of `TRUE_MASKS`, None without
        boxes; `moved`: top-1 of later scales and fused, as it is and with regions moved, or None;
        `same_answer`: percent of images whose fused answer stays under `mirror` and `shift`; `curves`:
        `shares` of the locations, and of each of `CURVES` `probability`, `top1` and `area`, that under the
        probability.
    """
    faithful, stable = judged.faithfulness, judged.stability
    num_boxes = sum(record.box is not None for record in records)
    of_regions = zip(faithful.masked, faithful.moved_iou, stable.mirror_iou, stable.shift_iou, strict=True)
    regions = [
        {"scale": number}
        | {name: percent(right) for name, right in zip(MASKS, masked, strict=True)}
        | {"moved_iou": percent(moved), "mirror_iou": percent(mirror)}
        | {"mirror_corloc": percent(mirror >= 0.5), "shift_iou": percent(shift)}
        for number, (masked, moved, mirror, shift) in enumerate(of_regions, start=1)
    ]
    true_box = {
        name: percent(right[np.isfinite(right)])
        for name, right in zip(TRUE_MASKS, faithful.true_masked, strict=True)
        if num_boxes
    }
    return {
        "num_images": len(judged.indices),
        "num_boxes": num_boxes,
        "fill": FILL,
        "whole": percent(faithful.whole),
        "regions": regions,
        "true_box": true_box or None,
        "moved": moved_report(judged),
        "same_answer": {"mirror": percent(stable.mirror_same), "shift": percent(stable.shift_same)},
        "curves": curves_report(faithful),
    }


def moved_report(judged: JudgedRegions) -> dict[str, Any] | None:
    """Top-1 of later scales and of all fused, with regions as they are and moved at random."""
    if judged.right_moved is None:
        return None
    found, moved = (100 * right.mean(axis=1) for right in (judged.right, judged.right_moved))
    return {
        "scales": [
            {"scale": number + 1, "found": found[number], "moved": moved[number]}
            for number in range(1, len(found) - 1)
        ],
        "fused": {"found": found[-1], "moved": moved[-1]},
    }


def curves_report(faithful: Faithfulness) -> dict[str, Any]:
    """Deletion and insertion, mean over images."""
    probabilities, right = 100 * faithful.curves.mean(axis=-1), 100 * faithful.curves_right.mean(axis=-1)
    shares = np.linspace(0, 100, probabilities.shape[1])
    return {"shares": shares} | {
        name: {"area": area_under(values), "probability": values, "top1": top1}
        for name, values, top1 in zip(CURVES, probabilities, right, strict=True)
    }


def percent(shares: np.ndarray) -> float:
    """Mean of fractions or truth values, in percent."""
    return 100 * float(np.mean(shares))


def picture_groups(judged: JudgedRegions, predictions: Predictions) -> dict[str, list[int]]:
    """Indices of the images with the best, median and worst first regions, by headings with their values.

    They are judged by their IoU with the true boxes; without such, by how much more the first look believes
    in the true class from the region alone than without it.
    """
    indices = judged.indices
    records = [predictions.records[index] for index in indices]
    values = true_ious(predictions.boxes[0, indices], records, predictions.image_sizes[indices])
    has_box = ~np.isnan(values)
    if has_box.any():
        indices, values = indices[has_box], values[has_box]
        name = "IoU with the true box"
    else:
        values = judged.faithfulness.belief[0, 0] - judged.faithfulness.belief[0, 1]
        name = "true class, region alone - deleted"
    order = np.argsort(-values, kind="stable")
    count = min(NUM_PICTURES, len(order) // 3) or 1
    middle = (len(order) - count) // 2
    chosen = {"best": order[:count], "median": order[middle : middle + count], "worst": order[-count:][::-1]}
    if len(order) < 3:
        chosen = {"best": order[:1], "worst": order[1:]}
    return {
        f"{which} regions: {name} {', '.join(f'{100 * values[at]:.0f}' for at in group)} %": indices[
            group
        ].tolist()
        for which, group in chosen.items()
        if len(group)
    }
