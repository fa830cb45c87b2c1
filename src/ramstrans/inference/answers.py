"""What a model said about a batch, as arrays on the host, whether images left early or not."""

from typing import NamedTuple, Self

import numpy as np

from ramstrans.data.loading.dataset import Batch
from ramstrans.evaluation.predict import boxes_in_originals, in_originals
from ramstrans.models.methods.early_exit import EarlyExitOutput
from ramstrans.models.methods.rams import RamsOutput


class Answers(NamedTuple):
    """What a model with S scales said about B images of C classes.

    Attributes:
        probabilities: (S, B, C) float32, softmax of each scale's logits; NaN for looks not taken.
        fused: (B, C) float32, mean over the looks taken.
        num_scales_used: (B,) int64, 1 to S.
        boxes: (R, B, 4) float32, the regions of the R scales that proposed some, half-open
            `(x0, y0, x1, y1)` in pixels of the original photographs; NaN for looks not taken.
        has_region: (R, B) bool, False where nothing stood out, and for looks not taken.
    """

    probabilities: np.ndarray
    fused: np.ndarray
    num_scales_used: np.ndarray
    boxes: np.ndarray
    has_region: np.ndarray

    @classmethod
    def of(cls, output: RamsOutput, batch: Batch) -> Self:
        """Of images that all took all looks."""
        probabilities = output.probabilities.cpu().numpy()
        num_scales, num_images, _ = probabilities.shape
        has_region = [
            scale.has_region.cpu().numpy() for scale in output.scales if scale.has_region is not None
        ]
        return cls(
            probabilities,
            probabilities.mean(axis=0),
            np.full(num_images, num_scales),
            boxes_in_originals(output, batch),
            np.stack(has_region),
        )

    @classmethod
    def of_early_exit(cls, output: EarlyExitOutput, batch: Batch) -> Self:
        """Of images that left as soon as they were sure."""
        num_images, num_classes = output.fused.shape
        num_regions = sum(scale.boxes is not None for scale in output.scales)
        probabilities = np.full((len(output.scales), num_images, num_classes), np.nan, dtype=np.float32)
        boxes = np.full((num_regions, num_images, 4), np.nan, dtype=np.float32)
        has_region = np.zeros((num_regions, num_images), dtype=bool)
        for index, (scale, on_device) in enumerate(zip(output.scales, output.places, strict=True)):
            places = on_device.cpu().numpy()
            probabilities[index, places] = scale.logits.float().softmax(dim=-1).cpu().numpy()
            if scale.boxes is not None and scale.has_region is not None:
                boxes[index, places] = scale.boxes.cpu().numpy()
                has_region[index, places] = scale.has_region.cpu().numpy()
        fused, num_scales_used = output.fused.cpu().numpy(), output.num_scales_used.cpu().numpy()
        return cls(probabilities, fused, num_scales_used, in_originals(boxes, batch), has_region)
