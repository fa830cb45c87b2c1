import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.datasets.lists import (
    FolderListing,
    box_around,
    box_from_pixels,
    box_from_size,
    distinct_names,
    find_folder,
    first_there,
    parse_flag,
    parse_number,
    read_classes,
    read_json,
    read_rows,
)
from ramstrans.errors import DataError

COORDINATES = st.floats(-1e6, 1e6)
SIZES = st.floats(1e-3, 1e6)


def test_the_folder_is_the_root_or_the_one_in_it(tmp_path):
    (tmp_path / "above" / "birds").mkdir(parents=True)
    (tmp_path / "above" / "birds" / "list.txt").touch()
    for root in (tmp_path / "above", tmp_path / "above" / "birds"):
        assert find_folder(root, "list.txt", "birds") == tmp_path / "above" / "birds"
    with pytest.raises(DataError, match=r"has no list.txt, neither itself nor in fish/"):
        find_folder(tmp_path, "list.txt", "fish")
    with pytest.raises(DataError, match="nowhere is not a folder; give the one that holds birds"):
        find_folder(tmp_path / "nowhere", "list.txt", "birds")


def test_rows_have_numbers_and_as_many_fields_as_columns(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("1 a b\r\n\n  2\tc  \n")
    assert list(read_rows(file, "id name")) == [(1, ["1", "a b"]), (3, ["2", "c"])]
    assert list(read_rows(file, "line")) == [(1, ["1 a b"]), (3, ["2\tc"])]
    with pytest.raises(DataError, match=r"list.txt, line 3: 2 columns; the format has 3: id x y"):
        list(read_rows(file, "id x y"))


def test_a_mark_that_an_editor_put_first_is_no_part_of_a_list(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbf1 wren\r\n2 crow\r\n")
    assert [fields for _, fields in read_rows(file, "id name")] == [["1", "wren"], ["2", "crow"]]
    file.write_bytes(b"\xef\xbb\xbf[7]")
    assert read_json(file) == [7]


def test_classes_are_labelled_by_their_indices(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("F/A-18\n\nBAE 146-200 \nwren")
    assert list(read_classes(file).items()) == [("F/A-18", 0), ("BAE 146-200", 1), ("wren", 2)]
    file.write_text("wren\ncrow\nwren\n")
    with pytest.raises(DataError, match=r"classes.txt, line 3: class 'wren' is listed twice"):
        read_classes(file)


def test_the_first_file_that_is_there(tmp_path):
    here, there = tmp_path / "a", tmp_path / "b"
    assert first_there(here, there) == here
    there.touch()
    assert first_there(here, there) == there
    here.mkdir()
    assert first_there(here, there) == there


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"no.txt is missing; unpack the whole set, or choose another --data.name"
    ):
        list(read_rows(tmp_path / "no.txt", "id"))
    (tmp_path / "bytes").write_bytes(b"\x81")
    with pytest.raises(DataError, match=r"bytes is not text in UTF-8, UTF-16 or Windows-1252"):
        list(read_rows(tmp_path / "bytes", "id"))
    (tmp_path / "a.json").write_text("{]")
    with pytest.raises(DataError, match=r"a.json is not as published: Expecting"):
        read_json(tmp_path / "a.json", lambda entry: entry)
    (tmp_path / "a.json").write_text("[{}]")
    with pytest.raises(DataError, match=r"a.json: an entry has no 'id'; take the published file"):
        read_json(tmp_path / "a.json", lambda entry: entry["id"])


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    (tmp_path / "a.jpg").touch()
    present = FolderListing()
    assert [tmp_path / name in present for name in ("a.jpg", "b.jpg", "a.jpg", "c/a.jpg", "a.jpg/b")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert f"{tmp_path}/a.jpg" in present
    assert listed == [str(tmp_path), str(tmp_path / "c"), str(tmp_path / "a.jpg")]


@given(st.dictionaries(st.integers(0, 99).map(str), st.sampled_from(["Morus", "Agathis", "Morus (3)"])))
def test_only_shared_names_change(names):
    distinct = distinct_names(names)
    for key, name, changed in zip(names, names.values(), distinct, strict=True):
        shared = list(names.values()).count(name) > 1
        assert changed == (f"{name} ({key})" if shared else name)


@given(COORDINATES, COORDINATES, SIZES, SIZES)
def test_corners_from_size(x, y, width, height):
    assert box_from_size(x, y, width, height) == (x, y, x + width, y + height)


@given(st.integers(1, 999), st.integers(1, 999), st.integers(1, 99), st.integers(1, 99))
def test_pixels_counted_from_one_are_as_many_as_the_box_is_wide(x, y, width, height):
    box = box_from_pixels(x, y, x + width - 1, y + height - 1)
    assert box == (x - 1, y - 1, x - 1 + width, y - 1 + height)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5), (5, -2), (math.nan, 5), (5, math.inf)])
def test_boxes_without_area_are_refused(size):
    with pytest.raises(ValueError, match="both must be above 0"):
        box_from_size(2, 3, *size)


@given(st.lists(st.tuples(COORDINATES, COORDINATES, SIZES, SIZES), min_size=1, max_size=5))
def test_the_box_around_is_the_smallest_that_holds_all(boxes):
    boxes = [box_from_size(*box) for box in boxes]
    x0, y0, x1, y1 = box_around(boxes)
    assert all(x0 <= box[0] and y0 <= box[1] and box[2] <= x1 and box[3] <= y1 for box in boxes)
    assert {x0, y0, x1, y1} <= {corner for box in boxes for corner in box}


def test_no_boxes_no_box():
    assert box_around([]) is None


def test_flags_and_numbers():
    assert [parse_flag(field) for field in "10"] == [True, False]
    assert parse_number("-1.5") == -1.5
    for parse, field in ((parse_flag, "2"), (parse_flag, "01"), (parse_number, "nan"), (parse_number, "x")):
        with pytest.raises(ValueError, match=field):
            parse(field)
