import hashlib
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from ramstrans.data.datasets.hugging_face import read_hugging_face
from ramstrans.errors import DataError, OutputError
from tests.data.builders import decode_image
from tests.data.fakes.hugging_face import CLASSES, make_hugging_face, quiet_library


@pytest.fixture
def library(tmp_path, monkeypatch):
    return quiet_library(tmp_path, monkeypatch)


def first_pixels(images):
    """The first pixel of each image, which distinguishes them."""
    return [decode_image(record.path).getpixel((0, 0)) for record in images.records]


def test_images_that_are_inside_are_written_once_under_their_hash(library, tmp_path):
    root = make_hugging_face(tmp_path / "birds")
    images = read_hugging_face(root)
    assert images.class_names == CLASSES
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    assert [record.label for record in images.records[:4]] == [0, 1, 2, 0]
    assert len(set(first_pixels(images))) == 21
    for record in images.records:
        assert record.path.name == hashlib.sha256(record.path.read_bytes()).hexdigest()
        assert record.path.parents[1] == tmp_path / "birds.images"
    before = {record.path: record.path.stat().st_mtime_ns for record in images.records}
    assert read_hugging_face(root) == images
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_folder_that_cannot_be_written(library, tmp_path):
    root = make_hugging_face(tmp_path / "birds")
    (tmp_path / "birds.images").touch()
    with pytest.raises(OutputError, match=r"birds.images/.* cannot be written"):
        read_hugging_face(root)


def test_one_table_is_all_training_images(library, tmp_path):
    saved = library.load_from_disk(str(make_hugging_face(tmp_path / "birds")))
    saved["train"].save_to_disk(str(tmp_path / "one"))
    images = read_hugging_face(tmp_path / "one")
    assert {record.split for record in images.records} == {"train"}


def test_parquet_files(library, tmp_path):
    root = make_hugging_face(tmp_path / "birds")
    saved = library.load_from_disk(str(root))
    for split, name in (("train", "train"), ("test", "validation")):
        (tmp_path / "parquet").mkdir(exist_ok=True)
        saved[split].to_parquet(str(tmp_path / "parquet" / f"{name}-00000-of-00001.parquet"))
    images = read_hugging_face(tmp_path / "parquet")
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 6, 0]
    assert (images.class_names, first_pixels(images)) == (CLASSES, first_pixels(read_hugging_face(root)))


def test_a_folder_of_image_files_is_read_from_there(library, colors):
    images = read_hugging_face(colors)
    assert images.class_names == ("Azure_tit", "Bistre_owl", "Coral_ibis")
    assert [len(images.of_split(split)) for split in ("train", "test")] == [12, 6]
    for record in images.records:
        folder = colors / record.split / images.class_names[record.label]
        assert record.path.resolve().parent == folder.resolve()
    assert not colors.with_name("colors.images").exists()


def save(library, root, columns, features):
    library.Dataset.from_dict(columns, features=library.Features(features)).save_to_disk(str(root))
    return root


def test_labels_that_are_texts_or_numbers(library, tmp_path):
    images = [Image.new("RGB", (7, 5), (index, 0, 0)) for index in range(3)]
    for value, labels, names in (
        ("string", ["b", " a", "b"], ("a", "b")),
        ("int64", [10, 9, 10], ("10", "9")),
    ):
        root = save(
            library,
            tmp_path / value,
            {"photo": images, "kind": labels},
            {"photo": library.Image(), "kind": library.Value(value)},
        )
        read = read_hugging_face(root, label_column="kind")
        assert read.class_names == names
        assert [names[record.label] for record in read.records] == [str(label).strip() for label in labels]


def test_of_two_columns_of_images_one_is_to_be_chosen(library, tmp_path):
    images = [Image.new("RGB", (7, 5), (index, 0, 0)) for index in range(4)]
    root = save(
        library,
        tmp_path / "pairs",
        {"left": images[:2], "right": images[2:], "label": ["a", "b"]},
        {"left": library.Image(), "right": library.Image(), "label": library.Value("string")},
    )
    with pytest.raises(
        DataError, match=r"columns of images: 'left', 'right'; choose one by --data.path_column"
    ):
        read_hugging_face(root)
    assert first_pixels(read_hugging_face(root, "right")) == [(2, 0, 0), (3, 0, 0)]


def test_a_column_that_is_not_there(library, tmp_path):
    with pytest.raises(
        DataError, match=r"no column 'kind'; it has 'image', 'label' \(choose by --data.label"
    ):
        read_hugging_face(make_hugging_face(tmp_path / "birds"), label_column="kind")


@pytest.mark.parametrize("value", [None, -1])
def test_a_row_without_a_label(library, tmp_path, value):
    labels = [0, 1, value, *[2] * 12]
    with pytest.raises(DataError, match="birds, train, row 3: 'label' is empty; save it without that row"):
        read_hugging_face(make_hugging_face(tmp_path / "birds", label=labels))


def test_a_row_without_an_image(library, tmp_path):
    buffer = BytesIO()
    Image.new("RGB", (7, 5)).save(buffer, "PNG")
    images = [{"bytes": buffer.getvalue(), "path": None}, *[None] * 14]
    with pytest.raises(DataError, match="birds, train, row 2: 'image' is empty; save it without that row"):
        read_hugging_face(make_hugging_face(tmp_path / "birds", image=images))


def test_splits_that_are_not_ours(library, tmp_path):
    saved = library.load_from_disk(str(make_hugging_face(tmp_path / "birds")))
    for number, (names, message) in enumerate(
        (
            (("train", "extra"), "has a split 'extra'; allowed are train, training, val, "),
            (("Valid", "dev"), "has more than one val split; save it with one"),
            (("test",), "has no split 'train'; it has test"),
        )
    ):
        root = tmp_path / str(number)
        library.DatasetDict(dict.fromkeys(names, saved["train"])).save_to_disk(str(root))
        with pytest.raises(DataError, match=message):
            read_hugging_face(root)


def test_a_test_split_with_classes_of_its_own(library, tmp_path):
    saved = library.load_from_disk(str(make_hugging_face(tmp_path / "birds")))
    other = saved["test"].cast_column("label", library.ClassLabel(names=["wren", "owl", "tit"]))
    library.DatasetDict({"train": saved["train"], "test": other}).save_to_disk(str(tmp_path / "mixed"))
    with pytest.raises(DataError, match="mixed: 'label' is 'owl', which is not among the training"):
        read_hugging_face(tmp_path / "mixed")


def test_what_datasets_cannot_read(library, tmp_path):
    (tmp_path / "empty").mkdir()
    damaged = make_hugging_face(tmp_path / "birds")
    (damaged / "train" / "state.json").write_text("{")
    for root in (tmp_path / "empty", damaged, Path("nobody-at-all/nothing")):
        with pytest.raises(
            DataError, match="cannot be read by datasets, as a folder or from the hub"
        ) as caught:
            read_hugging_face(root)
        assert "\n" not in str(caught.value)


def test_without_the_library_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="needs the library datasets; pip install datasets"):
        read_hugging_face(tmp_path)
