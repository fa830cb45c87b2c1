import numpy as np
import pytest
from scipy.io import loadmat, savemat
from torchvision.datasets import Flowers102

from ramstrans.data.datasets.flowers102 import read_flowers102
from ramstrans.data.records import Record
from ramstrans.errors import DataError
from tests.data.fakes import make_flowers102


def test_the_whole_layout(tmp_path):
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


def change(file, **variables):
    content = {name: value for name, value in loadmat(file).items() if not name.startswith("_")}
    savemat(file, content | variables)


@pytest.mark.parametrize(
    ("file", "variables", "message"),
    [
        (
            "imagelabels.mat",
            {"labels": np.array([1, 103])},
            "imagelabels.mat: a label is 103; they go from 1 to 102",
        ),
        ("imagelabels.mat", {"labels": np.array([0, 1])}, "imagelabels.mat: a label is 0"),
        (
            "imagelabels.mat",
            {"labels": np.array([1, 2])},
            "image 23 of trnid has no label; imagelabels.mat lists 2",
        ),
        ("setid.mat", {"valid": np.array([0])}, "setid.mat: image 0 of valid has no label"),
        ("setid.mat", {"tstid": np.array([28])}, "setid.mat: image 28 of tstid has no label"),
        (
            "setid.mat",
            {"tstid": np.array([2.5])},
            "setid.mat: 'tstid' holds something else than a list of whole",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, file, variables, message):
    change(make_flowers102(tmp_path) / file, **variables)
    with pytest.raises(DataError, match=message):
        read_flowers102(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    make_flowers102(tmp_path)
    (tmp_path / "jpg/image_00027.jpg").unlink()
    with pytest.raises(DataError, match=r"setid.mat: .*image_00027.jpg does not exist"):
        read_flowers102(tmp_path)
    (tmp_path / "imagelabels.mat").unlink()
    with pytest.raises(DataError, match=r"imagelabels.mat is missing; the layout of Flowers-102 needs it"):
        read_flowers102(tmp_path)
    (tmp_path / "setid.mat").unlink()
    with pytest.raises(DataError, match=r"holds no setid.mat, neither itself nor in flowers-102/"):
        read_flowers102(tmp_path)
