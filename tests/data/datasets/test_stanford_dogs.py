import shutil

import numpy as np
import pytest
from scipy.io import savemat

from ramstrans.data.datasets.stanford_dogs import read_stanford_dogs
from ramstrans.data.records import Record
from ramstrans.errors import DataError
from tests.data.fakes import make_stanford_dogs
from tests.data.fakes.stanford_dogs import BREEDS, write_dog_list


def test_the_whole_layout(tmp_path):
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


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (["a/a.jpg"], [1, 2], "train_list.mat: 1 images have 2 labels; there must be one each"),
        (["a/a.jpg"], [1.5], "train_list.mat: 'labels' holds something else than a list of whole numbers"),
        ([f"{BREEDS[0]}/no.jpg"], [1], r"train_list.mat: .*Images/n02085620-Chihuahua/no.jpg does not exist"),
        (["n0-Pug/no.jpg"], [1], r"train_list.mat: .*Images/n0-Pug/no.jpg does not exist"),
        (
            [f"{BREEDS[0]}/n02085620_0.jpg", f"{BREEDS[1]}/n02085782_0.jpg"],
            [1, 1],
            f"train_list.mat: label 1 of {BREEDS[1]}/n02085782_0.jpg is that of {BREEDS[0]} elsewhere",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, names, labels, message):
    write_dog_list(make_stanford_dogs(tmp_path) / "lists/train_list.mat", names, labels)
    with pytest.raises(DataError, match=message):
        read_stanford_dogs(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    make_stanford_dogs(tmp_path)
    annotation = tmp_path / "Annotation" / BREEDS[2] / "n02116738_37"
    annotation.unlink()
    with pytest.raises(DataError, match="n02116738_37 is missing; the layout of Stanford Dogs needs it"):
        read_stanford_dogs(tmp_path)
    savemat(tmp_path / "lists/test_list.mat", {"labels": np.arange(3)})
    with pytest.raises(DataError, match=r"test_list.mat holds no 'file_list'"):
        read_stanford_dogs(tmp_path)
    (tmp_path / "lists/test_list.mat").unlink()
    with pytest.raises(DataError, match=r"lists/test_list.mat is missing"):
        read_stanford_dogs(tmp_path)
    shutil.rmtree(tmp_path / "Images")
    with pytest.raises(DataError, match=r"holds no Images, neither itself nor in stanford_dogs/"):
        read_stanford_dogs(tmp_path)


def test_classes_are_in_order_of_label_whatever_the_order_of_the_list(tmp_path):
    names = [f"{breed}/{breed.split('-')[0]}_0.jpg" for breed in reversed(BREEDS)]
    write_dog_list(make_stanford_dogs(tmp_path) / "lists/train_list.mat", names, [3, 2, 1])
    images = read_stanford_dogs(tmp_path)
    assert images.class_names == BREEDS
    assert [record.label for record in images.of_split("train")] == [2, 1, 0]
