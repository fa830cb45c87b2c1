import numpy as np
import pytest
from scipy.io import loadmat, savemat
from torchvision.datasets import Flowers102

from ramstrans.data.datasets.flowers102 import read_flowers102
from ramstrans.data.records import Record
from tests.data.datasets.damage import check_damage
from tests.data.fakes import make_flowers102


def test_the_whole_data_set(tmp_path):
    images = read_flowers102(make_flowers102(tmp_path))
    assert images.class_names == ("pink primrose", "hard-leaved pocket orchid", "canterbury bells")
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 6, 6]
    assert images.records[0] == Record(tmp_path / "jpg/image_00023.jpg", 2, "train")
    assert images.records[15] == Record(tmp_path / "jpg/image_00006.jpg", 0, "val")
    assert all(record.path.is_file() for record in images.records)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_paths_and_labels_are_as_torchvision_has_them(tmp_path, monkeypatch, split):
    make_flowers102(tmp_path / "flowers-102")
    monkeypatch.setattr(Flowers102, "_check_integrity", lambda _: True)
    theirs = Flowers102(tmp_path, split)
    records = read_flowers102(tmp_path).of_split(split)
    assert [record.path for record in records] == theirs._image_files
    assert [record.label for record in records] == theirs._labels


def variables(**changed):
    """Damage: other values of some variables."""

    def change(file):
        content = {name: value for name, value in loadmat(file).items() if not name.startswith("_")}
        savemat(file, content | {name: np.array(values) for name, values in changed.items()})

    return change


DAMAGE = [
    (
        "imagelabels.mat",
        variables(labels=[1, 103]),
        "a label is 103; labels go from 1 to 102",
    ),
    ("imagelabels.mat", variables(labels=[0, 1]), "imagelabels.mat: a label is 0"),
    ("imagelabels.mat", variables(labels=[1, 2]), "image 23 of trnid has no label; imagelabels.mat lists 2"),
    ("imagelabels.mat", None, "imagelabels.mat is missing; unpack the whole set"),
    ("setid.mat", variables(valid=[0]), "setid.mat: image 0 of valid has no label"),
    ("setid.mat", variables(tstid=[28]), "setid.mat: image 28 of tstid has no label"),
    ("setid.mat", variables(tstid=[2.5]), "setid.mat: 'tstid' is not a list of whole numbers"),
    ("setid.mat", None, "has no setid.mat, neither itself nor in flowers-102/"),
    ("jpg/image_00027.jpg", None, "setid.mat: .*image_00027.jpg does not exist"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_damage_is_reported_with_the_file(tmp_path, file, change, message):
    check_damage(read_flowers102, make_flowers102(tmp_path), file, change, message)
