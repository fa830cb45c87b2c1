"""The one way from a photograph, in a file or in memory, to the resized pixels that views are cut from."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from ramstrans.data.config import DataConfig
from ramstrans.data.loading.transforms import Size, resize_photograph, resized_size
from ramstrans.data.reading.decode import decode_reduced

DECODING_VERSION = 1
"""Raise it when the same file gives other pixels than before; caches on disk are then made anew."""

REDUCTION_MARGIN = 2
"""A photograph is decoded at no less than this many times the size it is resized to.

Against decoding in full, 12-megapixel photographs resized to 512 pixels differ by 0.13 grey levels of 255
on average with a margin of 2, by 0.32 with 1; small ones full of detail, resized to 64 or 100, by 0.3 to 0.8,
against 1.8 to 2.3. The margin costs little: reading takes 1/4 to 1/3 of the time of decoding in full, with 1
it takes 1/8 to 1/4.
"""


class ResizedImage(NamedTuple):
    """A photograph that views can be cut from.

    Attributes:
        pixels: (3, h, w) uint8, RGB, upright; channels last in memory.
        original_size: `(height, width)` of the photograph in pixels, after EXIF rotation.
    """

    pixels: Tensor
    original_size: Size


def read_resized(path: Path, resize: int | Size, *, max_pixels: int = DataConfig.max_pixels) -> ResizedImage:
    """Read a photograph, upright and resized; training, evaluation and prediction all do it here.

    A large JPEG is decoded at a reduced scale, see `REDUCTION_MARGIN`. What is decoded then may end up
    to one of its own pixels, half a resized one, outside the photograph.

    Args:
        path: The image file.
        resize: Shorter side in pixels, or exact `(height, width)`, after EXIF rotation.
        max_pixels: Refuse a photograph with more pixels than this.

    Raises:
        UnreadableImageError: It cannot be decoded.
    """
    if isinstance(resize, int):
        at_least: int | Size = REDUCTION_MARGIN * resize
    else:
        at_least = (REDUCTION_MARGIN * resize[0], REDUCTION_MARGIN * resize[1])
    image, original_size = decode_reduced(path, at_least, max_pixels=max_pixels)
    return ResizedImage(resize_photograph(image, resized_size(original_size, resize)), original_size)


def resize_in_memory(photograph: Image.Image, resize: int | Size) -> ResizedImage:
    """Resize an upright RGB photograph; as `read_resized` does, but from all of its pixels.

    Args:
        photograph: Upright RGB.
        resize: Shorter side in pixels, or exact `(height, width)`.
    """
    original_size = photograph.height, photograph.width
    return ResizedImage(resize_photograph(photograph, resized_size(original_size, resize)), original_size)
