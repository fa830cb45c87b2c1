import pytest
from torchvision.datasets import FGVCAircraft

from ramstrans.data.audit.boxes_classes import box_issue
from ramstrans.data.datasets.fgvc_aircraft import LEVELS, read_fgvc_aircraft
from ramstrans.data.records import Record
from ramstrans.errors import DataError
from tests.data.fakes import make_fgvc_aircraft
from tests.data.fakes.photographs import edit

FOLDER = "fgvc-aircraft-2013b/data"


def test_the_whole_layout(tmp_path):
    images = read_fgvc_aircraft(make_fgvc_aircraft(tmp_path))
    assert images.class_names == ("737-700", "F/A-18", "DC-9-30")
    assert images.hierarchy == (
        ("Boeing 737", "Boeing"),
        ("F/A-18", "McDonnell Douglas"),
        ("DC-9", "McDonnell Douglas"),
    )
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 6, 6]
    path = tmp_path / FOLDER / "images" / "0034410.jpg"
    assert images.records[1] == Record(path, 1, "train", (0, 1, 13, 7))


@pytest.mark.parametrize(
    ("level", "names", "hierarchy"),
    [
        (
            "family",
            ("Boeing 737", "F/A-18", "DC-9"),
            (("Boeing",), ("McDonnell Douglas",), ("McDonnell Douglas",)),
        ),
        ("manufacturer", ("Boeing", "McDonnell Douglas"), ()),
    ],
)
def test_the_other_levels(tmp_path, level, names, hierarchy):
    images = read_fgvc_aircraft(make_fgvc_aircraft(tmp_path) / "fgvc-aircraft-2013b", level)
    assert (images.class_names, images.hierarchy) == (names, hierarchy)
    assert len(images.records) == 27


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_paths_and_labels_are_as_torchvision_has_them(tmp_path, level, split):
    records = read_fgvc_aircraft(make_fgvc_aircraft(tmp_path), level).of_split(split)
    theirs = FGVCAircraft(tmp_path, split, level)
    assert [str(record.path) for record in records] == theirs._image_files
    assert [record.label for record in records] == theirs._labels


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "variants.txt",
            "F/A-18\n",
            "",
            "images_variant_train.txt, line 2: class 'F/A-18' is not in variants.txt",
        ),
        ("variants.txt", "F/A-18", "737-700", "variants.txt, line 2: class '737-700' is listed twice"),
        (
            "images_family_train.txt",
            "0034309 B",
            "0000001 B",
            "images_family_train.txt: no line for image 0034309",
        ),
        (
            "images_variant_train.txt",
            "0034309 7",
            "0000001 7",
            "train.txt: .*images/0000001.jpg does not exist",
        ),
        ("images_variant_train.txt", "0034309 737-700", "0034309", "line 1: 1 columns; the layout has 2"),
        (
            "images_family_test.txt",
            "DC-9",
            "F/A-18",
            "variant 'DC-9-30' is in DC-9 of McDonnell Douglas, but image",
        ),
        ("images_box.txt", " 1 2 13 7", " 1 2 13", "images_box.txt, line 1: 4 columns; the layout has 5"),
        ("images_box.txt", " 1 2 13 7", " 1 2 0 7", "images_box.txt, line 1: the box is 0 wide and 6 high"),
        (
            "images_box.txt",
            " 1 2 13 7",
            " 1 2 b 7",
            "images_box.txt, line 1: could not convert string to float",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, file, old, new, message):
    make_fgvc_aircraft(tmp_path)
    edit(tmp_path / FOLDER / file, old, new)
    with pytest.raises(DataError, match=message) as caught:
        read_fgvc_aircraft(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_box_that_starts_at_0_and_a_list_without_an_end(tmp_path):
    """As image 0329381 has it, and as the list of boxes is published."""
    file = make_fgvc_aircraft(tmp_path) / FOLDER / "images_box.txt"
    edit(file, "0034309 1 2 13 7", "0034309 0 65 1023 523")
    file.write_text(file.read_text().removesuffix("\n"))
    records = read_fgvc_aircraft(tmp_path).records
    assert records[0].box == (-1, 64, 1023, 523)
    assert box_issue(records[0].box, 1023, 700) is None
    assert all(record.box == (0, 1, 13, 7) for record in records[1:])


def test_an_image_in_two_splits(tmp_path):
    make_fgvc_aircraft(tmp_path)
    with (tmp_path / FOLDER / "images_variant_val.txt").open("a") as file:
        file.write("0034309 737-700\n")
    with pytest.raises(
        DataError, match=r"images_variant_val.txt, line 7: image 0034309 is listed in train already"
    ):
        read_fgvc_aircraft(tmp_path)


@pytest.mark.parametrize(
    "file", ["images_box.txt", "images_family_val.txt", "families.txt", "images/0034309.jpg"]
)
def test_what_is_missing_is_named(tmp_path, file):
    make_fgvc_aircraft(tmp_path)
    (tmp_path / FOLDER / file).unlink()
    with pytest.raises(DataError, match=f"{file} (is missing|does not exist)"):
        read_fgvc_aircraft(tmp_path)
