import re

import pytest

from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.records import Part, Record
from ramstrans.errors import DataError
from tests.data.datasets.damage import check_damage
from tests.shared import CUB50, needs

FILES = {
    "images.txt": "3 crow/a b.jpg\n7 wren/b.jpg\n\n11 wren/c.jpg\n",
    "classes.txt": "1 001.Crow\n5 005.Wren\n",
    "image_class_labels.txt": "7 5\n3 1\n11 5\n",
    "train_test_split.txt": "3 1\n7 1\n11 0\n",
    "bounding_boxes.txt": "3 2.0 3.0 5.0 7.5\n7 -1 0 100 13\n11 0 0 1 1\n",
    "parts/parts.txt": "1 back\n2 left eye\n",
    "parts/part_locs.txt": "3 1 0.0 0.0 0\n3 2 11.0 13.5 1\n7 1 2 3 1\n7 2 5 7 1\n",
}


def write(root, **changes):
    """A set of three images in CUB's format, some of its files changed or, by None, left out."""
    files = FILES | {name.replace("__", "/") + ".txt": text for name, text in changes.items()}
    for name in ("crow/a b.jpg", "wren/b.jpg", "wren/c.jpg"):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "parts").mkdir(exist_ok=True)
    for name, text in files.items():
        if text is not None:
            (root / name).write_text(text)
    return root


def test_the_whole_data_set(tmp_path):
    images = read_cub(write(tmp_path))
    folder = tmp_path / "images"
    assert images.class_names == ("001.Crow", "005.Wren")
    assert images.records == (
        Record(folder / "crow/a b.jpg", 0, "train", (2, 3, 7, 10.5), (Part("left eye", 11, 13.5),)),
        Record(
            folder / "wren/b.jpg", 1, "train", (-1, 0, 99, 13), (Part("back", 2, 3), Part("left eye", 5, 7))
        ),
        Record(folder / "wren/c.jpg", 1, "test", (0, 0, 1, 1), ()),
    )


def test_the_folder_above_and_windows_line_ends(tmp_path):
    write(tmp_path / "CUB_200_2011", classes="1 001.Crow\r\n5 005.Wren\r\n")
    assert read_cub(tmp_path).class_names == ("001.Crow", "005.Wren")


def test_boxes_and_parts_are_optional(tmp_path):
    images = read_cub(write(tmp_path, bounding_boxes=None, parts__part_locs=None, parts__parts=None))
    assert {(record.box, record.parts) for record in images.records} == {(None, ())}


def test_classes_with_the_same_name_get_their_id(tmp_path):
    images = read_cub(write(tmp_path, classes="1 Crow\n5 Crow\n"))
    assert images.class_names == ("Crow (1)", "Crow (5)")


DAMAGE = [
    ("images.txt", "3 crow/a b.jpg\n7\n", "line 2: 1 columns; the format has 2: image path"),
    ("images.txt", "3 crow/a b.jpg\n7 wren/z.jpg\n", "line 2: .*z.jpg does not exist"),
    ("images.txt", "3 crow/a b.jpg\n7 tit/z.jpg\n", "line 2: .*z.jpg does not exist"),
    ("images.txt", "3 crow/a b.jpg\n3 wren/b.jpg\n", "line 2: image '3' is listed twice"),
    ("classes.txt", None, " is missing"),
    ("classes.txt", "1 Crow\n1 Wren\n", "line 2: class '1' is listed twice"),
    ("classes.txt", "Crow\n", "line 1: 1 columns"),
    ("image_class_labels.txt", None, " is missing"),
    ("image_class_labels.txt", "3 1\n7 5\n11 6\n", "line 3: class '6' is not in classes.txt, which lists 2"),
    ("image_class_labels.txt", "3 1\n7 5 5\n11 5\n", "line 2: class '5 5' is not in classes.txt"),
    ("image_class_labels.txt", "3 1\n8 5\n7 5\n11 5\n", ": image 8 is not in images.txt"),
    ("image_class_labels.txt", "3 1\n3 5\n", "image '3' is listed twice"),
    ("image_class_labels.txt", "3 1\n11 5\n", "no line for image 7 of images.txt"),
    ("train_test_split.txt", None, " is missing"),
    ("train_test_split.txt", "3 1\n7 2\n11 0\n", "line 2: '2' is neither 0 nor 1"),
    ("train_test_split.txt", "3 1\n7 1\n", "no line for image 11 of images.txt"),
    ("bounding_boxes.txt", "3 2 3 5\n", "line 1: 4 columns; the format has 5: image x y width height"),
    ("bounding_boxes.txt", "3 2 3 5 x\n", "line 1: could not convert string to float: 'x'"),
    ("bounding_boxes.txt", "3 2 3 0 5\n", "line 1: the box is 0 wide and 5 high"),
    ("bounding_boxes.txt", "3 2 nan 5 5\n", "line 1: 'nan' is not a finite number"),
    ("bounding_boxes.txt", "4 2 3 5 5\n", ": image 4 is not in images.txt"),
    ("parts/parts.txt", None, " is missing"),
    ("parts/part_locs.txt", "3 1 0 0 0\n3 3 1 1 1\n", "line 2: part '3' is not in parts.txt, which lists 2"),
    ("parts/part_locs.txt", "3 1 0 0\n", "line 1: 4 columns"),
    ("parts/part_locs.txt", "8 1 0 0 0\n", ": image 8 is not in images.txt"),
    ("parts/part_locs.txt", "3 1 0 0 yes\n", "line 1: 'yes' is neither 0 nor 1"),
    ("classes.txt", b"1 Cr\x81w\n", " is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_damage_is_reported_with_file_and_line(tmp_path, file, change, message):
    check_damage(read_cub, write(tmp_path), file, change, f"^{re.escape(str(tmp_path / file))}.*{message}")


def test_folders_that_are_not_a_data_set(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        read_cub(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no images.txt, neither itself nor in CUB_200_2011/"):
        read_cub(tmp_path)


@pytest.mark.realdata
def test_fifty_classes_of_the_real_one():
    needs(CUB50)
    root = CUB50.parent
    images = read_cub(root)
    assert len(images.class_names) == 50
    assert images.counts("train") == dict.fromkeys(images.class_names, 30)
    assert (len(images.of_split("test")), len(images.of_split("val"))) == (1389, 0)
    assert images.class_names[0] == "001.Black_footed_Albatross"
    assert images.records[0].box == (60, 27, 385, 331)
    assert images.records[0].parts[0] == Part("beak", 312, 182)
    assert all(record.box is not None and len(record.parts) <= 15 for record in images.records)
