"""What a model said about one split, gathered in memory: the input of every metric and picture."""

from typing import NamedTuple

import numpy as np

from ramstrans.data.records import Record


class Predictions(NamedTuple):
    """What a model with S scales said about N images of C classes.

    Attributes:
        probabilities: (S, N, C) float32, softmax of each scale's logits.
        labels: (N,) int64, the true classes.
        boxes: (R, N, 4) float32, the region that each scale proposes for the next, half-open
            `(x0, y0, x1, y1)` in pixels of the original image; R = S - 1, but a plain ViT's, which none
            looks at, is there.
        has_region: (R, N) bool, False where nothing stood out and the region is the whole input.
        records: The N records, in the same order.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    has_region: np.ndarray
    records: tuple[Record, ...]

    @property
    def fused(self) -> np.ndarray:
        """(N, C) float32, the mean of the scales' probabilities."""
        mean: np.ndarray = self.probabilities.mean(axis=0)
        return mean
