"""Image files to RGB: every common format and colour mode, or one error that says why not; without torch."""

import functools
import io
import logging
import multiprocessing
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from ramstrans.data.config import DataConfig
from ramstrans.data.preprocessing import Reading, Size, limited_size
from ramstrans.data.reading.color import to_rgb
from ramstrans.data.reading.formats import HEIF_HINT, has_heif, is_heif, readable_formats
from ramstrans.data.reading.retry import retry
from ramstrans.data.reading.tars import find_member
from ramstrans.errors import UnreadableImageError

logger = logging.getLogger(__name__)

DECODING_VERSION = 2
"""Raise it when the same file gives other pixels than before; caches on disk are rebuilt then."""

MAX_ELONGATION = 100
"""Largest ratio of the longer to the shorter side: resizing the shorter side enlarges the longer one too."""

REDUCTION_MARGIN = 2
"""A JPEG is decoded at no less than this many times the size it is resized to.

Compared with decoding in full, 12-megapixel images resized to 512 pixels differ by 0.13 grey levels of 255
on average with a margin of 2, by 0.32 with 1; small ones full of detail, resized to 64 or 100, by 0.3 to 0.8,
against 1.8 to 2.3. The margin costs little: reading takes 1/4 to 1/3 of the time of decoding in full; with 1
it takes 1/8 to 1/4.
"""

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation; those from 5 on swap width and height."""

DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(EOFError, RuntimeError, MemoryError, struct.error, zlib.error),
)
"""What Pillow's decoders raise on damaged files; it has no common error."""

_REASONS: dict[type[BaseException], str] = {
    FileNotFoundError: "no such file",
    PermissionError: "no permission to read it",
    MemoryError: "not enough memory to decode it",
}

_END_OF_JPEG = b"\xff\xd9"
_MISSING = 128  # what libjpeg fills in for blocks that a file does not hold

_pixel_limit_lock = threading.Lock()

