import pytest
from torchvision.datasets import Food101

from ramstrans.data.datasets.food101 import read_food101
from ramstrans.data.records import Record
from tests.data.datasets.damage import check_damage
from tests.data.fakes import make_food101
from tests.data.fakes.blocks import edit


def test_the_whole_data_set(tmp_path):
    images = read_food101(make_food101(tmp_path))
    assert images.class_names == ("apple_pie", "baby_back_ribs", "waffles")
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    assert images.records[5] == Record(tmp_path / "images/baby_back_ribs/1005649.jpg", 1, "train")


@pytest.mark.parametrize("split", ["train", "test"])
def test_paths_and_labels_are_as_torchvision_has_them(tmp_path, split):
    make_food101(tmp_path / "food-101")
    records = read_food101(tmp_path).of_split(split)
    theirs = Food101(tmp_path, split)
    assert [record.path for record in records] == theirs._image_files
    assert [record.label for record in records] == theirs._labels


def test_classes_keep_an_unsorted_order(tmp_path):
    """As two of the published ones are."""
    make_food101(tmp_path)
    for old, new in (("baby_back_ribs", "cheesecake"), ("waffles", "cheese_plate")):
        for file in ("classes.txt", "train.txt", "test.txt"):
            edit(tmp_path / "meta" / file, old, new)
        (tmp_path / "images" / old).rename(tmp_path / "images" / new)
    images = read_food101(tmp_path)
    assert images.class_names == ("apple_pie", "cheesecake", "cheese_plate")
    assert {(record.path.parent.name, record.label) for record in images.records} == {
        ("apple_pie", 0),
        ("cheesecake", 1),
        ("cheese_plate", 2),
    }


DAMAGE = [
    ("classes.txt", "waffles\nwaffles\n", "classes.txt, line 2: class 'waffles' is listed twice"),
    (
        "classes.txt",
        "waffles\napple_pie\n",
        "train.txt: the class of baby_back_ribs/1005649 is not in",
    ),
    ("classes.txt", None, "has no meta/classes.txt, neither itself nor in food-101/"),
    ("train.txt", None, "train.txt is missing; unpack the whole set"),
    ("test.txt", "waffles/7\n", "test.txt: .*images/waffles/7.jpg does not exist"),
    ("test.txt", "waffles/\n", "test.txt: the class of waffles/ is not in|does not exist"),
    ("test.txt", "1005654\n", "test.txt: the class of 1005654 is not in classes.txt"),
    ("../images/waffles", None, "train.txt: .*images/waffles/1005649.jpg does not exist"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_damage_is_reported_with_the_file(tmp_path, file, change, message):
    check_damage(read_food101, make_food101(tmp_path), f"meta/{file}", change, message)
