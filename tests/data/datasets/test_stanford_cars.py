import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import StanfordCars

from ramstrans.data.datasets.stanford_cars import read_stanford_cars
from ramstrans.data.records import Record
from ramstrans.errors import DataError
from tests.data.fakes import make_stanford_cars
from tests.data.fakes.stanford_cars import CLASSES, FIELDS, write_car_annotations


def test_the_whole_layout(tmp_path):
    images = read_stanford_cars(make_stanford_cars(tmp_path))
    assert images.class_names == CLASSES
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    assert images.records[2] == Record(tmp_path / "cars_train/00003.jpg", 2, "train", (2, 1, 257, 300))
    assert images.records[-1] == Record(tmp_path / "cars_test/00006.jpg", 2, "test", (5, 1, 260, 300))


def test_the_folder_above_and_test_annotations_in_the_devkit(tmp_path):
    root = make_stanford_cars(tmp_path / "stanford_cars")
    (root / "cars_test_annos_withlabels.mat").rename(root / "devkit/cars_test_annos_withlabels.mat")
    assert len(read_stanford_cars(tmp_path).records) == 21


def test_paths_and_labels_are_as_torchvision_has_them(tmp_path):
    make_stanford_cars(tmp_path / "stanford_cars")
    images = read_stanford_cars(tmp_path)
    for split in ("train", "test"):
        theirs = StanfordCars(tmp_path, split)
        assert [(str(record.path), record.label) for record in images.of_split(split)] == theirs._samples
        assert list(images.class_names) == theirs.classes


ROW = (1, 2, 7, 11, 3, "00001.jpg")


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        ((1, 2, 7, 11, 3, "no.jpg"), FIELDS, "cars_train/no.jpg does not exist"),
        (
            (1, 2, 7, 11, 0, "00001.jpg"),
            FIELDS,
            "image 00001.jpg: class 0 is not in cars_meta.mat, which lists 3",
        ),
        ((1, 2, 7, 11, 4, "00001.jpg"), FIELDS, "image 00001.jpg: class 4 is not in cars_meta.mat"),
        ((8, 2, 7, 11, 3, "00001.jpg"), FIELDS, "image 00001.jpg: the box is 0 wide and 10 high"),
        (("x", 2, 7, 11, 3, "00001.jpg"), FIELDS, "image 00001.jpg: could not convert string to float: 'x'"),
        (
            ROW,
            (*FIELDS[:4], "fname"),
            "the annotations have no 'class'; the layout of Stanford Cars needs it",
        ),
        (ROW, FIELDS[1:], "the annotations have no 'bbox_x1'"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, row, fields, message):
    make_stanford_cars(tmp_path)
    write_car_annotations(tmp_path / "devkit/cars_train_annos.mat", [row], fields)
    with pytest.raises(DataError, match=f"cars_train_annos.mat.*{message}"):
        read_stanford_cars(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    make_stanford_cars(tmp_path)
    (tmp_path / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(DataError, match=r"devkit/cars_test_annos_withlabels.mat is missing"):
        read_stanford_cars(tmp_path)
    savemat(tmp_path / "devkit/cars_meta.mat", {"class_names": np.array(["a", "b", "a"], dtype=object)})
    with pytest.raises(DataError, match=r"cars_meta.mat: a class is listed twice"):
        read_stanford_cars(tmp_path)
    (tmp_path / "devkit/cars_meta.mat").unlink()
    with pytest.raises(
        DataError, match=r"holds no devkit/cars_meta.mat, neither itself nor in stanford_cars/"
    ):
        read_stanford_cars(tmp_path)
