import shutil

import numpy as np
import pytest
from scipy.io import savemat

from ramstrans.data.datasets.stanford_dogs import read_stanford_dogs
from ramstrans.data.records import Record
from tests.data.datasets.damage import check_damage
from tests.data.fakes import make_stanford_dogs
from tests.data.fakes.stanford_dogs import BREEDS, write_dog_list


def test_the_whole_data_set(tmp_path):
    images = read_stanford_dogs(make_stanford_dogs(tmp_path))
    assert images.class_names == BREEDS
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    folder = tmp_path / "Images" / BREEDS[1]
    assert images.records[5:7] == (
        Record(folder / "n02085782_0.jpg", 1, "train", (0, 2, 11, 13)),
        Record(folder / "n02085782_37.jpg", 1, "train", (1, 0, 13, 11)),  # around both dogs
    )
    assert images.hierarchy == ()


def test_lists_beside_the_images_the_folder_above_and_no_annotations(tmp_path):
    root = make_stanford_dogs(tmp_path / "stanford_dogs")
    for file in (root / "lists").iterdir():
        file.rename(root / file.name)
    shutil.rmtree(root / "Annotation")
    images = read_stanford_dogs(tmp_path)
    assert len(images.records) == 21
    assert {record.box for record in images.records} == {None}


def listed(names, labels):
    """Damage: another list."""
    return lambda file: write_dog_list(file, names, labels)


TRAIN, TEST = "lists/train_list.mat", "lists/test_list.mat"
FIRST, SECOND = f"{BREEDS[0]}/n02085620_0.jpg", f"{BREEDS[1]}/n02085782_0.jpg"
ANNOTATION = f"Annotation/{BREEDS[2]}/n02116738_37"
DAMAGE = [
    (TRAIN, listed(["a/a.jpg"], [1, 2]), f"{TRAIN}: 1 images have 2 labels; there must be one each"),
    (TRAIN, listed(["a/a.jpg"], [1.5]), f"{TRAIN}: 'labels' is not a list of whole numbers"),
    (TRAIN, listed([f"{BREEDS[0]}/no.jpg"], [1]), f"{TRAIN}: .*Images/{BREEDS[0]}/no.jpg does not exist"),
    (TRAIN, listed(["n0-Pug/no.jpg"], [1]), f"{TRAIN}: .*Images/n0-Pug/no.jpg does not exist"),
    (
        TRAIN,
        listed([FIRST, SECOND], [1, 1]),
        f"{TRAIN}: label 1 of {SECOND} is that of {BREEDS[0]}",
    ),
    (TEST, lambda file: savemat(file, {"labels": np.arange(3)}), "test_list.mat has no 'file_list'"),
    (TEST, None, f"{TEST} is missing"),
    (ANNOTATION, None, f"{ANNOTATION} is missing; unpack the whole set"),
    ("Images", None, "has no Images, neither itself nor in stanford_dogs/"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_damage_is_reported_with_the_file(tmp_path, file, change, message):
    check_damage(read_stanford_dogs, make_stanford_dogs(tmp_path), file, change, message)


def test_classes_are_in_order_of_label_whatever_the_order_of_the_list(tmp_path):
    names = [f"{breed}/{breed.split('-')[0]}_0.jpg" for breed in reversed(BREEDS)]
    write_dog_list(make_stanford_dogs(tmp_path) / "lists/train_list.mat", names, [3, 2, 1])
    images = read_stanford_dogs(tmp_path)
    assert images.class_names == BREEDS
    assert [record.label for record in images.of_split("train")] == [2, 1, 0]
