from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ramstrans.data.datasets.mat import read_mat, whole_numbers
from ramstrans.errors import DataError


def test_variables_are_flat_even_with_one_value(tmp_path):
    names = np.array([["a/b.jpg"]], dtype=object)
    savemat(tmp_path / "a.mat", {"names": names, "labels": np.array([[3, 5, 7]], np.uint8)})
    read, labels = read_mat(tmp_path / "a.mat", ("names", "labels"))
    assert (read.tolist(), labels.tolist()) == (["a/b.jpg"], [3, 5, 7])


def test_unreadable_files_are_named(tmp_path):
    file = tmp_path / "a.mat"
    with pytest.raises(DataError, match=r"a.mat is missing; unpack the whole set"):
        read_mat(file, ("labels",))
    savemat(file, {"labels": np.arange(99)}, do_compression=True)
    with pytest.raises(DataError, match=r"a.mat has no 'names'; take the published file"):
        read_mat(file, ("labels", "names"))
    content = file.read_bytes()
    damaged = (b"", b"text" * 99, content[:-9], content[:140] + b"\xff" * 20 + content[160:])
    for bytes_ in damaged:
        file.write_bytes(bytes_)
        with pytest.raises(DataError, match=r"a.mat cannot be read as a MATLAB file") as caught:
            read_mat(file, ("labels",))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[1.5], [np.nan], [np.inf], ["a"], [None], [True], [[1]]])
def test_values_that_are_not_whole_numbers(values):
    with pytest.raises(DataError, match=r"a.mat: 'labels' is not a list of whole numbers"):
        whole_numbers(np.array(values), Path("a.mat"), "labels")


def test_small_unsigned_integers_become_int():
    (number,) = whole_numbers(np.array([255], np.uint8), Path("a.mat"), "labels")
    assert (number + 1, type(number)) == (256, int)
