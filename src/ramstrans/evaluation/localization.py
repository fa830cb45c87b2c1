"""How well regions cover the object: area, overlap with the true boxes, parts inside.

All boxes are half-open `(x0, y0, x1, y1)` in pixels of the original image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ramstrans.data.records import Record


class RegionMetrics(NamedTuple):
    """How well one scale's regions cover the object; None where the data set has no boxes or parts.

    Attributes:
        fallbacks: Number of images where nothing stood out and the region is the whole input.
        fallback_share: The same in percent of all images.
        mean_area: Mean percent of the original image that the region covers.
        mean_iou: Mean intersection over union of region and true box, percent.
        corloc: Percent of true boxes with an IoU of at least 0.5.
        parts_inside: Percent of all visible parts that lie inside the region.
        num_boxes: Number of images with a true box.
        num_parts: Number of visible parts in all images.
    """

    fallbacks: int
    fallback_share: float
    mean_area: float
    mean_iou: float | None
    corloc: float | None
    parts_inside: float | None
    num_boxes: int
    num_parts: int


def region_metrics(
    boxes: np.ndarray, has_region: np.ndarray, records: Sequence[Record], image_sizes: np.ndarray
) -> RegionMetrics:
    """Measure how well N regions cover the object; regions and true boxes are clipped to their image.

    Regions are `boxes` (N, 4); `has_region` (N,) is False for a fallback; `image_sizes` (N, 2) are
    `(width, height)` of the original images in pixels.

    >>> from pathlib import Path
    >>> record = Record(Path("wren.jpg"), 0, "test", box=(0.0, 0.0, 10.0, 20.0))
    >>> found = region_metrics(np.array([[0, 0, 10, 10]]), np.array([True]), [record], np.array([[20, 20]]))
    >>> found.mean_area, found.mean_iou, found.corloc, found.parts_inside
    (25.0, 50.0, 100.0, None)
    """
    assert len(boxes) == len(has_region) == len(records) > 0
    regions = clipped(boxes, image_sizes)
    ious = true_ious(boxes, records, image_sizes)
    ious = ious[~np.isnan(ious)]
    inside = _parts_inside(regions, records)
    num_fallbacks = len(has_region) - int(np.count_nonzero(has_region))
    return RegionMetrics(
        fallbacks=num_fallbacks,
        fallback_share=100 * num_fallbacks / len(has_region),
        mean_area=100 * float((_areas(regions) / image_sizes.prod(axis=1)).mean()),
        mean_iou=_percent(ious),
        corloc=_percent(ious >= 0.5),
        parts_inside=_percent(inside),
        num_boxes=len(ious),
        num_parts=len(inside),
    )


def clipped(boxes: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    """(N, 4) float64, the parts of boxes (N, 4) in their images, whose (N, 2) sizes are `(width, height)`.

    >>> clipped(np.array([[-9, 2, 7, 30]]), np.array([[20, 10]])).tolist()
    [[0.0, 2.0, 7.0, 10.0]]
    """
    return np.asarray(np.clip(boxes.astype(np.float64), 0, np.tile(image_sizes, 2)))


def true_ious(boxes: np.ndarray, records: Sequence[Record], image_sizes: np.ndarray) -> np.ndarray:
    """(N,) IoU of regions (N, 4) with the true boxes, both clipped to their images; NaN without true box."""
    nothing = (np.nan,) * 4
    truth = np.array([nothing if record.box is None else record.box for record in records], np.float64)
    ious = paired_iou(clipped(boxes, image_sizes), clipped(truth, image_sizes))
    return np.where(np.isnan(truth).any(axis=1), np.nan, ious)


def paired_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) intersection over union in [0, 1] of (N, 4) boxes and their counterparts; 0 for two empty boxes.

    >>> paired_iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]])).round(3)
    array([0.333])
    """
    starts, ends = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    intersection = _areas(np.concatenate([starts, ends], axis=1))
    union = _areas(first) + _areas(second) - intersection
    ious = np.zeros(len(first))
    np.divide(intersection, union, out=ious, where=union > 0)
    return ious


def _areas(boxes: np.ndarray) -> np.ndarray:
    """(N,) areas of (N, 4) boxes; 0 where a side is negative."""
    return np.asarray(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))


def _parts_inside(regions: np.ndarray, records: Sequence[Record]) -> np.ndarray:
    """(P,) bool, for all visible parts of all records: whether the image's half-open region contains it."""
    inside = [
        x0 <= part.x < x1 and y0 <= part.y < y1
        for (x0, y0, x1, y1), record in zip(regions, records, strict=True)
        for part in record.parts
    ]
    return np.array(inside, dtype=bool)


def _percent(shares: np.ndarray) -> float | None:
    """Mean of fractions, in percent; None if there are none."""
    return 100 * float(shares.mean()) if len(shares) else None
