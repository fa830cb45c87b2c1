import os

import pytest

from ramstrans.errors import OutputError
from ramstrans.evaluation.files import write_whole


def test_replaces_a_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "report.json"
    write_whole(path, b"old")
    write_whole(path, b"wren")
    assert path.read_bytes() == b"wren"
    assert list(path.parent.iterdir()) == [path]


def test_failed_rename_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["file/report.json", "file/deeper/report.json"])
def test_file_where_the_folder_should_be_is_an_output_error(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_whole(tmp_path / name, b"wren")
