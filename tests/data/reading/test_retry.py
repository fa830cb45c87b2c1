"""Transient errors are retried and logged; permanent ones are not."""

import errno
import logging
import os
import threading
from pathlib import Path

import pytest

from ramstrans.data.reading import retry as module
from ramstrans.data.reading.retry import TRANSIENT, current_reads, open_retrying, retry, retrying

PATH = Path("photo.jpg")


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that would have been made."""
    made = []
    monkeypatch.setattr(module.time, "sleep", made.append)
    return made


def failing(*numbers):
    """A read that fails with these errors, one per call, and then succeeds."""
    left = list(numbers)

    def read():
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number), "photo.jpg")
        return "read"

    return read


def test_a_read_is_retried_with_growing_pauses_and_each_retry_is_logged(pauses, caplog):
    with retrying(4):
        assert retry(failing(errno.EIO, errno.ESTALE, errno.ETIMEDOUT), PATH) == "read"
    assert pauses == pytest.approx([0.1, 0.4, 1.6])
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert caplog.messages[1] == "photo.jpg: Stale file handle; retry 2 of 4 in 0.4 s"


def test_no_pause_is_longer_than_the_longest(pauses):
    with retrying(9):
        retry(failing(*[errno.EIO] * 9), PATH)
    assert pauses[4:] == pytest.approx([25.6, 30.0, 30.0, 30.0, 30.0])


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_last_error_says_how_often_it_came(pauses, retries):
    with retrying(retries), pytest.raises(OSError, match="nput/output error") as caught:
        retry(failing(*[errno.EIO] * (retries + 1)), PATH)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "photo.jpg")
    assert (f"{retries + 1} times in a row" in str(caught.value)) == (retries > 0)
    assert len(pauses) == retries


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EMFILE, errno.ENOSPC])
def test_permanent_errors_are_not_retried(pauses, number):
    assert number not in TRANSIENT
    with retrying(4), pytest.raises(OSError) as caught:  # noqa: PT011 - its number is checked
        retry(failing(number), PATH)
    assert caught.value.errno == number
    assert pauses == []


def test_the_number_of_retries_is_of_one_block_and_one_thread(pauses):
    seen, outside = [], current_reads()
    with retrying(1):
        with retrying(2):
            retry(failing(errno.EIO, errno.EIO), PATH)
        with pytest.raises(OSError, match="2 times in a row"):
            retry(failing(errno.EIO, errno.EIO), PATH)
        thread = threading.Thread(target=lambda: seen.append(current_reads()))
        thread.start()
        thread.join()
    assert seen == [outside] == [current_reads()]


def test_a_file_is_opened_at_the_next_attempt(tmp_path, opening_fails):
    (tmp_path / "photo.jpg").write_bytes(b"wren")
    failed = opening_fails(2)
    with retrying(2) as reads, open_retrying(tmp_path / "photo.jpg") as stream:
        assert stream.read() == b"wren"
    assert failed == [tmp_path / "photo.jpg"] * 2
    assert reads.path == tmp_path / "photo.jpg"
