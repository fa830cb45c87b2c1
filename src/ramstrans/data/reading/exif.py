"""When a photograph was taken, by its EXIF data."""

from datetime import datetime
from pathlib import Path

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
    silence_pillow()
    try:
        with open_file(path) as stream, Image.open(stream, formats=readable_formats()) as image:
            if image.format != "TIFF" and "exif" not in image.info:
                return None  # getexif would decode all of a PNG to look for it behind the pixels
            exif = image.getexif().get_ifd(ExifTags.IFD.Exif)
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        return None
    for when, fraction in _WHEN:
        if when in exif:
            return _parsed(exif[when], exif.get(fraction))
    return None


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
