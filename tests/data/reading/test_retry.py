"""Reads that fail for a moment, by a file system that is told when to; counted, and never silent."""

import errno
import io
import os
import threading
import time
from contextvars import copy_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.reading import retry as reads
from ramstrans.data.reading.retry import (
    TRANSIENT,
    open_retrying,
    read_array,
    reopen,
    retry,
    retrying,
    with_timeout,
)
from ramstrans.errors import DataError

CONTENT = bytes(range(251)) * 1000  # of prime length, several buffers long
PATH = Path("photo.jpg")


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that would have been made."""
    made = []
    monkeypatch.setattr(reads.time, "sleep", made.append)
    return made


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(CONTENT)
    return path


def failing(*numbers, value="read"):
    """A read that fails with these errors, one a time, and then succeeds."""
    left = list(numbers)

    def read():
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number), "photo.jpg")
        return value

    return read


def test_a_read_is_tried_again_after_pauses_that_grow(pauses):
    with retrying(4) as given:
        assert retry(failing(errno.EIO, errno.ESTALE, errno.ETIMEDOUT), PATH) == "read"
    assert given.num_retries == 3
    assert pauses == pytest.approx([0.1, 0.4, 1.6])


def test_no_pause_is_longer_than_the_longest(pauses):
    with retrying(9):
        retry(failing(*[errno.EIO] * 9), PATH)
    assert pauses[4:] == pytest.approx([25.6, 30.0, 30.0, 30.0, 30.0])


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_what_fails_each_time_is_raised_and_says_how_often(pauses, retries):
    with retrying(retries) as given, pytest.raises(OSError, match="nput/output error") as caught:
        retry(failing(*[errno.EIO] * (retries + 1)), PATH)
    assert caught.value.errno == errno.EIO
    assert caught.value.filename == "photo.jpg"
    assert (f"{retries + 1} times in a row" in str(caught.value)) == (retries > 0)
    assert given.num_retries == len(pauses) == retries


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EMFILE, errno.ENOSPC])
def test_what_fails_for_good_is_not_tried_again(pauses, number):
    assert number not in TRANSIENT
    with retrying(4) as given, pytest.raises(OSError) as caught:  # noqa: PT011 - its number is checked
        retry(failing(number), PATH)
    assert caught.value.errno == number
    assert (given.num_retries, pauses) == (0, [])


def test_other_errors_are_not_tried_again(pauses):
    def read():
        raise ValueError("no file at all")

    with retrying(4), pytest.raises(ValueError, match="no file at all"):
        retry(read, PATH)
    assert pauses == []


def test_from_the_second_time_on_another_way_is_taken(pauses):
    with retrying(1):
        assert retry(failing(errno.ESTALE), PATH, again=lambda: "anew") == "anew"
        assert retry(failing(), PATH, again=lambda: "anew") == "read"


def test_where_nobody_counts_it_is_warned_of(pauses):
    with pytest.warns(UserWarning, match=r"tried again.*photo\.jpg"):
        retry(failing(errno.EIO), PATH)


def test_patience_is_of_one_thread_and_ends(pauses):
    seen = []
    with retrying(1) as outer:
        with retrying(2) as inner:
            retry(failing(errno.EIO, errno.EIO), PATH)
        retry(failing(errno.EIO), PATH)
        thread = threading.Thread(target=lambda: seen.append(reads._patience.get()))
        thread.start()
        thread.join()
    assert (outer.num_retries, inner.num_retries) == (1, 2)
    assert seen == [None]
    assert reads._patience.get() is None


@given(st.lists(st.tuples(st.integers(0, len(CONTENT)), st.integers(0, 999)), max_size=9))
def test_a_steady_file_reads_as_any_other(tmp_path_factory, places):
    path = tmp_path_factory.getbasetemp() / "steady.bin"
    path.write_bytes(CONTENT)
    with open_retrying(path) as steady, io.BytesIO(CONTENT) as twin:
        for place, size in places:
            assert steady.seek(place) == twin.seek(place)
            assert steady.read(size) == twin.read(size)
            assert steady.tell() == twin.tell()
        steady.seek(0)
        assert steady.read() == CONTENT


class Flaky(io.FileIO):
    """A file whose reads fail, every second time, with a half-filled buffer and a moved place."""

    calls = 0

    def readinto(self, buffer):
        Flaky.calls += 1
        if Flaky.calls % 2:
            super().readinto(memoryview(buffer)[:7])
            raise OSError(errno.ESTALE, "Stale file handle")
        return super().readinto(buffer)


def test_a_steady_file_goes_on_where_it_stood(file, pauses, monkeypatch):
    opened = []

    def open_flaky(path, mode, buffering):
        opened.append(path)
        return Flaky(path, mode)

    monkeypatch.setattr(Path, "open", open_flaky)
    with retrying(1) as given, open_retrying(file) as stream:
        assert stream.read(1000) == CONTENT[:1000]
        stream.seek(100_003)
        assert stream.read(70_001) == CONTENT[100_003:170_004]
        stream.seek(0)
        assert stream.read() == CONTENT
    assert given.num_retries == len(pauses) > 3
    assert opened == [file]


def test_a_file_that_cannot_be_opened_at_once(file, pauses, monkeypatch):
    opener, attempts = Path.open, []

    def late(path, *mode, **options):
        attempts.append(path)
        if len(attempts) < 3:
            raise OSError(errno.ETIMEDOUT, "Connection timed out", str(path))
        return opener(path, *mode, **options)

    monkeypatch.setattr(Path, "open", late)
    with retrying(2) as given, open_retrying(file) as stream:
        assert stream.read(5) == CONTENT[:5]
    assert given.num_retries == 2


def test_a_missing_file_is_missing_at_once(tmp_path, pauses):
    with pytest.raises(FileNotFoundError):
        open_retrying(tmp_path / "gone.jpg")
    assert pauses == []


def test_a_file_is_closed_with_its_buffer(file):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    stream = open_retrying(file)
    stream.read(1)
    stream.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_descriptor_is_opened_anew(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"crow")
    second.write_bytes(b"wren")
    with first.open("rb", buffering=0) as file:
        reopen(second, file.fileno())
        assert file.read() == b"wren"
        assert not os.get_inheritable(file.fileno())


@pytest.mark.parametrize("content", [b"", CONTENT])
def test_an_array_of_a_file_may_be_written_to(tmp_path, content):
    (tmp_path / "kept").write_bytes(content)
    array = read_array(tmp_path / "kept")
    assert array.dtype == np.uint8
    assert array.tobytes() == content
    array[:1] = 3


def test_what_is_read_in_time_is_given_and_its_errors_too(file):
    with retrying(1) as given:
        assert with_timeout(lambda: retry(failing(), PATH), given, 5.0) == "read"
        with pytest.raises(KeyError, match="wren"):
            with_timeout(lambda: {}["wren"], given, 5.0)
        with pytest.raises(TimeoutError):  # one that the read itself raised
            with_timeout(lambda: retry(failing(errno.ETIMEDOUT, errno.ETIMEDOUT), PATH), given, 5.0)
    assert given.num_retries == 1  # the thread had the patience of this one


@pytest.mark.parametrize("seconds", [0, 2.0])
def test_many_reads_may_take_longer_than_one(seconds):
    def read():
        for _ in range(6):
            retry(lambda: time.sleep(0.5), PATH)
        return "all"

    with retrying(0) as given:
        assert with_timeout(read, given, seconds) == "all"
        assert given.longest() == (0, Path())


def test_of_several_reads_the_one_that_hangs_is_named():
    release = threading.Event()

    def read():
        hanging = threading.Thread(target=copy_context().run, args=(retry, release.wait, Path("hangs.txt")))
        hanging.start()
        while not release.is_set():
            retry(lambda: time.sleep(0.01), PATH)

    with retrying(0) as given, pytest.raises(DataError, match=r"hangs\.txt: timed out after 0\.5 seconds"):
        with_timeout(read, given, 0.5)
    release.set()
