import logging

import pytest

from ramstrans.data.datasets.image_folder import read_image_folder
from ramstrans.errors import DataError


def make(root, *names):
    """Create empty files: the reader uses only their names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def as_rows(images, root):
    return [
        (record.path.relative_to(root).as_posix(), images.class_names[record.label], record.split)
        for record in images.records
    ]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Valid", "TEST"),
        ("training", "validation", "testing"),
        ("TRAIN", "eval", "Testing"),
        ("train", "dev", "test"),
    ],
)
def test_split_folders(tmp_path, train, val, test):
    make(tmp_path, f"{test}/wren/e.jpg", f"{val}/crow/d.png", f"{train}/wren/c.JPG", f"{train}/crow/b.webp")
    make(tmp_path, f"{train}/crow/a.tiff")
    images = read_image_folder(tmp_path)
    assert images.class_names == ("crow", "wren")
    assert as_rows(images, tmp_path) == [
        (f"{train}/crow/a.tiff", "crow", "train"),
        (f"{train}/crow/b.webp", "crow", "train"),
        (f"{train}/wren/c.JPG", "wren", "train"),
        (f"{val}/crow/d.png", "crow", "val"),
        (f"{test}/wren/e.jpg", "wren", "test"),
    ]
    assert all(record.box is None and record.parts == () for record in images.records)


def test_one_folder_is_all_training_images(tmp_path):
    make(tmp_path, "wren/b.jpg", "wren/male/a.jpg", "wren/male/old/c.ppm", "crow/z.bmp", "crow/y.gif")
    images = read_image_folder(tmp_path)
    assert as_rows(images, tmp_path) == [
        ("crow/y.gif", "crow", "train"),
        ("crow/z.bmp", "crow", "train"),
        ("wren/b.jpg", "wren", "train"),
        ("wren/male/a.jpg", "wren", "train"),
        ("wren/male/old/c.ppm", "wren", "train"),
    ]


def test_all_suffixes_that_can_be_decoded_are_read(tmp_path):
    names = ["a.AVIF", "b.heic", "c.jfif", "d.jp2", "e.jpe", "f.mpo", "g.pgm", "h.pbm", "i.JPG"]
    make(tmp_path, *(f"crow/{name}" for name in names), "wren/a.jpg")
    assert [record.path.name for record in read_image_folder(tmp_path).records] == [*names, "a.jpg"]


def test_hidden_files_are_ignored(tmp_path, caplog):
    make(tmp_path, "crow/a.jpg", "wren/b.jpg", "crow/._a.jpg", "crow/.cache/c.jpg", "crow/Thumbs.db")
    make(tmp_path, ".git/d.jpg", "__MACOSX/crow/._a.jpg")
    assert [record.path.name for record in read_image_folder(tmp_path).records] == ["a.jpg", "b.jpg"]
    assert caplog.text == ""


def test_everything_else_that_is_not_used_is_counted_once(tmp_path, caplog):
    make(tmp_path, "train/crow/a.jpg", "train/wren/b.jpg", "train/wren/c.CR2", "train/crow/d.cr2")
    make(
        tmp_path, "train/wren/notes.jpg.txt", "train/wren/README", "loose.jpg", "masks/m.png", "masks/n/o.png"
    )
    make(tmp_path, "lists/x.csv", "train/stray.png", "labels.csv")
    (tmp_path / "train/wren/loop").symlink_to(tmp_path)
    assert [record.path.name for record in read_image_folder(tmp_path).records] == ["a.jpg", "b.jpg"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: left out 2 .cr2, 2 images in no class folder, 2 images in masks/, 1 .csv, 1 .txt, "
        "1 folder without images, 1 link to a folder, 1 without a suffix"
    ]


def test_heic_without_its_library_is_left_out_and_the_extra_is_named(tmp_path, caplog, without_heif):
    make(tmp_path, "crow/a.jpg", "crow/b.heic", "crow/c.HEIC", "wren/d.jpg")
    assert len(read_image_folder(tmp_path).records) == 2
    assert caplog.messages == [f'{tmp_path}: left out 2 .heic (pip install "ramstrans[heif]" reads them)']
    make(tmp_path, "owl/e.heic")
    with pytest.raises(DataError, match=r'owl has no images, only 1 .heic \(pip install "ramstrans\[heif\]"'):
        read_image_folder(tmp_path)


def test_the_classes_are_the_top_folders_and_it_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    make(tmp_path, "Corvus/corax/a.jpg", "Corvus/corone/b.jpg", "Turdus/merula/c.jpg")
    assert read_image_folder(tmp_path).class_names == ("Corvus", "Turdus")
    assert caplog.messages == [
        f"{tmp_path}: the classes are its 2 folders, with the images of 3 folders below them; "
        "--data.class_level leaf makes every folder with images a class"
    ]


def test_the_classes_are_the_leaf_folders(tmp_path):
    make(tmp_path, "train/Corvus/corax/a.jpg", "train/Corvus/corone/b.jpg", "train/Turdus/c.jpg")
    make(tmp_path, "test/Corvus/corone/d.jpg")
    images = read_image_folder(tmp_path, "leaf")
    assert as_rows(images, tmp_path) == [
        ("train/Corvus/corax/a.jpg", "Corvus/corax", "train"),
        ("train/Corvus/corone/b.jpg", "Corvus/corone", "train"),
        ("train/Turdus/c.jpg", "Turdus", "train"),
        ("test/Corvus/corone/d.jpg", "Corvus/corone", "test"),
    ]
    assert images.hierarchy == (("Corvus",), ("Corvus",), ())


def test_a_class_may_be_called_train(tmp_path):
    make(tmp_path, "bus/a.jpg", "car/b.jpg", "train/c.jpg")
    assert read_image_folder(tmp_path).class_names == ("bus", "car", "train")


def test_a_linked_class_folder_is_read(tmp_path):
    make(tmp_path, "elsewhere/a.jpg", "set/wren/b.jpg")
    (tmp_path / "set/crow").symlink_to(tmp_path / "elsewhere")
    assert read_image_folder(tmp_path / "set").counts("train") == {"crow": 1, "wren": 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "has no class folders; put the images into"),
        (("a.jpg", "b.jpg"), "has no class folders; put the images into"),
        (("crow/a.jpg", "wren/a.txt"), "wren has no images, only 1 .txt; add some"),
        (("train/crow/a.jpg", "train/wren/a.jpg", "test/wren/.b.jpg"), "test/wren has no images"),
        (
            ("crow/.a.jpg", "dove/a.jpg", "owl/a.md", "rook/a.txt", "wren/b.txt"),
            "crow has no images; .*owl has no images, only 1 .md; .*rook .*; and 1 more; add some, or remove "
            "the folders",
        ),
        (("train/crow/a.jpg", "train/wren/a.jpg", "test/b.jpg"), "test has no class folders"),
        (("train/a.jpg", "test/a.jpg"), "test has no class folders"),
        (("train/a.jpg", "masks/a.jpg"), "train has no class folders"),
        (
            ("Train_images/crow/a.jpg", "my-test/crow/a.jpg"),
            "has only Train_images/ and my-test/, which look",
        ),
        (
            ("train/crow/a.jpg", "unseen/crow/a.jpg"),
            "has train/ and unseen/, which has the same classes, such as crow, but is not named like a split",
        ),
        (
            ("crow/train/a.jpg", "crow/Val/a.jpg", "wren/b.jpg"),
            "crow has Val/ and train/ inside a class; put",
        ),
        (
            ("train/crow/a.jpg", "val/crow/a.jpg", "valid/crow/a.jpg"),
            "both val/ and valid/ for the val split",
        ),
    ],
)
def test_damage_is_reported(tmp_path, names, message):
    make(tmp_path, *names)
    with pytest.raises(DataError, match=message) as caught:
        read_image_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_set_may_have_a_test_split_alone(tmp_path):
    make(tmp_path, "Test/crow/a.jpg", "Test/wren/b.jpg")
    assert {record.split for record in read_image_folder(tmp_path).records} == {"test"}


def test_a_missing_folder_and_a_file(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_image_folder(tmp_path / "nowhere")
    make(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"a.jpg cannot be read as a folder"):
        read_image_folder(tmp_path / "a.jpg")
