import errno
import os

import pytest

from ramstrans.files import replace_file


def test_a_file_is_replaced_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "note.txt"
    for content in (b"wren", b"", b"crow" * 10_007):
        replace_file(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "note.txt"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"
