import shutil

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import OxfordIIITPet

from ramstrans.data.datasets.oxford_pets import read_oxford_pets
from ramstrans.data.records import Part, Record
from tests.data.datasets.damage import check_damage, replaced
from tests.data.fakes import make_oxford_pets
from tests.data.fakes.blocks import voc_xml


def test_the_whole_data_set(tmp_path):
    images = read_oxford_pets(make_oxford_pets(tmp_path))
    assert images.class_names == ("Abyssinian", "american_bulldog", "saint_bernard")
    assert images.hierarchy == (("cat",), ("dog",), ("dog",))
    assert images.ranks == ("breed", "species")
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    folder, box = tmp_path / "images", (5, 7, 12, 11)
    head = Part("head", 7, 8.5)  # of pixels 6 to 9 and 8 to 10, counted from 1
    assert images.records[5] == Record(folder / "american_bulldog_100.jpg", 1, "train", box, (head,))
    assert images.records[14] == Record(folder / "saint_bernard_104.jpg", 2, "train", box, ())
    assert images.records[-1] == Record(folder / "saint_bernard_106.jpg", 2, "test", box, ())


def test_the_numbers_of_a_real_image(tmp_path):
    """Head and foreground of Abyssinian_1, which has 600 x 400 pixels."""
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


def truncated(file):
    file.write_bytes(file.read_bytes()[:40])


def foreign_chunk(file):
    file.write_bytes(file.read_bytes().replace(b"IDAT", b"\0\nT\x02"))


def trainval(old, new, message):
    return (
        "trainval.txt",
        replaced(f"Abyssinian_10{old} 1\n", f"Abyssinian_{new} 1\n"),
        f"trainval.txt.*{message}",
    )


DAMAGE = [
    trainval("0 1 1", "100 1", "line 1: 3 columns; the format has 4: image class species"),
    trainval("0 1 1", "99 1 1", "line 1: .*images/Abyssinian_99.jpg does not exist"),
    trainval("0 1 1", "100 one 1", "line 1: class 'one', species '1'; allowed are a number"),
    trainval("0 1 1", "100 1 3", "line 1: class '1', species '3'; allowed are a number"),
    trainval("1 1 1", "101 2 1", "class 2 is Abyssinian cat, but american_bulldog dog for"),
    trainval("1 1 1", "101 1 2", "class 1 is Abyssinian cat, but Abyssinian dog for"),
    ("trainval.txt", None, "has no annotations/trainval.txt, neither itself nor in oxford-iiit"),
    ("test.txt", None, "test.txt is missing; unpack the whole set"),
    ("xmls/Abyssinian_103.xml", "<annotation>", "Abyssinian_103.xml cannot be read"),
    ("trimaps/Abyssinian_103.png", "no image", "Abyssinian_103.png cannot be read as a trimap"),
    ("trimaps/Abyssinian_103.png", truncated, "Abyssinian_103.png cannot be read as a trimap"),
    ("trimaps/Abyssinian_103.png", foreign_chunk, "Abyssinian_103.png cannot be read as a trimap"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_damage_is_reported_with_the_file(tmp_path, file, change, message):
    check_damage(read_oxford_pets, make_oxford_pets(tmp_path), f"annotations/{file}", change, message)
