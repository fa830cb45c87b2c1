"""Which conditions hold for a photograph: by the table that lists it, or by its EXIF data."""

from pathlib import Path

import pytest
from PIL import ExifTags, Image

from ramstrans.data.datasets.table import read_cells
from ramstrans.data.image_priors import exif_values, read_image_priors
from ramstrans.errors import DataError, UsageError

NAMES = ("crow", "wren")
MONTHS = "month,class,weight\n5,wren,1\n6,crow,1\n"


@pytest.fixture
def photograph(tmp_path):
    """Taken on 31 May, at 47.37 north and 8.5 west."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:05:31 23:59:07"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {
            ExifTags.GPS.GPSLatitudeRef: "N",
            ExifTags.GPS.GPSLatitude: (47.0, 22.0, 12.0),
            ExifTags.GPS.GPSLongitudeRef: "W",
            ExifTags.GPS.GPSLongitude: (8.0, 30.0, 0.0),
        }
    )
    path = tmp_path / "a.jpg"
    Image.new("RGB", (31, 17)).save(path, exif=exif)
    return path


def priors_of(tmp_path, text, cells=None):
    file = tmp_path / "priors.csv"
    file.write_text(text)
    return read_image_priors(file, NAMES, cells or {})


def test_values_of_exif(photograph, tmp_path):
    values = exif_values(photograph)
    assert values["month"] == 5
    assert values["latitude"] == pytest.approx(47.37)
    assert values["longitude"] == pytest.approx(-8.5)
    Image.new("RGB", (31, 17)).save(tmp_path / "plain.png")
    nothing = dict.fromkeys(("month", "latitude", "longitude"))
    assert exif_values(tmp_path / "plain.png") == exif_values(tmp_path / "missing.jpg") == nothing


def test_the_month_is_that_of_exif(photograph, tmp_path):
    priors = priors_of(tmp_path, MONTHS)
    assert priors.of(photograph).what == "month 5"
    assert priors.of(photograph).weights.tolist() == [0, 1]
    assert priors.of(tmp_path / "missing.jpg").weights is None
    assert priors.of(None).weights is None


def test_a_column_counts_more_than_exif(photograph, tmp_path):
    cells = {photograph: {"month": "6"}, Path("other.jpg"): {"month": ""}}
    priors = priors_of(tmp_path, MONTHS, cells)
    assert priors.of(photograph).what == "month 6"
    assert priors.of(Path("other.jpg")).weights is None


def test_a_list_reads_no_file(tmp_path):
    priors = priors_of(tmp_path, "wren\n")
    assert priors.of(None).weights.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("cells", "has"),
    [
        ({}, "no table of photographs is read here"),
        ({Path("a.jpg"): {"site": "x", "day": "3"}}, "the table of the photographs has site; day"),
    ],
)
def test_a_condition_that_photographs_do_not_have(tmp_path, cells, has):
    text = "place,class,weight\nlake,wren,1\n"
    with pytest.raises(UsageError, match=f"has the condition 'place', and {has}; remove it, or give"):
        priors_of(tmp_path, text, cells)


def test_fingerprints_follow_weights_and_cells(tmp_path):
    cells = {Path("a.jpg"): {"place": "lake"}}
    text = "place,class,weight\nlake,wren,1\n"
    first = priors_of(tmp_path, text, cells).fingerprint()
    assert priors_of(tmp_path, text, cells).fingerprint() == first
    assert priors_of(tmp_path, text.replace("wren,1", "wren,2"), cells).fingerprint() != first
    assert priors_of(tmp_path, text, {Path("a.jpg"): {"place": "hill"}}).fingerprint() != first
    assert priors_of(tmp_path, "wren\n", cells).fingerprint() == priors_of(tmp_path, "wren\n").fingerprint()


def test_cells_of_a_table(tmp_path):
    table = tmp_path / "photos.csv"
    table.write_text("path;month;place\na.jpg;05;lake \nb/c.jpg;;\na.jpg;05;lake\n")
    files, cells = read_cells(table)
    assert files == [tmp_path / "a.jpg", tmp_path / "b" / "c.jpg", tmp_path / "a.jpg"]
    assert cells == {
        tmp_path / "a.jpg": {"month": "05", "place": "lake"},
        tmp_path / "b" / "c.jpg": {"month": "", "place": ""},
    }
    table.write_text("path,month\na.jpg,5\na.jpg,6\n")
    with pytest.raises(DataError, match=r"row 2: .*a\.jpg has other cells in an earlier row"):
        read_cells(table)
    table.write_text("file,month\na.jpg,5\n")
    with pytest.raises(DataError, match=r"has no column 'path'; it has 'file', 'month' \(of image files\)"):
        read_cells(table)
