"""Image files to RGB pixels: every common format and colour mode, or one error that says why not."""

import io
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from ramstrans.data.config import DataConfig
from ramstrans.data.reading.retry import open_retrying, retry
from ramstrans.data.reading.tars import find_member
from ramstrans.errors import UnreadableImageError

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is read. Others that Pillow knows (PostScript, icons, ...) are no photographs, or run programs."""

MAX_ELONGATION = 100
"""Longest side over shortest that is decoded: the shorter one is resized, and the longer one with it."""

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation to what undoes it
_SWAPS_SIDES = {5, 6, 7, 8}

_REDUCIBLE = {"JPEG", "MPO"}
"""Formats that Pillow decodes at 1/2, 1/4 or 1/8 if asked; MPO is a JPEG with further pictures behind."""

# Pillow has no common error: its decoders raise these on damaged files.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)

_REASONS: dict[type[BaseException], str] = {
    FileNotFoundError: "no such file",
    PermissionError: "no permission to read it",
    UnidentifiedImageError: f"not an image in a known format ({', '.join(FORMATS)})",
    MemoryError: "not enough memory to decode it",
}

_pixel_limit_lock = threading.Lock()


class Decoded(NamedTuple):
    """A decoded photograph.

    Attributes:
        image: Upright RGB that holds no open file; perhaps reduced.
        original_size: `(height, width)` in pixels after EXIF rotation, before any reduction.
    """

    image: Image.Image
    original_size: tuple[int, int]


def decode_image(path: Path, *, max_pixels: int = DataConfig.max_pixels) -> Image.Image:
    """Decode a photograph to RGB, upright, at its original size.

    EXIF rotation is applied, transparency is laid over white, the first frame of an animation is
    taken, and more than 8 bits are scaled down, not clipped. Safe to call from several threads.

    Args:
        path: The image file; it may lie in a tar, see `tars`.
        max_pixels: Refuse an image whose header announces more pixels than this, before decoding it.

    Returns:
        An image of mode RGB that holds no open file.

    Raises:
        UnreadableImageError: If the file is missing, empty, truncated, too large or no image.
    """
    return _decode(path, max_pixels, None).image


def decode_reduced(
    path: Path, at_least: int | tuple[int, int], *, max_pixels: int = DataConfig.max_pixels
) -> Decoded:
    """Decode a photograph as `decode_image` does, but smaller where that is quicker.

    The JPEG decoder halves the photograph, up to three times, while it keeps the size asked for.
    Other formats are decoded at their original size.

    Args:
        path: The image file.
        at_least: What the reduced photograph keeps, in pixels: of its shorter side, or exact
            `(height, width)`, both after EXIF rotation.
        max_pixels: As in `decode_image`; of the original.

    Raises:
        UnreadableImageError: As `decode_image`.
    """
    return _decode(path, max_pixels, at_least)


def _decode(path: Path, max_pixels: int, at_least: int | tuple[int, int] | None) -> Decoded:
    with _opened(path, max_pixels) as image:
        width, height = image.size
        if at_least is not None and image.format in _REDUCIBLE:
            image.draft(None, _size_in_file(image, at_least))
        image.load()
        orientation = _orientation(image)  # a PNG's may stand behind its pixels
        rgb = to_rgb(image)
        if orientation in _TRANSPOSE:
            rgb = rgb.transpose(_TRANSPOSE[orientation])
        return Decoded(rgb, (width, height) if orientation in _SWAPS_SIDES else (height, width))


def _size_in_file(image: ImageFile.ImageFile, size: int | tuple[int, int]) -> tuple[int, int]:
    """A size after EXIF rotation, `(height, width)` or both alike, as `(width, height)` before it."""
    height, width = (size, size) if isinstance(size, int) else size
    return (height, width) if _orientation(image) in _SWAPS_SIDES else (width, height)


def image_size(path: Path, *, max_pixels: int = DataConfig.max_pixels) -> tuple[int, int]:
    """Size of a photograph after EXIF rotation, as `(height, width)` in pixels.

    Read from the header alone, but for PNG, whose EXIF may stand behind the pixels.

    Args:
        path: The image file.
        max_pixels: Refuse an image with more pixels than this.

    Raises:
        UnreadableImageError: If the file is missing, empty, too large or no image.
    """
    with _opened(path, max_pixels) as image:
        if image.format == "PNG":
            image.load()
        width, height = image.size
        turned = _orientation(image) in _SWAPS_SIDES
    return (width, height) if turned else (height, width)


def check_shape(path: Path | str, size: tuple[int, int], max_pixels: int) -> None:
    """Refuse what would fill the memory, now or when its shorter side is resized.

    Args:
        path: Named in the error.
        size: `(width, height)` in pixels.
        max_pixels: Largest number of pixels allowed.

    Raises:
        UnreadableImageError: Too many pixels, or one side over `MAX_ELONGATION` times the other.
    """
    width, height = size
    if width * height > max_pixels:
        reason = f"{width} x {height} pixels, over the limit of {max_pixels:,} (--data.max_pixels)"
        raise UnreadableImageError(path, reason)
    if max(size) > MAX_ELONGATION * min(size):
        reason = f"{width} x {height} pixels, too elongated: over {MAX_ELONGATION} to 1"
        raise UnreadableImageError(path, reason)


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """The image with its header read; whatever goes wrong inside becomes an `UnreadableImageError`."""
    _silence_pillow()
    try:
        with open_file(path) as stream, _open(stream) as image:
            check_shape(path, image.size, max_pixels)
            yield image
    except UnreadableImageError:
        raise
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(path, _reason(error)) from error


def open_file(path: Path) -> BinaryIO:
    """A file, or a member of a tar, opened to be read; every photograph's bytes come from here.

    Raises:
        UnreadableImageError: It is empty or no file, or its tar is missing, damaged or without it.
        OSError: It cannot be opened.
    """
    member = find_member(path)
    if member is None:
        _check_file(path)
        return open_retrying(path)
    content = member.read()
    if not content:
        raise UnreadableImageError(path, "empty file")
    return io.BytesIO(content)


def _check_file(path: Path) -> None:
    """Refuse what must not even be opened, such as pipes, which would block."""
    status = retry(path.stat, path)
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableImageError(path, "a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError(path, "not a regular file")
    if status.st_size == 0:
        raise UnreadableImageError(path, "empty file")


def _open(stream: BinaryIO) -> ImageFile.ImageFile:
    """Read the header, whatever Pillow's own limit of pixels, which knows nothing of ours."""
    try:
        return Image.open(stream, formats=FORMATS)
    except Image.DecompressionBombError:
        with _pixel_limit_lock:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(stream, formats=FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit


def _silence_pillow() -> None:
    """Ignore Pillow's remarks on metadata, palettes and large images, for good.

    `warnings.catch_warnings` is not safe with threads, so the filter stays; it is added again where
    another has put the list of filters back.
    """
    remarks = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    if remarks not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _reason(error: BaseException) -> str:
    """Why decoding failed, in a few words."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (
        "truncated file" if "truncated" in message else f"damaged image ({message or type(error).__name__})"
    )


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1, upright, where there is none or the EXIF is damaged."""
    if image.format == "TIFF":  # Pillow turns these itself, the size included
        return 1
    try:
        orientation: Any = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:
        return 1
    return orientation if orientation in _TRANSPOSE else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as a new image of mode RGB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of any range, scaled to 0..255.

    16-bit values have the range 0..65535. Others are given the smallest usual range that holds them
    all, 0..1 and 0..255 (floats only) or 0..65535, and where none does, their own; what is not
    finite becomes black.

    >>> _to_eight_bits(np.array([[0, 257, 65535]], np.uint16)).tolist()
    [[0, 1, 255]]
    >>> _to_eight_bits(np.array([[0.0, 0.5, np.nan]])).tolist()
    [[0, 128, 0]]
    """
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    usual = (1, 255, 65535) if values.dtype.kind == "f" else (65535,)
    for top in usual:
        if low >= 0 and high <= top:
            low, high = 0, top
            break
    scale = 255 / max(float(high) - float(low), 1e-30)
    scaled = np.rint((values.astype(np.float64) - low) * scale)
    return np.where(np.isfinite(values), scaled, 0).astype(np.uint8)
