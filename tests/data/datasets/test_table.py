import pandas as pd
import pytest

from ramstrans.data.datasets.table import read_table
from ramstrans.data.records import Record
from ramstrans.errors import DataError

COLUMNS = {
    "path": ["b.jpg", "birds/a.jpg", "c.jpg"],
    "label": ["wren", "crow", "wren"],
    "split": ["train", "train", "test"],
    "x0": [1.5, None, 0],
    "y0": [2, None, -3],
    "x1": [7, None, 11],
    "y1": [13, None, 5],
}


@pytest.fixture
def save(tmp_path):
    """Write a table beside its images."""
    (tmp_path / "birds").mkdir()
    for name in COLUMNS["path"]:
        (tmp_path / name).touch()

    def write(columns, name="table.csv"):
        frame, path = pd.DataFrame(columns), tmp_path / name
        if path.suffix in (".parquet", ".pq"):
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
        return path

    return write


def without(*names, **others):
    return {name: values for name, values in COLUMNS.items() if name not in names} | others


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.parquet", "table.pq"])
def test_the_whole_table(tmp_path, save, name):
    images = read_table(save(COLUMNS, name))
    assert images.class_names == ("crow", "wren")
    assert images.records == (
        Record(tmp_path / "b.jpg", 1, "train", (1.5, 2, 7, 13)),
        Record(tmp_path / "birds/a.jpg", 0, "train"),
        Record(tmp_path / "c.jpg", 1, "test", (0, -3, 11, 5)),
    )


def test_other_columns_and_absolute_paths(tmp_path, save):
    files = [str(tmp_path / name) for name in COLUMNS["path"]]
    path = save({"file": files, "bird": COLUMNS["label"], "part": ["train", "Train ", "validation"]})
    images = read_table(path, path_column="file", label_column="bird", split_column="part")
    assert [record.path for record in images.records] == [tmp_path / name for name in COLUMNS["path"]]
    assert [record.split for record in images.records] == ["train", "train", "val"]


def test_without_splits_all_are_training_images(save):
    images = read_table(save(without("split")))
    assert {record.split for record in images.records} == {"train"}


def test_labels_are_text_as_written(save):
    images = read_table(save(without("split", label=["007", "NA", "null"])))
    assert images.class_names == ("007", "NA", "null")
    numbers = read_table(save(without("split", label=[7, 11, 7]), "table.parquet"))
    assert numbers.class_names == ("11", "7")


def test_a_byte_order_mark(save):
    path = save(COLUMNS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_table(path).records) == 3


def test_some_missing_files_are_left_to_the_check(save):
    images = read_table(save(without(path=["b.jpg", "gone.jpg", "x" * 999])))
    assert len(images.records) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (without("path"), "no column 'path'; it has 'label', 'split', 'x0', 'y0', 'x1', 'y1' "),
        (without("label"), "no column 'label'; it has 'path', "),
        (without(label=["wren", None, "crow"]), "row 2: 'label' is empty"),
        (without(path=["b.jpg", "a.jpg", " "]), "row 3: 'path' is empty"),
        (without(split=["train", "dev", "test"]), "row 2: 'split' is 'dev'; allowed are train, val, valid, "),
        (without(split=["train", "train", None]), "row 3: 'split' is empty"),
        (without("x1"), "box columns x0, y0, y1 but not x1; give all four or none"),
        (without(x0=[1.5, 3, 0]), "row 2: the box is 3, nan, nan, nan; give x0 < x1"),
        (without(x0=[9, None, 0]), "row 1: the box is 9, 2, 7, 13; give x0 < x1"),
        (without(y1=[13, None, float("inf")]), "row 3: the box is 0, -3, 11, inf"),
        (without(x0=["a", None, "0"]), "row 1: the box is a, .*; give four numbers"),
        (without(path=["u", "v", "w"]), "none of its 3 images exist, such as .*u; paths in 'path' are"),
    ],
)
@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_damage_is_reported(save, columns, message, name):
    with pytest.raises(DataError, match=message) as caught:
        read_table(save(columns, name))
    assert "\n" not in str(caught.value)


def test_tables_that_cannot_be_read(tmp_path, save):
    for name, content, message in (
        ("a.csv", b"", "a.csv cannot be read as a table"),
        ("b.csv", b"path,label\n\xff\xfe,1\n", "b.csv cannot be read as a table"),
        ("c.parquet", b"no parquet", "c.parquet cannot be read as a table"),
        ("d.xlsx", b"", r"d.xlsx is not a table; give a .csv, .tsv, .parquet, .pq file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_table(tmp_path / name)
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(DataError, match="does not exist"):
            read_table(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder.csv cannot be read as a table"):
        read_table(tmp_path / "folder.csv")
