"""Run a model over a split and gather its predictions, the input of every metric and figure."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object

from ramstrans.console import Progress, no_progress
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.loading.loader import ImageLoader
from ramstrans.data.records import Record
from ramstrans.distributed import DTYPES, autocast, computes_bf16, num_processes
from ramstrans.errors import UsageError
from ramstrans.models.methods.base import Output
from ramstrans.models.methods.method import Method
from ramstrans.saved.metadata import ModelMetadata

logger = logging.getLogger(__name__)


class Predictions(NamedTuple):
    """Predictions of a model with S scales for N images of C classes.

    Attributes:
        probabilities: (S, N, C) float32, softmax of each scale's logits; sigmoid if images may have several
            labels.
        labels: (N,) int64, the true classes; or (N, C) float32, 1 for the labels that an image has, else 0.
        boxes: (R, N, 4) float32, the region that each scale proposes for the next, half-open
            `(x0, y0, x1, y1)` in pixels of the original image. R = S - 1; but 1 for a plain ViT, whose
            region no scale uses.
        has_region: (R, N) bool, False where nothing stood out and the region is the whole input.
        image_sizes: (N, 2) int64, `(width, height)` of the original images in pixels.
        records: The N records, in the same order.
        weights: (S,) of the scales in the fused prediction, see `fit_weights`; None: all alike.
        logits: (S, N, C) float32; None unless they are asked for.
        features: (S, N, D) float32, what the classifier reads; None unless they are asked for.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    has_region: np.ndarray
    image_sizes: np.ndarray
    records: tuple[Record, ...]
    weights: np.ndarray | None = None
    logits: np.ndarray | None = None
    features: np.ndarray | None = None

    @property
    def fused(self) -> np.ndarray:
        """(N, C) float32, the mean of the scales' probabilities."""
        if self.weights is not None:
            return np.tensordot(self.weights, self.probabilities, 1).astype(np.float32)
        return np.asarray(self.probabilities.mean(axis=0))

    def first(self, num_scales: int) -> "Predictions":
        """The same of the first scales alone, all alike."""
        kept, looked_at = slice(num_scales), slice(max(num_scales - 1, 1))
        return self._replace(
            probabilities=self.probabilities[kept],
            boxes=self.boxes[looked_at],
            has_region=self.has_region[looked_at],
            weights=None,
            logits=None if self.logits is None else self.logits[kept],
            features=None if self.features is None else self.features[kept],
        )


@torch.no_grad()
def predict_split(
    model: Method,
    loader: ImageLoader,
    *,
    precision: str = "fp32",
    progress: Progress = no_progress,
    keep: bool = False,
    what: str = "evaluating",
) -> Predictions:
    """Predict every image of a loader over an `ImageDataset`, in order; leaves the model in eval mode.

    If several processes share the batches, each gets the predictions of all of them: every image once, and
    bit-identical to those of a single process, because the batches are the same. `precision` is that of
    autocast, `fp32`, `bf16` or `fp16`. With `keep` there are logits and features too; `what` is for the
    progress.
    """
    model.eval()
    gathered: list[tuple[np.ndarray, ...]] = []
    for done, batch in enumerate(loader, start=1):
        images, high_res = model.normalize(batch.images, batch.high_res)
        with autocast(model.device, precision):
            output: Output = model(images, high_res, last_region=model.num_scales == 1, boxes=batch.boxes)
        regions = [scale.has_region for scale in output.scales if scale.has_region is not None]
        gathered.append(
            (
                batch.indices.numpy(),
                output.probabilities.cpu().numpy(),
                batch.labels.numpy(),
                boxes_in_originals(output, batch),
                torch.stack(regions).cpu().numpy(),
                batch.original_sizes.numpy(),
                *(_kept(output) if keep else ()),
            )
        )
        progress(done, len(loader), what)
    axes = (0, 1, 0, 1, 1, 0, *((1, 1) if keep else ()))
    probabilities, labels, boxes, has_region, sizes, *kept = in_order(gathered, axes)
    records = tuple(loader.dataset.records)
    logits, features = kept or (None, None)
    return Predictions(
        probabilities, labels, boxes, has_region, sizes, records, logits=logits, features=features
    )


def _kept(output: Output) -> tuple[np.ndarray, np.ndarray]:
    """(S, B, C) logits and (S, B, D) features."""
    logits = torch.stack([scale.logits.float() for scale in output.scales])
    features = torch.stack([scale.feature.float() for scale in output.scales])
    return logits.cpu().numpy(), features.cpu().numpy()


def in_order(batches: list[tuple[np.ndarray, ...]], axes: Sequence[int]) -> list[np.ndarray]:
    """Join what all processes have of their batches, in the order of the images.

    Args:
        batches: Of this process: the indices of the images, and arrays about them.
        axes: For the indices and each array, its axis of the images.
    """
    if num_processes() > 1:
        batches = gather_object(batches)
    indices, *arrays = (np.concatenate(parts, axis) for *parts, axis in zip(*batches, axes, strict=True))
    order = np.argsort(indices)
    return [array.take(order, axis) for array, axis in zip(arrays, axes[1:], strict=True)]


def choose_precision(given: str | None, metadata: ModelMetadata | None, device: torch.device) -> str:
    """Choose the precision of inference: the given one, else that of the training run, else `fp32`.

    A CPU that has no units for the half precision of the training run computes in fp32, which is logged.

    Raises:
        UsageError: The given precision is unknown, or is fp16 on a CPU.
    """
    if given is not None and given not in DTYPES:
        raise UsageError(f"precision is '{given}'; give {', '.join(DTYPES)}")
    if given == "fp16" and device.type == "cpu":
        raise UsageError("precision fp16 needs a GPU; on a CPU give bf16 or fp32")
    recipe = {} if metadata is None else metadata.run_options("training")
    chosen = str(given or recipe.get("precision", "fp32"))
    if chosen == "fp16" and device.type == "cpu":
        logger.info("the model was trained in fp16, which needs a GPU; predicting in fp32")
        return "fp32"
    if given is None and chosen == "bf16" and not computes_bf16(device):
        logger.info("the model was trained in bf16, for which this CPU has no units; predicting in fp32")
        return "fp32"
    return chosen


def boxes_in_originals(output: Output, batch: Batch) -> np.ndarray:
    """(R, B, 4) float32, boxes of the scales that have some, in pixels of the original images."""
    boxes = torch.stack([scale.boxes for scale in output.scales if scale.boxes is not None]).cpu().numpy()
    for index, geometry in enumerate(batch.geometries):
        boxes[:, index] = geometry.to_original(boxes[:, index])
    return boxes
