import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.datasets.table import read_table
from ramstrans.data.records import Record
from ramstrans.errors import DataError
from ramstrans.plain import join_labels, split_labels

NAMES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")


@pytest.fixture
def save(tmp_path):
    """Write a table beside its (empty) images."""
    for name in NAMES:
        (tmp_path / name).touch()

    def write(columns, name="table.csv", **options):
        frame, path = pd.DataFrame(columns), tmp_path / name
        if path.suffix == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, **options)
        return path

    return write


@given(
    st.lists(st.text(min_size=1).map(str.strip).filter(bool), unique=True),
    st.sampled_from(";|,a"),
)
def test_labels_that_were_joined_come_apart_again(names, separator):
    assert list(split_labels(join_labels(names, separator), separator)) == names


def test_backslashes_stay_where_they_escape_nothing():
    assert split_labels(r"genus\species;b") == (r"genus\species", "b")
    assert split_labels(r"a\;b\\;c") == ("a;b\\", "c")


def test_names_in_one_cell(save):
    path = save({"path": NAMES, "label": ["wren; crow", "owl", "", "crow;;wren;crow", "heron\\; grey"]})
    images = read_table(path, multi_label=True)
    assert images.class_names == ("crow", "heron; grey", "owl", "wren")
    assert [record.labels for record in images.records] == [(0, 3), (2,), (), (0, 3), (1,)]
    assert {record.label for record in images.records} == {-1}
    assert images.multi_label
    assert images.counts("train") == {"crow": 2, "heron; grey": 1, "owl": 1, "wren": 2}


@pytest.mark.parametrize(
    ("separator", "cells"), [("|", ["a|b", "b"]), (" ", ["a  b", "b"]), (", ", ["a, b", "b"])]
)
def test_another_separator(save, separator, cells):
    path = save({"path": NAMES[:2], "label": cells})
    images = read_table(path, multi_label=True, label_separator=separator)
    assert [record.labels for record in images.records] == [(0, 1), (1,)]


def test_lists_in_parquet_and_numbers(save):
    path = save({"path": NAMES[:3], "label": [[2, 7], [], [7]]}, "table.parquet")
    images = read_table(path, multi_label=True)
    assert images.class_names == ("2", "7")
    assert [record.labels for record in images.records] == [(0, 1), (), (1,)]


def test_rows_of_one_image_are_one_record(save, tmp_path):
    path = save(
        {
            "path": ["a.jpg", "b.jpg", "a.jpg"],
            "label": ["wren", "crow", "crow"],
            "split": ["val", "test", "val"],
        }
    )
    images = read_table(path, multi_label=True)
    assert images.records == (
        Record(tmp_path / "a.jpg", -1, "val", labels=(0, 1)),
        Record(tmp_path / "b.jpg", -1, "test", labels=(0,)),
    )
    path = save({"path": ["a.jpg", "a.jpg"], "label": ["wren", "crow"], "split": ["val", "test"]})
    with pytest.raises(
        DataError, match=r"row 2: .*a\.jpg has another split in an earlier row; give an image one"
    ):
        read_table(path, multi_label=True)


COLUMNS = {
    "path": NAMES,
    "split": ["train"] * 5,
    "has_crest": [1, 0, "true", "", "No"],
    "has_crown": [0.0, 1.0, 1.0, 0.0, 0.0],
    "length": [3, 4, 5, 6, 7],
}


@pytest.mark.parametrize(
    "columns", ["has_crest,has_crown", "has_*", ("has_crown", "has_crest"), "has_cr*,has_crest"]
)
def test_a_column_per_label(save, columns):
    images = read_table(save(COLUMNS), multi_label=True, label_columns=columns)
    assert images.class_names == ("has_crest", "has_crown")
    assert [record.labels for record in images.records] == [(0,), (1,), (0, 1), (), ()]


def test_patterns_leave_other_columns_out(save):
    columns = {"path": NAMES[:2], "split": ["train", "test"], "site": ["x", "x"], "a": [1, 0], "b": [1, 1]}
    images = read_table(save(columns), multi_label=True, label_columns="*", group_column="site")
    assert images.class_names == ("a", "b")


def test_bad_columns(save):
    with pytest.raises(
        DataError, match=r"no column 'beak\*' \(data.label_columns\); it has 'path'; 'split'; 'has_crest'"
    ):
        read_table(save(COLUMNS), multi_label=True, label_columns="beak*")
    with pytest.raises(
        DataError, match=r"row 1: 'length' is '3'; a label's own column .* holds 1, true or yes"
    ):
        read_table(save(COLUMNS), multi_label=True, label_columns="length")
    with pytest.raises(DataError, match="row 2: 'a' is '-1'"):
        read_table(save({"path": NAMES[:2], "a": [1, -1]}), multi_label=True, label_columns="a")


def test_no_label_at_all(save):
    with pytest.raises(DataError, match="'label' is empty in every row; give names"):
        read_table(save({"path": NAMES[:2], "label": [np.nan, ""]}), multi_label=True)


def test_names_with_the_separator_of_the_table_must_be_in_quotes(tmp_path, save):
    save({})
    (tmp_path / "table.csv").write_text("path;label\na.jpg;wren;crow\nb.jpg;owl\n")
    with pytest.raises(DataError, match="more cells, separated by ';', than its header; put names"):
        read_table(tmp_path / "table.csv", multi_label=True)
    (tmp_path / "table.csv").write_text('path;label\na.jpg;"wren;crow"\nb.jpg;owl\n')
    assert [record.labels for record in read_table(tmp_path / "table.csv", multi_label=True).records] == [
        (0, 2),
        (1,),
    ]


def test_several_labels_read_as_one_class_are_warned_of(save, caplog):
    images = read_table(save({"path": NAMES[:2], "label": ["wren;crow", "owl"]}))
    assert images.class_names == ("owl", "wren;crow")
    assert not images.multi_label
    assert "'wren;crow' is one class; if it is several labels, give --data.multi_label true" in caplog.text


def test_a_column_that_no_image_has_is_left_out(save, caplog):
    columns = {"path": NAMES[:2], "a": [1, 0], "b": [0, 0]}
    assert read_table(save(columns), multi_label=True, label_columns="a,b").class_names == ("a",)
    assert "left out, as no image has them: 'b'" in caplog.text
