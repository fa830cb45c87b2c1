import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import StanfordCars

from ramstrans.data.datasets.stanford_cars import read_stanford_cars
from ramstrans.data.records import Record
from tests.data.datasets.damage import check_damage
from tests.data.fakes import make_stanford_cars
from tests.data.fakes.stanford_cars import CLASSES, FIELDS, write_car_annotations


def test_the_whole_data_set(tmp_path):
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


def annotations(row, fields=FIELDS):
    """Damage: a single annotation."""
    return lambda file: write_car_annotations(file, [row], fields)


def twice(file):
    savemat(file, {"class_names": np.array(["a", "b", "a"], dtype=object)})


TRAIN, TEST, META = "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat", "devkit/cars_meta.mat"
BOX, NAME = (1, 2, 7, 11), "00001.jpg"
DAMAGE = [
    (TRAIN, annotations((*BOX, 3, "no.jpg")), f"{TRAIN}: .*cars_train/no.jpg does not exist"),
    (
        TRAIN,
        annotations((*BOX, 0, NAME)),
        f"{TRAIN}, image {NAME}: class 0 is not in cars_meta.mat",
    ),
    (TRAIN, annotations((*BOX, 4, NAME)), f"{TRAIN}, image {NAME}: class 4 is not in cars_meta.mat"),
    (TRAIN, annotations((8, 2, 7, 11, 3, NAME)), f"{TRAIN}, image {NAME}: the box is 0 wide and 10 high"),
    (TRAIN, annotations(("x", 2, 7, 11, 3, NAME)), f"{NAME}: could not convert string to float: 'x'"),
    (
        TRAIN,
        annotations((*BOX, 3, NAME), (*FIELDS[:4], "fname")),
        f"{TRAIN}: the annotations have no 'class'",
    ),
    (TRAIN, annotations((*BOX, 3, NAME), FIELDS[1:]), f"{TRAIN}: the annotations have no 'bbox_x1'"),
    (TEST, None, f"devkit/{TEST} is missing"),
    (META, twice, "cars_meta.mat: a class is listed twice"),
    (META, None, f"has no {META}, neither itself nor in stanford_cars/"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_damage_is_reported_with_the_file(tmp_path, file, change, message):
    check_damage(read_stanford_cars, make_stanford_cars(tmp_path), file, change, message)
