"""The image formats that are decoded, and the suffixes of their files: one list, from what Pillow can do.

HEIC, which phones write, comes with the optional library pillow-heif: `pip install "ramstrans[heif]"`.
"""

import functools
from importlib import import_module

from PIL import Image, features

HEIF_HINT = 'pip install "ramstrans[heif]" reads them'

_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Others that Pillow knows (PostScript, icons, ...) hold no photographs, or run code."""

_OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
"""Formats that Pillow may have been built without, by the names of its features."""

_HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
_HEIF_BRANDS = (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftyphevc", b"ftypmif1", b"ftypmsf1")


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that can be decoded on this machine."""
    Image.init()
    if has_heif():
        import_module("pillow_heif").register_heif_opener()
    can_decode = {name: features.check(feature) for name, feature in _OPTIONAL.items()} | {"HEIF": has_heif()}
    return tuple(name for name in _FORMATS if name in Image.OPEN and can_decode.get(name, True))


@functools.cache
def has_heif() -> bool:
    """Whether pillow-heif is installed."""
    try:
        import_module("pillow_heif")
    except ImportError:
        return False
    return True


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the files that can be decoded, in lower case, with the dot.

    >>> {".jpg", ".jfif", ".mpo", ".pgm", ".png", ".tiff"} <= image_suffixes()
    True
    """
    formats = {*readable_formats(), "MPO"}  # a JPEG followed by further images
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends with the suffix of an image, in any case.

    >>> has_image_suffix("wren.JPG"), has_image_suffix("wren.txt"), has_image_suffix("wren")
    (True, False, False)
    """
    return suffix_of(name) in image_suffixes()


def suffix_of(name: str) -> str:
    """Return the last suffix of a file's name in lower case, with the dot; empty if there is none.

    >>> suffix_of("wren.v2.JPG"), suffix_of(".jpg"), suffix_of("wren")
    ('.jpg', '', '')
    """
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and dot and suffix else ""


def needs_heif(suffix: str) -> bool:
    """Whether files with this suffix are images that only the missing pillow-heif can decode."""
    return suffix in _HEIF_SUFFIXES and not has_heif()


def is_heif(start: bytes) -> bool:
    """Whether a file's first 12 bytes are those of a HEIC or HEIF image."""
    return start[4:12] in _HEIF_BRANDS
