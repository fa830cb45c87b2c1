"""When and where a photograph was taken, by its EXIF data."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any, SupportsFloat

from PIL import ExifTags, Image

from ramstrans.data.reading.decode import DECODER_ERRORS, open_file, silence_pillow
from ramstrans.data.reading.formats import readable_formats

_WHEN = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized),
)
"""When the shutter opened, and when the picture was stored. `DateTime` is of the last change: not used."""


def taken_at(path: Path) -> datetime | None:
    """When a photograph was taken, in the local time of its camera; None if it does not say.

    Reads the header only. An unreadable file has no time either: other checks report it.
    """
    exif = _tags(path, ExifTags.IFD.Exif)
    for when, fraction in _WHEN:
        if when in exif:
            return _parsed(exif[when], exif.get(fraction))
    return None


def taken_where(path: Path) -> tuple[float, float] | None:
    """Latitude and longitude in degrees, north and east positive; None if a photograph does not say.

    Reads as `taken_at`.
    """
    exif = _tags(path, ExifTags.IFD.GPSInfo)
    latitude = _degrees(exif.get(ExifTags.GPS.GPSLatitude), exif.get(ExifTags.GPS.GPSLatitudeRef), "S", 90)
    longitude = _degrees(
        exif.get(ExifTags.GPS.GPSLongitude), exif.get(ExifTags.GPS.GPSLongitudeRef), "W", 180
    )
    return None if latitude is None or longitude is None else (latitude, longitude)


def _tags(path: Path, directory: int) -> Mapping[int, Any]:
    """The EXIF tags in a directory of a file; none if it has none or cannot be read."""
    silence_pillow()
    try:
        with open_file(path) as stream, Image.open(stream, formats=readable_formats()) as image:
            if image.format != "TIFF" and "exif" not in image.info:
                return {}  # getexif would decode all of a PNG to look for it behind the pixels
            return image.getexif().get_ifd(directory)
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        return {}


def _degrees(parts: object, reference: object, negative: str, most: int) -> float | None:
    """An angle that EXIF writes as degrees, minutes and seconds; None if it is none.

    >>> _degrees((47.0, 22.0, 12.0), "N", "S", 90), _degrees((8.0, 30.0, 0.0), "W", "W", 180)
    (47.37, -8.5)
    >>> _degrees((0.0, float("nan"), 0.0), "N", "S", 90), _degrees("47.37", "N", "S", 90)
    (None, None)
    """
    if not isinstance(parts, Sequence) or isinstance(parts, str | bytes) or len(parts) != 3:
        return None
    if not all(isinstance(part, SupportsFloat) for part in parts) or not isinstance(reference, str):
        return None
    try:
        degrees, minutes, seconds = map(float, parts)
    except ZeroDivisionError:  # 0/0, which some cameras write for an unknown place
        return None
    angle = degrees + minutes / 60 + seconds / 3600
    if not isfinite(angle) or not 0 <= angle <= most:
        return None
    return -angle if reference.strip(" \0").upper() == negative else angle


def _parsed(when: object, fraction: object) -> datetime | None:
    """The time that EXIF writes as `2026:05:31 23:59:07` and a fraction of a second; None if it is none.

    >>> _parsed("2026:05:31 23:59:07", "25")
    datetime.datetime(2026, 5, 31, 23, 59, 7, 250000)
    >>> _parsed("0000:00:00 00:00:00", None), _parsed("    :  :     :  :  ", "")
    (None, None)
    """
    digits = str(fraction or "").strip(" \0")
    try:
        moment = datetime.strptime(str(when).strip(" \0"), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    return moment.replace(microsecond=int(f"{digits:0<6.6}")) if digits.isdecimal() else moment
