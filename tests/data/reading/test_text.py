import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.reading.text import decode_text, read_paths

NAMES = st.lists(st.from_regex(r"[a-zA-Z0-9é鳥 ,;]{0,9}\.jpg", fullmatch=True))


class Trickle(io.RawIOBase):
    """A pipe that gives one byte at a time."""

    def __init__(self, content):
        self._rest = io.BytesIO(content)

    def read1(self, _size):
        return self._rest.read(1)

    def read(self, size=-1):
        return self._rest.read(size)


@given(
    names=NAMES,
    end=st.sampled_from(["\n", "\r\n", "\0"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    kind=st.sampled_from([io.BytesIO, Trickle]),
)
def test_lists_of_paths_in_any_encoding_with_any_end(names, end, encoding, kind):
    if encoding == "utf-16" and end == "\0":
        return
    content = "".join(name + end for name in names).encode(encoding)
    assert list(read_paths(kind(content))) == names


def test_the_last_path_needs_no_end_and_blank_lines_do_not_count():
    assert list(read_paths(io.BytesIO(b"\na b.jpg\r\n  \n c.jpg"))) == ["a b.jpg", " c.jpg"]
    assert list(read_paths(io.BytesIO(b"a\n.jpg\0b.jpg"))) == ["a\n.jpg", "b.jpg"]
    assert list(read_paths(io.BytesIO(b""))) == []


def test_bytes_of_names_stay_as_they_are():
    assert list(map(os.fsencode, read_paths(io.BytesIO(b"caf\xe9.jpg\n")))) == [b"caf\xe9.jpg"]


def test_paths_come_as_they_are_read():
    class Stopping(Trickle):
        def read1(self, size):
            part = super().read1(size)
            assert part, "read too far"
            return part

    assert next(read_paths(Stopping(b"one.jpg\ntwo"))) == "one.jpg"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_whole_texts(encoding, caplog):
    assert decode_text("Höckerschwan".encode(encoding), Path("birds.txt")) == "Höckerschwan"
    is_windows = encoding == "cp1252"
    assert caplog.messages == ["birds.txt is not UTF-8; it is read as Windows-1252"] * is_windows


def test_what_is_no_text():
    with pytest.raises(UnicodeDecodeError):
        decode_text(b"a\x81", Path("a.bin"))
