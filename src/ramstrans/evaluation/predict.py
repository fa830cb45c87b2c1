"""Run a model over a split and gather what it says."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from ramstrans.data.loading.dataset import Batch, ImageDataset
from ramstrans.data.loading.transforms import normalize
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.devices import num_processes
from ramstrans.evaluation.predictions import Predictions
from ramstrans.models.methods.rams import RamsOutput, RamsTrans


@torch.no_grad()
def predict_split(
    model: RamsTrans,
    loader: DataLoader[Batch],
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    precision: str = "fp32",
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> tuple[Predictions, np.ndarray]:
    """Predict every image of a loader over a `ImageDataset`; the model is in eval mode after.

    Where several processes were dealt the batches, each gets the predictions of all: every image's once,
    and the same to the last bit as one process would give, since the batches are the same.

    Args:
        model: On `device`.
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
    assert isinstance(dataset, ImageDataset), "predictions name the dataset's records"
    gathered: list[Answers] = []
    for done, batch in enumerate(loader, start=1):
        images, high_res = normalized(batch, preprocessing, device)
        with autocast(device, precision):
            output: RamsOutput = model(images, high_res, last_region=model.num_scales == 1)
        has_region = np.stack(
            [_numpy(scale.has_region) for scale in output.scales if scale.has_region is not None]
        )
        gathered.append(
            Answers(
                _numpy(output.probabilities),
                batch.labels.numpy(),
                boxes_in_originals(output, batch),
                has_region,
                batch.original_sizes.numpy(),
                batch.indices.numpy(),
            )
        )
        progress(done, len(loader), "evaluating")
    if num_processes() > 1:
        gathered = gather_object(gathered)
    answers = in_order(gathered)
    return Predictions(*answers[:4], dataset.records), answers.sizes


class Answers(NamedTuple):
    """What a model said about the images of some batches, see `Predictions`.

    Attributes:
        probabilities: (S, N, C).
        labels: (N,).
        boxes: (R, N, 4).
        has_region: (R, N).
        sizes: (N, 2) int64, `(width, height)` of the photographs in pixels.
        places: (N,) int64, in the dataset.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    has_region: np.ndarray
    sizes: np.ndarray
    places: np.ndarray


def in_order(batches: Sequence[Answers]) -> Answers:
    """The answers of all batches together, in the order of the dataset."""
    axes = (1, 0, 1, 1, 0, 0)
    whole = [
        np.concatenate(parts, axis) for parts, axis in zip(zip(*batches, strict=True), axes, strict=True)
    ]
    order = np.argsort(whole[-1])
    return Answers(*(values.take(order, axis) for values, axis in zip(whole, axes, strict=True)))


def normalized(
    batch: Batch, preprocessing: Preprocessing, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """A batch's images and source on the device, as the model expects them."""
    mean, std = preprocessing.mean, preprocessing.std
    images = normalize(batch.images.to(device, non_blocking=True), mean, std)
    if batch.high_res is None:
        return images, None
    return images, normalize(batch.high_res.to(device, non_blocking=True), mean, std)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass in `fp32` (no autocast), `bf16` or `fp16`."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def boxes_in_originals(output: RamsOutput, batch: Batch) -> np.ndarray:
    """(R, B, 4) float32, the boxes of the scales that have some, in pixels of the original photographs."""
    boxes = np.stack([_numpy(scale.boxes) for scale in output.scales if scale.boxes is not None])
    return in_originals(boxes, batch)


def in_originals(boxes: np.ndarray, batch: Batch) -> np.ndarray:
    """Boxes (R, B, 4) in pixels of a batch's images -> the same in pixels of the original photographs."""
    mapped = np.empty_like(boxes)
    for index, geometry in enumerate(batch.geometries):
        mapped[:, index] = geometry.to_original(boxes[:, index])
    return mapped


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.cpu().numpy()
    return array
