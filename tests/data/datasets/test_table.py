import os

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
        elif path.suffix == ".xlsx":
            frame.to_excel(path, index=False)
        else:
            frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
        return path

    return write


def without(*names, **others):
    return {name: values for name, values in COLUMNS.items() if name not in names} | others


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.xlsx", "table.parquet", "table.pq"])
def test_the_whole_table(tmp_path, save, name):
    images = read_table(save(COLUMNS, name))
    assert images.class_names == ("crow", "wren")
    assert images.records == (
        Record(tmp_path / "b.jpg", 1, "train", (1.5, 2, 7, 13)),
        Record(tmp_path / "birds/a.jpg", 0, "train"),
        Record(tmp_path / "c.jpg", 1, "test", (0, -3, 11, 5)),
    )


def test_types_and_rows_of_parquet_are_plain(tmp_path, save):
    """Categories and whole numbers with a missing cell, and rows that are named."""
    frame = pd.DataFrame(COLUMNS, index=["x", "y", "z"])
    frame["label"] = pd.Categorical([frame["label"].iloc[0], None, frame["label"].iloc[2]])
    frame["site"] = pd.array([7, None, 7], dtype="Int64")
    frame.to_parquet(tmp_path / "table.parquet")
    images = read_table(tmp_path / "table.parquet", on_unlabelled="skip", group_column="site")
    assert [record.group for record in images.records] == ["7", "7"]
    with pytest.raises(DataError, match=r"row 2: 'label' is empty"):
        read_table(tmp_path / "table.parquet")
    frame.rename_axis("number").to_parquet(tmp_path / "named.parquet")
    assert len(read_table(tmp_path / "named.parquet", on_unlabelled="skip").records) == 2


def test_other_columns_and_absolute_paths(tmp_path, save):
    files = [str(tmp_path / name) for name in COLUMNS["path"]]
    path = save({"file": files, "bird": COLUMNS["label"], "part": ["TRAINING", "Train ", "dev"]})
    images = read_table(path, path_column="file", label_column="bird", split_column="part")
    assert [record.path for record in images.records] == [tmp_path / name for name in COLUMNS["path"]]
    assert [record.split for record in images.records] == ["train", "train", "val"]


def test_without_splits_all_are_training_images(save):
    images = read_table(save(without("split")))
    assert {record.split for record in images.records} == {"train"}


def test_labels_are_text_as_written(save):
    images = read_table(save(without("split", label=["007", "NA", "null"])))
    assert images.class_names == ("007", "NA", "null")


@pytest.mark.parametrize("name", ["table.parquet", "table.xlsx"])
@pytest.mark.parametrize("numbers", [[7, 11, 7], [7.0, 11.0, 7.0]])
def test_whole_numbers_are_labels_without_a_point(save, name, numbers):
    assert read_table(save(without("split", label=numbers), name)).class_names == ("11", "7")


def test_a_class_written_in_two_ways(save):
    with pytest.raises(DataError, match=r"'label' has both '7' and '7\.0'; write a class in one way"):
        read_table(save(without("split", label=["7", "7.0", "11"])))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_byte_order_marks_and_separators(tmp_path, save, encoding, separator):
    text = save(without(label=["Bláhnjúkur", "鳥", "鳥"])).read_text().replace(",", separator)
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "other.csv").write_bytes((mark + text).encode(encoding))
    images = read_table(tmp_path / "other.csv")
    assert images.class_names == ("Bláhnjúkur", "鳥")
    assert images.records[0].box == (1.5, 2, 7, 13)


def test_windows_text_is_read_with_a_warning(tmp_path, caplog):
    (tmp_path / "Höckerschwan.jpg").touch()
    (tmp_path / "a.csv").write_bytes("path,label\nHöckerschwan.jpg,Schwäne\n".encode("cp1252"))
    images = read_table(tmp_path / "a.csv")
    assert images.class_names == ("Schwäne",)
    assert images.records[0].path == tmp_path / "Höckerschwan.jpg"
    assert caplog.messages == [f"{tmp_path / 'a.csv'} is not UTF-8; it is read as Windows-1252"]


def test_names_of_files_that_are_not_utf8(tmp_path, caplog):
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).touch()
    (tmp_path / "a.csv").write_bytes(b"path,label\ncaf\xe9.jpg,\xe9t\xe9\n")
    images = read_table(tmp_path / "a.csv")
    assert images.records[0].path == tmp_path / name
    assert images.class_names == (os.fsdecode(b"\xe9t\xe9"),)
    assert caplog.messages == []


def test_backslashes_and_another_folder_of_images(tmp_path, save):
    path = save(without(path=["b.jpg", "birds\\a.jpg", "c.jpg"]), "table.csv")
    expected = [tmp_path / name for name in COLUMNS["path"]]
    assert [record.path for record in read_table(path).records] == expected
    (tmp_path / "lists").mkdir()
    moved = path.rename(tmp_path / "lists" / "table.csv")
    assert [record.path for record in read_table(moved, image_folder=tmp_path).records] == expected
    with pytest.raises(DataError, match=r"none of its 3 images exist, .*choose by --data.image_folder"):
        read_table(moved)


def test_ids_without_a_suffix(tmp_path, save):
    for name in ("17.jpg", "IMG.2034.png", "plain", "plain.jpg"):
        (tmp_path / name).touch()
    names = [record.path.name for record in read_table(save(without(path=["17", "IMG.2034", "no"]))).records]
    assert names == ["17.jpg", "IMG.2034.png", "no"]
    numbers = read_table(save(without(path=[17.0, 17.0, 17.0]), "table.parquet"))
    assert {record.path.name for record in numbers.records} == {"17.jpg"}
    assert read_table(save(without(path=["plain"] * 3))).records[0].path.name == "plain"
    (tmp_path / "17.png").touch()
    with pytest.raises(DataError, match=r"row 1: '17' stands for 17.jpg and 17.png; give it with its suffix"):
        read_table(save(without(path=["17", "b.jpg", "c.jpg"])))


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
        (
            without(split=["train", "odd", "test"]),
            "row 2: 'split' is 'odd'; allowed are train, training, val, ",
        ),
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
        ("b.csv", b"path,label\n\x81,1\n", "b.csv cannot be read as a table"),
        ("c.parquet", b"no parquet", "c.parquet cannot be read as a table"),
        ("d.xlsx", b"PK", "d.xlsx cannot be read as a table"),
        ("e.xls", b"", r"e.xls is not a table; give a folder or a .csv, .tsv, .xlsx, "),
        ("f.v2.zip", b"PK", r"f.v2.zip is an archive; unpack it and give its folder"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_table(tmp_path / name)
    for name in ("none.csv", "none.parquet", "none.v2"):
        with pytest.raises(DataError, match="does not exist"):
            read_table(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder.csv cannot be read as a table"):
        read_table(tmp_path / "folder.csv")


def test_a_list_where_one_value_is_wanted(tmp_path):
    (tmp_path / "a.jpg").touch()
    pd.DataFrame({"path": ["a.jpg"], "label": [["wren", "crow"]]}).to_parquet(tmp_path / "set.parquet")
    with pytest.raises(
        DataError, match=r"set\.parquet, row 1: 'label' holds a list; .*--data\.multi_label true"
    ):
        read_table(tmp_path / "set.parquet")
