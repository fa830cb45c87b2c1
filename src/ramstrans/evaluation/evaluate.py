"""Run a model over a split and gather what it says."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ramstrans.data.loading import Batch, PhotographDataset
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.transforms import normalize
from ramstrans.evaluation.predictions import Predictions
from ramstrans.model.rams import RamsOutput


@torch.no_grad()
def predict_split(
    model: nn.Module,
    loader: DataLoader[Batch],
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    precision: str = "fp32",
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> tuple[Predictions, np.ndarray]:
    """Predict every image of a loader over a `PhotographDataset`; the model is in eval mode after.

    Args:
        model: A `RamsTrans`, perhaps wrapped, on `device`.
        loader: In order, not shuffled.
        preprocessing: Mean and standard deviation of the input.
        device: Where the model is.
        precision: Autocast precision, `fp32`, `bf16` or `fp16`.
        progress: Told after each batch.

    Returns:
        The predictions, and (N, 2) int64, `(width, height)` of the photographs in pixels.
    """
    model.eval()
    dataset = loader.dataset
    assert isinstance(dataset, PhotographDataset), "predictions name the dataset's records"
    probabilities, boxes, found, labels, sizes = [], [], [], [], []
    for done, batch in enumerate(loader, start=1):
        images, source = normalized(batch, preprocessing, device)
        with autocast(device, precision):
            output: RamsOutput = model(images, source)
        probabilities.append(output.probabilities.cpu().numpy())
        boxes.append(boxes_in_photographs(output, batch))
        found.append(np.stack([_numpy(scale.found) for scale in output.scales]))
        labels.append(batch.labels.numpy())
        sizes.append(batch.original_sizes.numpy())
        progress(done, len(loader), "evaluating")
    predictions = Predictions(
        np.concatenate(probabilities, axis=1),
        np.concatenate(labels),
        np.concatenate(boxes, axis=1),
        np.concatenate(found, axis=1),
        dataset.records,
    )
    return predictions, np.concatenate(sizes)


def normalized(
    batch: Batch, preprocessing: Preprocessing, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """A batch's images and source on the device, as the model expects them."""
    mean, std = preprocessing.mean, preprocessing.std
    images = normalize(batch.images.to(device, non_blocking=True), mean, std)
    if batch.source is None:
        return images, None
    return images, normalize(batch.source.to(device, non_blocking=True), mean, std)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass in `fp32` (no autocast), `bf16` or `fp16`."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def boxes_in_photographs(output: RamsOutput, batch: Batch) -> np.ndarray:
    """(S, B, 4) float32, every scale's boxes in pixels of the original photographs."""
    boxes = np.stack([_numpy(scale.boxes) for scale in output.scales])
    for index, geometry in enumerate(batch.geometries):
        boxes[:, index] = geometry.to_original(boxes[:, index])
    return boxes


def _numpy(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None, "a model in eval mode proposes a region at every scale"
    return tensor.cpu().numpy()
