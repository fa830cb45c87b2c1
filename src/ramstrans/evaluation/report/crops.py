"""What the scales of a model saw, as 8-bit images."""

import torch
from PIL import Image
from torch import Tensor

from ramstrans.data.loading.loader import Batch
from ramstrans.models.methods.rams import scaled
from ramstrans.models.zoom import zoom


def to_image(pixels: Tensor) -> Image.Image:
    """Convert (3, H, W) pixels in [0, 255] to an image."""
    return Image.fromarray(pixels.float().round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def crop_images(batch: Batch, boxes: Tensor, size: tuple[int, int]) -> list[Image.Image]:
    """Crop each image of a batch to its region, as the next scale saw it.

    Args:
        batch: With or without high-resolution images; regions are cut from these if there are any.
        boxes: (B, 4), half-open regions in pixels of the batch's images.
        size: `(height, width)` of the next scale's input.
    """
    high_res = batch.images if batch.high_res is None else batch.high_res
    to_high_res = high_res.shape[3] / batch.images.shape[3], high_res.shape[2] / batch.images.shape[2]
    crops = zoom(high_res.float(), scaled(boxes.float().cpu(), *to_high_res), size)
    return [to_image(crop) for crop in crops]
