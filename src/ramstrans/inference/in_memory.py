"""What a predictor takes as one image: a path, an image in memory, or the bytes of a file."""

import os
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from PIL import Image
from torch import Tensor

from ramstrans.errors import UsageError

ImageInput = (
    str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | bytes | bytearray | memoryview | BinaryIO
)
"""One image: a file's path; a PIL image; an array, uint8, (H, W, 3) RGB, (H, W, 4) RGBA, (H, W, 1) or (H, W)
grey; a tensor, uint8, (C, H, W) with C = 3, 4 or 1, on any device; the bytes of an image file; or a file that
is open in binary mode, which is read from where it is to its end."""

ALLOWED = (
    "a path, a PIL image, a NumPy array (uint8, (H, W, 3) RGB or (H, W) grey), "
    "a torch tensor (uint8, (C, H, W)), the bytes of an image file, or a file open in binary mode"
)

NUM_CHANNELS = (1, 3, 4)


def is_image(value: object) -> TypeGuard[ImageInput]:
    """Whether a value stands for one image, not for several; an array or tensor does, whatever its shape."""
    kinds = (str, os.PathLike, Image.Image, np.ndarray, Tensor, bytes, bytearray, memoryview)
    return isinstance(value, kinds) or hasattr(value, "read")


def path_of(image: ImageInput) -> Path | None:
    """The path of a file; None for an image in memory."""
    return Path(image) if isinstance(image, str | os.PathLike) else None


def to_source(image: ImageInput) -> Path | bytes | Image.Image:
    """Convert an input to one of three: a path, the bytes of a file, or a PIL image.

    Raises:
        UsageError: It is none of `ALLOWED`.

    >>> to_source("wren.jpg"), to_source(np.zeros((5, 7), np.uint8)).size
    (PosixPath('wren.jpg'), (7, 5))
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        return _from_pixels(image if image.ndim != 2 else image[..., None], "an array", image)
    if isinstance(image, Tensor):
        return _from_pixels(image.detach().movedim(0, -1) if image.ndim else image, "a tensor", image)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image)
    content: Any = image.read() if hasattr(image, "read") else None
    if isinstance(content, bytes):
        return content
    what = "a file open in text mode" if isinstance(content, str) else f"of type {type(image).__name__}"
    raise UsageError(f"an image is {what}; give {ALLOWED}")


def _from_pixels(pixels: np.ndarray | Tensor, what: str, given: np.ndarray | Tensor) -> Image.Image:
    """Convert uint8 pixels (H, W, C) to a PIL image, or raise an error that describes what was given."""
    shape, kind = tuple(given.shape), str(given.dtype).removeprefix("torch.")
    if kind != "uint8" or pixels.ndim != 3 or pixels.shape[2] not in NUM_CHANNELS or 0 in shape:
        several = ", several images in one: give a list of them, each" if len(shape) == 4 else "; give"
        raise UsageError(f"an image is {what} of shape {shape} and type {kind}{several} {ALLOWED}")
    array = pixels.cpu().numpy() if isinstance(pixels, Tensor) else pixels
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
