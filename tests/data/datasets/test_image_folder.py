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


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_folders(tmp_path, val):
    make(tmp_path, "test/wren/e.jpg", f"{val}/crow/d.png", "train/wren/c.JPG", "train/crow/b.webp")
    make(tmp_path, "train/crow/a.tiff", "lists/readme.txt")
    images = read_image_folder(tmp_path)
    assert images.class_names == ("crow", "wren")
    assert as_rows(images, tmp_path) == [
        ("train/crow/a.tiff", "crow", "train"),
        ("train/crow/b.webp", "crow", "train"),
        ("train/wren/c.JPG", "wren", "train"),
        (f"{val}/crow/d.png", "crow", "val"),
        ("test/wren/e.jpg", "wren", "test"),
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


def test_hidden_files_other_files_and_loose_files_are_ignored(tmp_path):
    make(tmp_path, "crow/a.jpg", "wren/b.jpg", "crow/._a.jpg", "crow/.cache/c.jpg", "crow/Thumbs.db")
    make(tmp_path, "crow/notes.jpg.txt", "loose.jpg", ".git/d.jpg")
    assert [record.path.name for record in read_image_folder(tmp_path).records] == ["a.jpg", "b.jpg"]


def test_a_linked_class_folder_is_read(tmp_path):
    make(tmp_path, "elsewhere/a.jpg", "set/wren/b.jpg")
    (tmp_path / "set/crow").symlink_to(tmp_path / "elsewhere")
    assert read_image_folder(tmp_path / "set").counts("train") == {"crow": 1, "wren": 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "has no class folders; put the images into"),
        (("a.jpg", "b.jpg"), "has no class folders; put the images into"),
        (("crow/a.jpg", "wren/a.txt"), r"wren has no images \(.bmp .gif .jpeg .jpg"),
        (("train/crow/a.jpg", "train/wren/a.jpg", "test/wren/.b.jpg"), "test/wren has no images"),
        (("train/crow/a.jpg", "train/wren/a.jpg", "test/b.jpg"), "test has no class folders"),
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


def test_a_missing_folder_and_a_file(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_image_folder(tmp_path / "nowhere")
    make(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"a.jpg cannot be read as a folder"):
        read_image_folder(tmp_path / "a.jpg")
