import io
import itertools
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading.text import read_paths
from ramstrans.errors import DataError, UnreadableImageError, UsageError
from ramstrans.inference.arguments import expand_inputs
from ramstrans.inference.inputs import read_ahead, read_input
from tests.inference.builders import draw


def expand(*arguments, stdin=""):
    return list(expand_inputs(arguments, read_paths(io.BytesIO(stdin.encode()))))


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
        yield "one.jpg"
        raise AssertionError("read too far")

    assert str(next(expand_inputs(["-"], lines()))) == "one.jpg"


@given(st.lists(st.from_regex(r"[a-zA-Z0-9é ,;]{1,9}\.jpg", fullmatch=True)))
def test_a_list_comes_back_line_by_line(names):
    lines = "".join(name + "\n" for name in names)
    assert list(map(str, expand("-", stdin=lines))) == names


def test_what_a_folder_holds_beside_images_is_counted_once(folder, caplog):
    for name in ("b/a.MOV", "a/c/b.mov", "a/raw.cr2"):
        (folder / name).touch()
    (folder / "a" / "loop").symlink_to(folder)
    expand(folder)
    assert caplog.messages == [f"{folder}: left out 2 .mov, 1 .cr2, 1 .txt, 1 link to a folder"]
    caplog.clear()
    expand(folder / "b.jpg")
    assert caplog.messages == []


def test_every_suffix_that_is_decoded_is_found(tmp_path):
    names = ["a.avif", "b.HEIC", "c.jfif", "d.pgm"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in expand(tmp_path)] == names


def test_what_is_not_allowed(folder):
    (folder / "none").mkdir()
    (folder / "none" / "a.mov").touch()
    with pytest.raises(UsageError, match="no images were given"):
        expand_inputs([], [])
    with pytest.raises(UsageError, match="twice"):
        expand_inputs(["-", "-"], [])
    with pytest.raises(DataError, match=r"none contains no images, only 1 \.mov; name a folder"):
        expand_inputs([folder / "b.jpg", folder / "none"], [])


def test_images_over_the_limit_are_refused(tmp_path):
    path = draw(tmp_path / "x.png", 31, 23)
    with Image.open(path) as in_memory:
        for image in (path, in_memory):
            assert read_input(image, Preprocessing((7, 5), (5, 5)), 31 * 23).original_size == (23, 31)
            with pytest.raises(UnreadableImageError, match="over the limit of 712"):
                read_input(image, Preprocessing((7, 5), (5, 5)), 31 * 23 - 1)


def test_what_a_decoder_raises_on_an_opened_image_is_its_error(tmp_path):
    with Image.open(draw(tmp_path / "x.png", 31, 23)) as image:
        image.load = lambda: (_ for _ in ()).throw(RuntimeError("planes failed"))
        with pytest.raises(UnreadableImageError, match=r"damaged image \(planes failed\)"):
            read_input(image, Preprocessing((7, 5), (5, 5)), 9999)


def test_images_are_read_ahead_in_order_and_errors_keep_their_position():
    taken = itertools.count()

    def read(name):
        if name == "2.png":
            raise UnreadableImageError(name, "empty file")
        return name

    images = read_ahead((f"{next(taken)}.png" for _ in iter(int, 1)), read, 3)
    assert [(str(path), example) for path, example in itertools.islice(images, 4)] == [
        ("0.png", "0.png"),
        ("1.png", "1.png"),
        ("2.png", "empty file"),
        ("3.png", "3.png"),
    ]
    assert next(taken) == 6
    images.close()


def test_a_file_that_hangs_is_named():
    released = threading.Event()

    def read(name):
        if name == "2.png":
            assert released.wait(60)
        return name

    images = read_ahead(["1.png", "2.png", "3.png"], read, 3, timeout=0.2)
    assert next(images) == (Path("1.png"), "1.png")
    with pytest.raises(DataError, match=r"2\.png was not read within 0\.2 seconds, the run's"):
        next(images)
    released.set()
