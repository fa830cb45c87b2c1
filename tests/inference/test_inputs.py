import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.errors import DataError, UsageError
from ramstrans.inference.inputs import expand_inputs


def expand(*arguments, stdin=""):
    return list(expand_inputs(arguments, io.StringIO(stdin)))


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b/2.JPG",
        "b/10.png",
        "b/notes.txt",
        "b.jpg",
        "a/c/z.webp",
        "a/b.tif",
        ".hidden/x.jpg",
        "b/.x.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_folder_is_all_its_images_sorted(folder):
    names = ["a/b.tif", "a/c/z.webp", "b/10.png", "b/2.JPG", "b.jpg"]
    expected = [folder / name for name in names]
    assert expand(folder) == expected == sorted(expected)


def test_links_to_folders_are_not_followed(folder):
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "a" / "link.jpg").symlink_to(folder / "b.jpg")
    assert [str(path.relative_to(folder)) for path in expand(folder)] == [
        "a/b.tif",
        "a/c/z.webp",
        "a/link.jpg",
        "b/10.png",
        "b/2.JPG",
        "b.jpg",
    ]
    assert len(expand(folder / "a" / "loop")) == 6  # but one that is named is


def test_files_stand_for_themselves_in_their_order(folder):
    arguments = [folder / "missing.jpg", folder / "b" / "notes.txt", folder / "a", "x" * 5000, "a\0b"]
    found = expand(*arguments)
    assert found[:2] == arguments[:2]
    assert found[2:4] == [folder / "a/b.tif", folder / "a/c/z.webp"]
    assert [str(path) for path in found[4:]] == arguments[3:]


def test_standard_input_is_a_list_of_paths(folder):
    (folder / "none").mkdir()
    lines = f"\nwith space .jpg\r\n{folder}/a\n  \n{folder}/none\nlast.png"
    assert list(map(str, expand("first.png", "-", "end.png", stdin=lines))) == [
        "first.png",
        "with space .jpg",
        str(folder / "a/b.tif"),
        str(folder / "a/c/z.webp"),
        str(folder / "none"),
        "last.png",
        "end.png",
    ]


def test_standard_input_is_read_as_needed():
    def lines():
        yield "one.jpg\n"
        raise AssertionError("read too far")

    assert str(next(expand_inputs(["-"], lines()))) == "one.jpg"


@given(st.lists(st.from_regex(r"[a-zA-Z0-9é ,;]{1,9}\.jpg", fullmatch=True)))
def test_a_list_comes_back_line_by_line(names):
    lines = "".join(name + "\n" for name in names)
    assert list(map(str, expand("-", stdin=lines))) == names


def test_what_is_not_allowed(folder):
    (folder / "none").mkdir()
    with pytest.raises(UsageError, match="no photographs were given"):
        expand_inputs([], [])
    with pytest.raises(UsageError, match="twice"):
        expand_inputs(["-", "-"], [])
    with pytest.raises(DataError, match=r"none holds no images \(\.bmp"):
        expand_inputs([folder / "b.jpg", folder / "none"], [])
