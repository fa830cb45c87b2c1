"""What the scales of a model saw in an image, for figures."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ramstrans.data.loading.dataset import Batch, collate, to_example
from ramstrans.data.reading.decode import ResizedImage
from ramstrans.data.records import Box
from ramstrans.distributed import autocast
from ramstrans.models.methods.base import Output
from ramstrans.models.methods.boxes import scaled
from ramstrans.models.methods.method import Method
from ramstrans.models.zoom import zoom, zoom_each
from ramstrans.saved.metadata import ModelMetadata


class ScaleViews(NamedTuple):
    """What S scales saw in one image.

    Attributes:
        image: The image, upright RGB, resized as for the model.
        size: `(width, height)` of the original image in pixels, after EXIF rotation.
        crops: S images: what each scale saw, as it saw it.
        crop_boxes: S boxes in pixels of the original image: where that lies. The first is the
            preprocessing's crop, every other the region of the scale before.
        saliencies: S arrays (h, w) float32, non-negative, saliency of the patches of each crop.
    """

    image: Image.Image
    size: tuple[int, int]
    crops: tuple[Image.Image, ...]
    crop_boxes: tuple[Box, ...]
    saliencies: tuple[np.ndarray, ...]


@torch.inference_mode()
def scale_views(
    model: Method,
    metadata: ModelMetadata,
    images: Sequence[ResizedImage],
    precision: str,
    boxes: Sequence[Box | None] | None = None,
) -> tuple[Batch, Output, list[ScaleViews]]:
    """Run a model in eval mode on some images, as one batch, and collect what its scales saw in each.

    `boxes` are the true ones in pixels of the original images, for a model that looks at them.
    """
    examples = [
        to_example(image, metadata.preprocessing, model.image_size, box)
        for image, box in zip(images, boxes or [None] * len(images), strict=True)
    ]
    batch = collate(examples, with_high_res=model.needs_high_res)
    inputs = model.normalize(batch.images, batch.high_res)
    with autocast(model.device, precision):
        output: Output = model(*inputs, last_region=True, boxes=batch.boxes)
    crops = [[to_image(pixels) for pixels in batch.images]]
    for scale, size in zip(output.scales, model.scale_sizes[1:], strict=False):
        crops.append(crop_images(batch, cast(Tensor, scale.boxes), size))
    seen = [scale.crop_box.cpu().numpy() for scale in output.scales]
    saliencies = [cast(Tensor, scale.saliency).cpu().numpy() for scale in output.scales]
    views = [
        ScaleViews(
            to_image(image.pixels),
            image.original_size[::-1],
            tuple(of_scale[row] for of_scale in crops),
            tuple(box_in_original(batch, row, of_scale[row]) for of_scale in seen),
            tuple(of_scale[row] for of_scale in saliencies),
        )
        for row, image in enumerate(images)
    ]
    return batch, output, views


def box_in_original(batch: Batch, row: int, box: np.ndarray) -> Box:
    """Map a box (4,) from pixels of an image of the batch to the original, and clip it to that.

    A box in the padding becomes a line of one pixel at the edge.
    """
    size = batch.original_sizes[row].numpy()
    original = batch.geometries[row].to_original(box).astype(np.float32)
    low = np.clip(original[:2], 0, size - 1)
    (x0, y0), (x1, y1) = low.tolist(), np.clip(original[2:], low + 1, size).tolist()
    return x0, y0, x1, y1


def crop_images(batch: Batch, boxes: Tensor, size: tuple[int, int]) -> list[Image.Image]:
    """Crop each image of a batch to its region, as the next scale saw it, from high resolution if given.

    Regions are `boxes` (B, 4), half-open, in pixels of the batch's images; `size` is `(height, width)` of the
    next scale's input.
    """
    high_res, (height, width) = batch.high_res, batch.images.shape[2:]
    if high_res is not None and not isinstance(high_res, Tensor):
        shares = scaled(boxes.float(), 1 / width, 1 / height)
        return [to_image(crop) for crop in zoom_each(high_res, shares, size)]
    high_res = batch.images if high_res is None else high_res
    to_high_res = high_res.shape[3] / width, high_res.shape[2] / height
    crops = zoom(high_res.float(), scaled(boxes.float().cpu(), *to_high_res), size)
    return [to_image(crop) for crop in crops]


def to_image(pixels: Tensor) -> Image.Image:
    """Convert (3, H, W) pixels in [0, 255] to an image."""
    return Image.fromarray(pixels.float().round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())
