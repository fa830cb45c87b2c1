"""What the scales of a model saw, as pictures."""

import torch
from PIL import Image
from torch import Tensor

from ramstrans.data.loading.dataset import Batch
from ramstrans.models.methods.rams import scaled
from ramstrans.models.zoom import zoom


def picture_of(pixels: Tensor) -> Image.Image:
    """An image of a batch as a picture.

    Args:
        pixels: (3, H, W), 0 to 255.
    """
    return Image.fromarray(pixels.float().round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def crop_picture(batch: Batch, boxes: Tensor, size: tuple[int, int]) -> Image.Image:
    """What the next scale saw of a batch's first image: its region, cut from the sharpest that there is.

    Args:
        batch: With or without sources.
        boxes: (B, 4), half-open regions in pixels of the batch's images.
        size: `(height, width)` of that scale's input.
    """
    high_res = batch.images if batch.high_res is None else batch.high_res
    to_source = high_res.shape[3] / batch.images.shape[3], high_res.shape[2] / batch.images.shape[2]
    return picture_of(zoom(high_res[:1].float(), scaled(boxes[:1].float().cpu(), *to_source), size)[0])
