import shutil

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import OxfordIIITPet

from ramstrans.data.datasets.oxford_pets import read_oxford_pets
from ramstrans.data.records import Part, Record
from ramstrans.errors import DataError
from tests.data.fakes import make_oxford_pets
from tests.data.fakes.photographs import edit, voc_xml


def test_the_whole_layout(tmp_path):
    images = read_oxford_pets(make_oxford_pets(tmp_path))
    assert images.class_names == ("Abyssinian", "american_bulldog", "saint_bernard")
    assert images.hierarchy == (("cat",), ("dog",), ("dog",))
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    folder, box = tmp_path / "images", (5, 7, 12, 11)
    head = Part("head", 7, 8.5)  # of pixels 6 to 9 and 8 to 10, counted from 1
    assert images.records[5] == Record(folder / "american_bulldog_100.jpg", 1, "train", box, (head,))
    assert images.records[14] == Record(folder / "saint_bernard_104.jpg", 2, "train", box, ())
    assert images.records[-1] == Record(folder / "saint_bernard_106.jpg", 2, "test", box, ())


def test_the_numbers_of_a_real_photograph(tmp_path):
    """Head and foreground of Abyssinian_1, whose photograph has 600 x 400 pixels."""
    annotations = make_oxford_pets(tmp_path) / "annotations"
    trimap = np.full((400, 600), 2, np.uint8)
    trimap[66:343, 92:460] = 3
    trimap[81:328, 107:444] = 1
    Image.fromarray(trimap).save(annotations / "trimaps/Abyssinian_100.png")
    (annotations / "xmls/Abyssinian_100.xml").write_text(voc_xml("cat", [(333, 72, 425, 158)]))
    record = read_oxford_pets(tmp_path).records[0]
    assert record.box == (107, 81, 444, 328)
    assert record.parts == (Part("head", 378.5, 114.5),)


def test_heads_and_outlines_may_be_missing_or_empty(tmp_path):
    annotations = make_oxford_pets(tmp_path) / "annotations"
    shutil.rmtree(annotations / "xmls")
    (annotations / "trimaps/Abyssinian_100.png").unlink()
    Image.fromarray(np.full((5, 7), 2, np.uint8)).save(annotations / "trimaps/Abyssinian_101.png")
    records = read_oxford_pets(tmp_path).records
    assert [record.box for record in records[:3]] == [None, None, (5, 7, 12, 11)]
    assert {record.parts for record in records} == {()}


@pytest.mark.parametrize("split", ["train", "test"])
def test_paths_and_labels_are_as_torchvision_has_them(tmp_path, split):
    annotations = make_oxford_pets(tmp_path / "oxford-iiit-pet") / "annotations"
    for file in annotations.glob("t*.txt"):  # torchvision takes the published numbers for labels
        file.write_text(file.read_text().replace(" 30 ", " 3 "))
    records = read_oxford_pets(tmp_path).of_split(split)
    theirs = OxfordIIITPet(tmp_path, "trainval" if split == "train" else split)
    assert [record.path for record in records] == theirs._images
    assert [record.label for record in records] == theirs._labels


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "Abyssinian_100 1 1 1",
            "Abyssinian_100 1 1",
            "line 1: 3 columns; the layout has 4: image class species",
        ),
        ("Abyssinian_100 1 1 1", "Abyssinian_99 1 1 1", "line 1: .*images/Abyssinian_99.jpg does not exist"),
        (
            "Abyssinian_100 1 1 1",
            "Abyssinian_100 one 1 1",
            "line 1: class 'one', species '1'; allowed are a number",
        ),
        (
            "Abyssinian_100 1 1 1",
            "Abyssinian_100 1 3 1",
            "line 1: class '1', species '3'; allowed are a number",
        ),
        (
            "Abyssinian_101 1 1 1",
            "Abyssinian_101 2 1 1",
            "class 2 is Abyssinian cat, but american_bulldog dog for",
        ),
        ("Abyssinian_101 1 1 1", "Abyssinian_101 1 2 1", "class 1 is Abyssinian cat, but Abyssinian dog for"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, old, new, message):
    edit(make_oxford_pets(tmp_path) / "annotations/trainval.txt", old, new)
    with pytest.raises(DataError, match=f"trainval.txt.*{message}"):
        read_oxford_pets(tmp_path)


def test_what_is_missing_or_damaged_is_named(tmp_path):
    annotations = make_oxford_pets(tmp_path) / "annotations"
    (annotations / "xmls/Abyssinian_103.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"Abyssinian_103.xml cannot be read as XML"):
        read_oxford_pets(tmp_path)
    trimap = annotations / "trimaps/Abyssinian_103.png"
    content = trimap.read_bytes()
    for damaged in (b"no image", content[:40], content.replace(b"IDAT", b"\0\nT\x02")):
        trimap.write_bytes(damaged)
        with pytest.raises(DataError, match=r"Abyssinian_103.png cannot be read as a trimap") as caught:
            read_oxford_pets(tmp_path)
        assert "\n" not in str(caught.value)
    (annotations / "test.txt").unlink()
    with pytest.raises(DataError, match=r"test.txt is missing; the layout of Oxford-IIIT Pets needs it"):
        read_oxford_pets(tmp_path)
    (annotations / "trainval.txt").unlink()
    with pytest.raises(
        DataError, match=r"holds no annotations/trainval.txt, neither itself nor in oxford-iiit"
    ):
        read_oxford_pets(tmp_path)
