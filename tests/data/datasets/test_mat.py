import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ramstrans.data.datasets.mat import read_mat, whole_numbers
from ramstrans.errors import DataError


def test_variables_are_flat_even_of_one_value(tmp_path):
    names = np.array([["a/b.jpg"]], dtype=object)
    savemat(tmp_path / "a.mat", {"names": names, "labels": np.array([[3, 5, 7]], np.uint8)})
    read, labels = read_mat(tmp_path / "a.mat", ("names", "labels"), "Dogs")
    assert (read.tolist(), labels.tolist()) == (["a/b.jpg"], [3, 5, 7])


def test_files_that_cannot_be_read_are_named(tmp_path):
    file = tmp_path / "a.mat"
    with pytest.raises(DataError, match=r"a.mat is missing; the layout of Dogs needs it"):
        read_mat(file, ("labels",), "Dogs")
    savemat(file, {"labels": np.arange(99)}, do_compression=True)
    with pytest.raises(DataError, match=r"a.mat holds no 'names'; the layout of Dogs needs it"):
        read_mat(file, ("labels", "names"), "Dogs")
    content = file.read_bytes()
    damaged = (b"", b"text" * 99, content[:-9], content[:140] + b"\xff" * 20 + content[160:])
    for bytes_ in damaged:
        file.write_bytes(bytes_)
        with pytest.raises(DataError, match=r"a.mat cannot be read as a MATLAB file") as caught:
            read_mat(file, ("labels",), "Dogs")
        assert "\n" not in str(caught.value)


def test_without_scipy_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"a.mat of Dogs needs SciPy to be read; pip install scipy"):
        read_mat(Path("a.mat"), ("labels",), "Dogs")


@pytest.mark.parametrize("values", [[1.5], [np.nan], [np.inf], ["a"], [None], [True], [[1]]])
def test_what_is_no_whole_number_is_refused(values):
    with pytest.raises(DataError, match=r"a.mat: 'labels' holds something else than a list of whole numbers"):
        whole_numbers(np.array(values), Path("a.mat"), "labels")


def test_small_unsigned_integers_become_real_ones():
    (number,) = whole_numbers(np.array([255], np.uint8), Path("a.mat"), "labels")
    assert (number + 1, type(number)) == (256, int)
