import pytest
from torchvision.datasets import FGVCAircraft

from ramstrans.data.audit.boxes_classes import box_issue
from ramstrans.data.datasets.fgvc_aircraft import LEVELS, read_fgvc_aircraft
from ramstrans.data.records import Record
from tests.data.datasets.damage import check_damage, replaced
from tests.data.fakes import make_fgvc_aircraft
from tests.data.fakes.blocks import edit

FOLDER = "fgvc-aircraft-2013b/data"


def test_the_whole_data_set(tmp_path):
    images = read_fgvc_aircraft(make_fgvc_aircraft(tmp_path))
    assert images.class_names == ("737-700", "F/A-18", "DC-9-30")
    assert images.hierarchy == (
        ("Boeing 737", "Boeing"),
        ("F/A-18", "McDonnell Douglas"),
        ("DC-9", "McDonnell Douglas"),
    )
    assert images.ranks == ("variant", "family", "manufacturer")
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 6, 6]
    path = tmp_path / FOLDER / "images" / "0034410.jpg"
    assert images.records[1] == Record(path, 1, "train", (0, 1, 13, 7))


@pytest.mark.parametrize(
    ("level", "ranks", "names", "hierarchy"),
    [
        (
            "family",
            ("family", "manufacturer"),
            ("Boeing 737", "F/A-18", "DC-9"),
            (("Boeing",), ("McDonnell Douglas",), ("McDonnell Douglas",)),
        ),
        ("manufacturer", ("manufacturer",), ("Boeing", "McDonnell Douglas"), ()),
    ],
)
def test_the_other_levels(tmp_path, level, ranks, names, hierarchy):
    images = read_fgvc_aircraft(make_fgvc_aircraft(tmp_path) / "fgvc-aircraft-2013b", level)
    assert (images.ranks, images.class_names, images.hierarchy) == (ranks, names, hierarchy)
    assert len(images.records) == 27


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_paths_and_labels_are_as_torchvision_has_them(tmp_path, level, split):
    records = read_fgvc_aircraft(make_fgvc_aircraft(tmp_path), level).of_split(split)
    theirs = FGVCAircraft(tmp_path, split, level)
    assert [str(record.path) for record in records] == theirs._image_files
    assert [record.label for record in records] == theirs._labels


DAMAGE = [
    (
        "variants.txt",
        replaced("F/A-18\n", ""),
        "line 2: class 'F/A-18' is not in variants.txt",
    ),
    ("variants.txt", replaced("F/A-18", "737-700"), "variants.txt, line 2: class '737-700' is listed twice"),
    ("families.txt", None, "families.txt is missing"),
    ("images_family_train.txt", replaced("0034309 B", "1 B"), "family_train.txt: no line for image 0034309"),
    (
        "images_family_test.txt",
        replaced("DC-9", "F/A-18"),
        "'DC-9-30' is in DC-9 of McDonnell Douglas, but",
    ),
    ("images_family_val.txt", None, "images_family_val.txt is missing"),
    ("images_variant_train.txt", replaced("0034309 7", "1 7"), "train.txt: .*images/1.jpg does not exist"),
    (
        "images_variant_train.txt",
        replaced("0034309 737-700", "0034309"),
        "line 1: 1 columns; the format",
    ),
    ("images_variant_val.txt", "0034309 737-700\n", "line 1: image 0034309 is listed in train already"),
    ("images_box.txt", None, "images_box.txt is missing"),
    ("images_box.txt", replaced(" 1 2 13 7", " 1 2 13"), "box.txt, line 1: 4 columns; the format has 5"),
    ("images_box.txt", replaced(" 1 2 13 7", " 1 2 0 7"), "box.txt, line 1: the box is 0 wide and 6 high"),
    (
        "images_box.txt",
        replaced(" 1 2 13 7", " 1 2 b 7"),
        "line 1: could not convert string to float",
    ),
    ("images/0034309.jpg", None, "images/0034309.jpg does not exist"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_damage_is_reported_with_file_and_line(tmp_path, file, change, message):
    root = make_fgvc_aircraft(tmp_path)
    check_damage(read_fgvc_aircraft, root, f"{FOLDER}/{file}", change, message)


def test_a_box_that_starts_at_0_and_a_list_without_an_end(tmp_path):
    """As image 0329381 has it, and as the list of boxes is published."""
    file = make_fgvc_aircraft(tmp_path) / FOLDER / "images_box.txt"
    edit(file, "0034309 1 2 13 7", "0034309 0 65 1023 523")
    file.write_text(file.read_text().removesuffix("\n"))
    records = read_fgvc_aircraft(tmp_path).records
    assert records[0].box == (-1, 64, 1023, 523)
    assert box_issue(records[0].box, 1023, 700) is None
    assert all(record.box == (0, 1, 13, 7) for record in records[1:])
