import pytest

from ramstrans.data.datasets.nabirds import read_nabirds
from ramstrans.data.records import Part, Record
from ramstrans.evaluation.ranks import taxonomy_of_images
from tests.data.datasets.damage import check_damage, replaced
from tests.data.fakes import make_nabirds
from tests.data.fakes.blocks import edit


def test_the_whole_data_set(tmp_path):
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


def test_levels_are_counted_from_the_root_which_says_nothing(tmp_path):
    images = read_nabirds(make_nabirds(tmp_path))
    found = taxonomy_of_images(images, images.class_names, "nabirds")
    assert found.ranks == ("class", "level 3", "level 2")
    assert found.groups == (("Pacific Wren",), ("Ducks, Geese, and Swans", "Wrens"))
    assert found.members == ((-1, -1, 0), (0, 0, 1))


def test_the_parent_folder_and_optional_lists(tmp_path):
    make_nabirds(tmp_path / "nabirds")
    for name in ("bounding_boxes.txt", "parts/part_locs.txt", "parts/parts.txt", "sizes.txt"):
        (tmp_path / "nabirds" / name).unlink()
    images = read_nabirds(tmp_path)
    assert {(record.box, record.parts) for record in images.records} == {(None, ())}


def test_classes_with_the_same_name_get_their_id(tmp_path):
    make_nabirds(tmp_path)
    edit(tmp_path / "classes.txt", "296 Common Eider (Female/juvenile)", "296 Pacific Wren")
    names = read_nabirds(tmp_path).class_names
    assert names == ("Common Eider (Adult male)", "Pacific Wren (296)", "Pacific Wren (746)")


DAMAGE = [
    ("hierarchy.txt", replaced("19 0", "20 0"), "line 2: class '20' is not in classes.txt, which lists 8"),
    ("hierarchy.txt", replaced("19 0", "19 1000"), "line 2: class '1000' is not in classes.txt"),
    ("hierarchy.txt", replaced("19 0", "19"), "line 2: 1 columns; the format has 2: child parent"),
    ("hierarchy.txt", replaced("19 0", "19 0\n19 1"), "line 3: child '19' is listed twice"),
    ("hierarchy.txt", replaced("19 0", "19 22"), "class 22 is above itself"),
    ("hierarchy.txt", replaced("295 1", "295 295"), "class 295 is above itself"),
    ("classes.txt", replaced("22 Pacific", "19 Pacific"), "line 4: class '19' is listed twice"),
    ("classes.txt", replaced("295 Common", "294 Common"), "hierarchy.txt, line 4: class '295' is not in cla"),
    ("images.txt", replaced("0295/", "0300/"), "line 1: .*0300/.* does not exist"),
    (
        "image_class_labels.txt",
        replaced(" 295", " 300"),
        "line 1: class '300' is not in classes.txt",
    ),
    ("train_test_split.txt", replaced(" 1", " yes"), "line 1: 'yes' is neither 0 nor 1"),
    ("bounding_boxes.txt", replaced(" 1 3 7 11", " 1 3 0 11"), "line 2: the box is 0 wide and 11 high"),
    ("parts/part_locs.txt", replaced(" 0 5 7 1", " 5 5 7 1"), "line 1: part '5' is not in parts.txt, which"),
    ("classes.txt", None, "classes.txt is missing; unpack the whole set"),
    ("images.txt", None, "images.txt is missing; unpack the whole set"),
    ("image_class_labels.txt", None, "image_class_labels.txt is missing"),
    ("train_test_split.txt", None, "train_test_split.txt is missing"),
    ("train_test_split.txt", "", "train_test_split.txt: no line for image .* of images.txt; add it"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_damage_is_reported_with_file_and_line(tmp_path, file, change, message):
    check_damage(read_nabirds, make_nabirds(tmp_path), file, change, message)