# Colour profiles and notes of editors take several MB; Pillow refuses a PNG with more than 1 MB of either.
# All notes of a file together stay limited to 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        image: Upright RGB without an open file; perhaps reduced.
        original_size: `(height, width)` in pixels after EXIF rotation, before any reduction.
    """

    image: Image.Image
    original_size: Size


def decode_for(
    path: Path,
    reading: Reading,
    *,
    max_pixels: int = DataConfig.max_pixels,
    content: bytes | None = None,
) -> Decoded:
    """Decode an image that is to be resized: a large JPEG at a reduced scale, see `REDUCTION_MARGIN`.

    What is decoded then may extend up to one of its own pixels, half a resized one, beyond the original.

    Args:
        path: The file; with `content` only its name in errors.
        reading: What it is to be resized to.
        max_pixels: As in `decode_reduced`.
        content: The file's bytes; None: they are read from `path`.

    Raises:
        UnreadableImageError: It cannot be decoded, or has more than `max_pixels`.
    """
    height, width = (reading.resize, reading.resize) if isinstance(reading.resize, int) else reading.resize
    at_least: Size | Callable[[Size], Size] = (REDUCTION_MARGIN * height, REDUCTION_MARGIN * width)
    if reading.zoom_pixels is not None:
        at_least = partial(limited_size, max_pixels=REDUCTION_MARGIN**2 * reading.zoom_pixels)
    return decode_reduced(path, at_least, max_pixels=max_pixels, content=content)


def decode_reduced(
    path: Path,
    at_least: Size | Callable[[Size], Size],
    *,
    max_pixels: int = DataConfig.max_pixels,
    content: bytes | None = None,
) -> Decoded:
    """Decode an image file to RGB, upright, at its original size or, if that is faster, smaller.

    EXIF rotation is applied, colours are converted to sRGB by the embedded ICC profile, transparency is laid
    over white, the first frame of an animation is taken, and more than 8 bits are scaled down, not clipped. A
    JPEG that lacks only its end mark is read, with a warning. Safe to call from several threads.

    The JPEG decoder halves the image, up to three times, as long as it keeps the size asked for.
    Other formats are decoded at their original size.

    Args:
        path: The image file, or a member of a tar, see `tars`.
        at_least: Smallest `(height, width)` of the reduced image in pixels, after EXIF rotation, or that as a
            function of the original's.
        max_pixels: Refuse an image whose header announces more pixels than this, before decoding it.
        content: The file's bytes, if they are in memory; None: they are read from `path`.

    Raises:
        UnreadableImageError: The file is missing, empty, truncated, too large or not an image.
    """

    def attempt() -> Decoded:
        with open_file(path, content) as stream, _open(stream) as image:
            check_shape(path, image.size, max_pixels)
            return _load_completed(path, stream, image, at_least)

    silence_pillow()
    try:
        return retry(attempt, path)
    except UnreadableImageError:
        raise
    except DECODER_ERRORS as error:
        raise UnreadableImageError(path, _reason(error)) from error


def check_shape(path: Path | str, size: tuple[int, int], max_pixels: int) -> None:
    """Refuse an image `size`, `(width, height)`, that would fill the memory, now or once it is resized.

    Raises:
        UnreadableImageError: Too many pixels, or one side over `MAX_ELONGATION` times the other.
    """
    width, height = size
    if width * height > max_pixels:
        limit = f"over the limit of {max_pixels:,} (max_pixels)"
    elif max(size) > MAX_ELONGATION * min(size):
        limit = f"too elongated: over {MAX_ELONGATION} to 1"
    else:
        return
    raise UnreadableImageError(path, f"{width} x {height} pixels, {limit}")


def _load_completed(
    path: Path, stream: BinaryIO, image: ImageFile.ImageFile, at_least: Size | Callable[[Size], Size]
) -> Decoded:
    """Load an image; a JPEG that ends after its last block, without the end mark, is given one.

    In one that ends earlier, the missing blocks up to the last pixel would be grey. A progressive one is
    refused: it would only be less sharp, by how much cannot be seen.
    """
    try:
        return _load(image, at_least)
    except OSError as error:
        is_sequential = image.format in {"JPEG", "MPO"} and "progressive" not in image.info
        if not is_sequential or "truncated" not in str(error):
            raise
        stream.seek(0)
        with _open(io.BytesIO(stream.read() + _END_OF_JPEG)) as completed:
            decoded = _load(completed, at_least)
            last = completed.getpixel((completed.width - 1, completed.height - 1))
        if np.abs(np.asarray(last) - _MISSING).max() <= 1:
            raise
    if multiprocessing.parent_process() is None:  # the main process reads every file first
        _warn_once(path)
    return decoded


@functools.cache
def _warn_once(path: Path) -> None:
    logger.warning("%s: the end mark of the JPEG is missing; it is read as it is", path)


def _load(image: ImageFile.ImageFile, at_least: Size | Callable[[Size], Size]) -> Decoded:
    width, height = image.size
    if image.format in {"JPEG", "MPO"}:  # MPO: a JPEG followed by further images
        if callable(at_least):
            at_least = at_least((width, height) if _orientation(image) >= 5 else (height, width))
        image.draft(None, at_least if _orientation(image) >= 5 else at_least[::-1])
    image.load()
    orientation = _orientation(image)  # in a PNG it may come after the pixels
    rgb = to_rgb(image)
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    return Decoded(rgb, (width, height) if orientation >= 5 else (height, width))


def open_file(path: Path, content: bytes | None = None) -> BinaryIO:
    """Open a file, a member of a tar or a file's bytes for reading; all bytes of images come from here.

    Raises:
        UnreadableImageError: It is empty or not a file, or its tar is missing, damaged or without it.
        OSError: It cannot be opened.
    """
    if content is None:
        member = find_member(path)
        if member is None:
            _check_file(path)
            return path.open("rb")
        content = member.read()
    if not content:
        raise UnreadableImageError(path, "empty file")
    return io.BytesIO(content)


def _check_file(path: Path) -> None:
    """Refuse what must not even be opened, such as pipes, which would block."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableImageError(path, "a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError(path, "not a regular file")
    if status.st_size == 0:
        raise UnreadableImageError(path, "empty file")


def _open(stream: BinaryIO) -> ImageFile.ImageFile:
    """Read the header, whatever Pillow's own limit of pixels: `check_shape` applies ours."""
    formats = readable_formats()
    try:
        return Image.open(stream, formats=formats)
    except UnidentifiedImageError as error:
        stream.seek(0)
        if is_heif(stream.read(12)) and not has_heif():
            raise UnidentifiedImageError(f"a HEIC image; {HEIF_HINT}") from error
        raise UnidentifiedImageError(f"not an image in a known format ({', '.join(formats)})") from error
    except Image.DecompressionBombError:
        with _pixel_limit_lock:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(stream, formats=formats)
            finally:
                Image.MAX_IMAGE_PIXELS = limit


def silence_pillow() -> None:
    """Ignore Pillow's warnings about metadata, palettes and large images, permanently.

    `warnings.catch_warnings` is not safe with threads, so the filter stays; it is added again if
    something has restored an older list of filters.
    """
    ignored = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    if ignored not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _reason(error: BaseException) -> str:
    """Why decoding failed, in a few words."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, UnidentifiedImageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    message = " ".join(str(error).split()) or type(error).__name__
    return "truncated file" if "truncated" in message else f"damaged image ({message})"


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1, upright, if there is none or the EXIF is damaged."""
    if image.format == "TIFF":  # Pillow rotates these itself, and swaps their size
        return 1
    try:
        orientation: Any = image.getexif().get(_ORIENTATION_TAG, 1)
    except DECODER_ERRORS:
        return 1
    return orientation if orientation in _TRANSPOSE else 1
