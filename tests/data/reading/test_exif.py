from datetime import datetime

import pytest
from PIL import ExifTags, Image

from ramstrans.data.reading.exif import taken_at

MOMENT = datetime(2026, 5, 31, 23, 59, 7)


def save(path, tags, **options):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "camera"  # Pillow leaves out what has no tags of its own
    exif.get_ifd(ExifTags.IFD.Exif).update(tags)
    Image.new("RGB", (31, 17)).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_every_format_says_when(tmp_path, suffix):
    tags = {ExifTags.Base.DateTimeOriginal: "2026:05:31 23:59:07"}
    assert taken_at(save(tmp_path / f"a.{suffix}", tags)) == MOMENT


def test_the_shutter_counts_more_than_the_file_and_has_fractions(tmp_path):
    tags = {
        ExifTags.Base.DateTimeOriginal: "2026:05:31 23:59:07",
        ExifTags.Base.SubsecTimeOriginal: "25",
        ExifTags.Base.DateTimeDigitized: "2026:06:01 08:00:00",
    }
    assert taken_at(save(tmp_path / "a.jpg", tags)) == MOMENT.replace(microsecond=250_000)
    del tags[ExifTags.Base.DateTimeOriginal]
    assert taken_at(save(tmp_path / "b.jpg", tags)) == datetime(2026, 6, 1, 8)


@pytest.mark.parametrize(
    "text", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2026-05-31", "2026:13:01 00:00:00"]
)
def test_a_time_that_is_none(tmp_path, text):
    assert taken_at(save(tmp_path / "a.jpg", {ExifTags.Base.DateTimeOriginal: text})) is None


def test_files_without_a_time(tmp_path):
    Image.new("RGB", (31, 17)).save(tmp_path / "plain.jpg")
    changed = Image.Exif()
    changed[ExifTags.Base.DateTime] = "2026:05:31 23:59:07"  # of the last change, by any program
    Image.new("RGB", (31, 17)).save(tmp_path / "changed.jpg", exif=changed)
    Image.new("RGB", (31, 17)).save(tmp_path / "damaged.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for name in ("plain", "changed", "damaged", "broken", "missing"):
        assert taken_at(tmp_path / f"{name}.jpg") is None
