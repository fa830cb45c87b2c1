"""Decoded images to resized pixels."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ramstrans.data.config import DataConfig
from ramstrans.data.preprocessing import Reading, Size, limited_size, resized_size
from ramstrans.data.reading.decode import decode_for


class ResizedImage(NamedTuple):
    """An image that views can be cut from.

    Attributes:
        pixels: (3, h, w) uint8, RGB, upright; channels last in memory.
        original_size: `(height, width)` in pixels after EXIF rotation, before resizing.
    """

    pixels: Tensor
    original_size: Size


def read_resized(
    path: Path,
    reading: Reading,
    *,
    max_pixels: int = DataConfig.max_pixels,
    content: bytes | None = None,
) -> ResizedImage:
    """Read an image, upright and resized; training, evaluation and prediction all do it here.

    The `resize` of `reading` is the shorter side in pixels, or exact `(height, width)`, after EXIF rotation;
    with `fit` "pad" the image keeps its aspect ratio and fits into that. With `zoom_pixels` neither counts:
    the image keeps its own size, or is reduced to at most so many pixels. With `content`, a file's bytes,
    nothing is opened, and `path` is only its name in errors.

    Raises:
        UnreadableImageError: It cannot be decoded, or has more than `max_pixels`.
    """
    return _resized(*decode_for(path, reading, max_pixels=max_pixels, content=content), reading)


def resize_in_memory(image: Image.Image, reading: Reading) -> ResizedImage:
    """Resize an upright RGB image as `read_resized` does, but from all of its pixels."""
    return _resized(image, (image.height, image.width), reading)


def _resized(image: Image.Image, original_size: Size, reading: Reading) -> ResizedImage:
    if reading.zoom_pixels is None:
        size = resized_size(original_size, reading.resize, reading.fit)
    else:
        size = limited_size(original_size, reading.zoom_pixels)
    pixels = F.resize(F.pil_to_tensor(image), list(size), antialias=True)
    channels_last = pixels.permute(1, 2, 0).contiguous()  # copies nothing on CPUs with AVX2
    return ResizedImage(channels_last.permute(2, 0, 1), original_size)
