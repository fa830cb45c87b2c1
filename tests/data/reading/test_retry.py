"""Transient errors are retried and logged; permanent ones are not."""

import errno
import logging
import os
from pathlib import Path

import pytest

from ramstrans.data.reading import retry as module
from ramstrans.data.reading.retry import PAUSES, TRANSIENT, open_retrying, retry

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
    assert retry(failing(errno.EIO, errno.ESTALE, errno.ETIMEDOUT), PATH) == "read"
    assert pauses == [0.1, 0.4, 1.6]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert caplog.messages[1] == "photo.jpg: Stale file handle; retry 2 of 4"


def test_the_last_of_too_many_errors_is_raised(pauses):
    with pytest.raises(OSError, match="nput/output error") as caught:
        retry(failing(*[errno.EIO] * 5), PATH)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "photo.jpg")
    assert pauses == list(PAUSES)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EMFILE, errno.ENOSPC])
def test_permanent_errors_are_not_retried(pauses, number):
    assert number not in TRANSIENT
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is checked
        retry(failing(number), PATH)
    assert caught.value.errno == number
    assert pauses == []


def test_a_file_is_opened_at_the_next_attempt(tmp_path, opening_fails):
    (tmp_path / "photo.jpg").write_bytes(b"wren")
    failed = opening_fails(2)
    with open_retrying(tmp_path / "photo.jpg") as stream:
        assert stream.read() == b"wren"
    assert failed == [tmp_path / "photo.jpg"] * 2
