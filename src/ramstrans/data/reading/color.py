"""Loaded images of any colour mode to RGB: colour profiles, transparency, more than eight bits."""

import functools
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_USUAL_TOPS = {"f": (1, 255, 65535), "u": (255, 4095, 65535), "i": (255, 4095, 65535)}
"""Highest values of usual ranges, by the kind of number; 4095: 12 bits."""

_PROFILE_MODES = {"CMYK": "CMYK", "GRAY": "L"}
"""Modes that are converted by their profile, not by Pillow, by the profile's colour space."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to a new image of mode RGB, in sRGB.

    An embedded ICC profile is applied, such as Display P3 of phones or Adobe RGB of cameras. A profile that
    is damaged, or is for another colour mode, is ignored, as browsers do.
    """
    profile = image.info.get("icc_profile")
    if profile and (by_profile := _by_profile(image, profile)) is not None:
        return by_profile
    return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB without a look at the colour profile."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale grey values of any range to 0..255.

    They get the smallest usual range that holds them all, 0..1 (floats only), 0..255, 0..4095 (12 bits, not
    for floats) or 0..65535, or else their own range; values that are not finite become black.

    >>> _to_eight_bits(np.array([[0, 257, 65535]], np.uint16)).tolist()
    [[0, 1, 255]]
    >>> _to_eight_bits(np.array([[0, 273, 4095]], np.uint16)).tolist()  # 12 bits in a 16-bit file
    [[0, 17, 255]]
    >>> _to_eight_bits(np.array([[0.0, 0.5, np.nan]])).tolist()
    [[0, 128, 0]]
    """
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    fitting = [top for top in _USUAL_TOPS[values.dtype.kind] if low >= 0 and high <= top]
    if fitting:
        low, high = 0, fitting[0]
    scale = 255 / max(float(high) - float(low), 1e-30)
    scaled = np.rint((values.astype(np.float64) - low) * scale)
    return np.where(np.isfinite(values), scaled, 0).astype(np.uint8)


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert to sRGB by the image's profile; None if it is sRGB already or cannot be used."""
    if image.mode in _PROFILE_MODES.values() and (transform := _transform(profile, image.mode)) is not None:
        return ImageCms.applyTransform(image, transform)
    transform = _transform(profile, "RGB")
    return None if transform is None else ImageCms.applyTransform(_to_rgb(image), transform)


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion of a mode to sRGB, which takes milliseconds to build, by a profile.

    None if the profile is of another colour space, damaged, or sRGB.
    """
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        is_srgb = "srgb" in ImageCms.getProfileDescription(opened).lower()
        if is_srgb or _PROFILE_MODES.get(space, space) != mode:
            return None
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
