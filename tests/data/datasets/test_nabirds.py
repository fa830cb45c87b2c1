import re

import pytest

from ramstrans.data.datasets.nabirds import read_nabirds
from ramstrans.data.records import Part, Record
from ramstrans.errors import DataError
from tests.data.fakes import make_nabirds
from tests.data.fakes.photographs import edit


def test_the_whole_layout(tmp_path):
    images = read_nabirds(make_nabirds(tmp_path))
    assert images.class_names == (
        "Common Eider (Adult male)",
        "Common Eider (Female/juvenile)",
        "Pacific Wren",
    )
    assert images.hierarchy == (
        ("Ducks, Geese, and Swans", "Birds"),
        ("Ducks, Geese, and Swans", "Birds"),
        ("Pacific Wren", "Wrens", "Birds"),
    )
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    path = tmp_path / "images/0746/0000000ca08bc56d47e8c9bfb0000000.jpg"
    assert [record.path.parent.name for record in images.records] == ["0295"] * 7 + ["0296"] * 7 + [
        "0746"
    ] * 7
    assert images.records[15]._replace(path=path) == Record(
        path, 2, "train", (15, 3, 22, 14), (Part("bill", 5, 7),)
    )
    assert all(record.path.is_file() for record in images.records)


def test_the_folder_above_and_lists_that_may_be_missing(tmp_path):
    make_nabirds(tmp_path / "nabirds")
    for name in ("bounding_boxes.txt", "parts/part_locs.txt", "parts/parts.txt", "sizes.txt"):
        (tmp_path / "nabirds" / name).unlink()
    images = read_nabirds(tmp_path)
    assert {(record.box, record.parts) for record in images.records} == {(None, ())}


def test_two_kinds_of_one_name_are_told_apart(tmp_path):
    make_nabirds(tmp_path)
    edit(tmp_path / "classes.txt", "296 Common Eider (Female/juvenile)", "296 Pacific Wren")
    names = read_nabirds(tmp_path).class_names
    assert names == ("Common Eider (Adult male)", "Pacific Wren (296)", "Pacific Wren (746)")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("hierarchy.txt", "19 0", "20 0", "line 2: class '20' is not in classes.txt, which lists 8"),
        ("hierarchy.txt", "19 0", "19 1000", "line 2: class '1000' is not in classes.txt"),
        ("hierarchy.txt", "19 0", "19", "line 2: 1 columns; the layout has 2: child parent"),
        ("hierarchy.txt", "19 0", "19 0\n19 1", "line 3: class 19 has more than one parent"),
        ("hierarchy.txt", "19 0", "19 22", "class 22 is above itself"),
        ("hierarchy.txt", "295 1", "295 295", "class 295 is above itself"),
        ("classes.txt", "22 Pacific", "19 Pacific", "line 4: class 19 'Pacific Wren' is listed twice"),
        (
            "classes.txt",
            "295 Common Eider (Adult male)\n",
            "",
            "hierarchy.txt, line 4: class '295' is not in classes.txt",
        ),
        ("images.txt", "0295/", "0300/", "line 1: .*0300/.* does not exist"),
        (
            "image_class_labels.txt",
            " 295",
            " 300",
            "line 1: class '300' is not in classes.txt, which lists 8",
        ),
        ("train_test_split.txt", " 1", " yes", "line 1: 'yes' is neither 0 nor 1"),
        ("bounding_boxes.txt", " 1 3 7 11", " 1 3 0 11", "line 2: the box is 0 wide and 11 high"),
        (
            "parts/part_locs.txt",
            " 0 5 7 1",
            " 5 5 7 1",
            "line 1: part '5' is not in parts.txt, which lists 2",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, file, old, new, message):
    edit(make_nabirds(tmp_path) / file, old, new)
    with pytest.raises(DataError, match=message) as caught:
        read_nabirds(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "file", ["classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt"]
)
def test_lists_that_are_needed(tmp_path, file):
    (make_nabirds(tmp_path) / file).unlink()
    with pytest.raises(DataError, match=f"{re.escape(file)} is missing; the layout of NABirds needs it"):
        read_nabirds(tmp_path)


def test_an_image_without_a_line(tmp_path):
    file = make_nabirds(tmp_path) / "train_test_split.txt"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"train_test_split.txt: no line for image .* of images.txt; add it"):
        read_nabirds(tmp_path)
