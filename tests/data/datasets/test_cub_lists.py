import pytest

from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.datasets.cub_lists import read_names, read_records
from ramstrans.errors import DataError
from tests.shared import CUB50, needs


def test_names_may_hold_spaces_and_be_shared_where_that_is_allowed(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("7 left eye\n2 beak\n3 beak\n")
    with pytest.raises(DataError, match="line 3: part 3 'beak' is listed twice"):
        read_names(file, "part", "Birds")
    assert list(read_names(file, "part", "Birds", are_distinct=False).items()) == [
        ("7", "left eye"),
        ("2", "beak"),
        ("3", "beak"),
    ]
    file.write_text("7 left eye\n7 beak\n")
    with pytest.raises(DataError, match="line 2: part 7 'beak' is listed twice"):
        read_names(file, "part", "Birds", are_distinct=False)


def test_records_are_those_of_cub(birds):
    names = read_names(birds / "classes.txt", "class", "Birds")
    assert read_records(birds, names, "Birds") == read_cub(birds).records


@pytest.mark.realdata
def test_records_are_those_of_the_real_one():
    needs(CUB50)
    root = CUB50
    names = read_names(root / "classes.txt", "class", "CUB-200-2011")
    records = read_records(root, names, "CUB-200-2011")
    assert len(records) == 2889
    assert records == read_cub(root).records
