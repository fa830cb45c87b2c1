"""Where the views that a model sees lie in the original images; without torch."""

from typing import NamedTuple

import numpy as np

from ramstrans.data.preprocessing import Preprocessing, Size, resized_size
from ramstrans.data.records import Box

FILL = (124, 116, 104)
"""Colour of pixels that are erased or moved in from outside, ImageNet's mean: about 0 once normalised."""


class Geometry(NamedTuple):
    """Where a view lies in the original image: `view = original * scale - offset`, mirrored if `flip`.

    Attributes:
        scale: `(x, y)`, view pixels per pixel of the original.
        offset: `(x, y)` in view pixels.
        width: Width of the view in pixels; a mirrored x is counted from there.
        flip: Whether the view is mirrored left to right.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    width: float
    flip: bool = False

    def to_original(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) in pixels of the view -> the same in pixels of the original image.

        >>> view = Geometry((0.5, 0.5), (10.0, 0.0), 64.0)
        >>> view.to_original(np.array([0.0, 0.0, 10.0, 10.0])).tolist()
        [20.0, 0.0, 40.0, 20.0]
        """
        x0, y0, x1, y1 = np.moveaxis(np.asarray(boxes, dtype=np.float64), -1, 0)
        if self.flip:
            x0, x1 = self.width - x1, self.width - x0
        view = np.stack([x0, y0, x1, y1], axis=-1)
        return np.asarray((view + np.tile(self.offset, 2)) / np.tile(self.scale, 2))

    def from_original(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) in pixels of the original image -> the same in pixels of the view, not cut there.

        >>> view = Geometry((0.5, 0.5), (10.0, 0.0), 64.0, flip=True)
        >>> view.from_original(np.array([20.0, 0.0, 40.0, 20.0])).tolist()
        [54.0, 0.0, 64.0, 10.0]
        """
        boxes = np.asarray(boxes, dtype=np.float64)
        view = boxes * np.tile(self.scale, 2) - np.tile(self.offset, 2)
        if not self.flip:
            return np.asarray(view)
        x0, y0, x1, y1 = np.moveaxis(view, -1, 0)
        return np.stack([self.width - x1, y0, self.width - x0, y1], axis=-1)


def rescale_span(span: tuple[int, int], length: int, new_length: int) -> tuple[int, int]:
    """The whole pixels, at least one, that are nearest to a span once a side has another length.

    >>> rescale_span((2, 5), 8, 16), rescale_span((2, 3), 8, 2)
    ((4, 10), (0, 1))
    """
    start, stop = (round(edge * new_length / length) for edge in span)
    start = min(start, new_length - 1)
    return start, max(stop, start + 1)


def frame_size(original_size: Size, preprocessing: Preprocessing) -> Size:
    """`(height, width)` of an image resized, and padded, as `preprocessing` says: what views are drawn in."""
    if preprocessing.fit == "pad":
        assert not isinstance(preprocessing.resize, int), "checked by Preprocessing"
        return preprocessing.resize
    return resized_size(original_size, preprocessing.resize, preprocessing.fit)


def box_in_original(box: np.ndarray, geometry: Geometry, original_size: tuple[int, int]) -> Box:
    """Map a box (4,) from pixels of a view to the original of `(width, height)`, and clip it to that.

    A box in the padding becomes a line of one pixel at the edge.

    >>> box_in_original(np.array([0.0, 0.0, 32.0, 64.0]), Geometry((0.5, 0.5), (0.0, 0.0), 64.0), (100, 120))
    (0.0, 0.0, 64.0, 120.0)
    """
    size = np.array(original_size)
    original = geometry.to_original(box).astype(np.float32)
    low = np.clip(original[:2], 0, size - 1)
    (x0, y0), (x1, y1) = low.tolist(), np.clip(original[2:], low + 1, size).tolist()
    return x0, y0, x1, y1
