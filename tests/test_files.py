import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from ramstrans.errors import OutputError
from ramstrans.files import (
    check_new_folder,
    check_output,
    check_output_folder,
    check_outputs,
    check_room,
    new_file,
    new_folder,
    write_file,
)


def test_a_file_is_replaced_and_its_folders_are_created(tmp_path):
    path = tmp_path / "a" / "b" / "note.txt"
    for content in (b"wren", b"", b"crow" * 10_007):
        write_file(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "note.txt"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"note.txt cannot be written \(No space left on device\); give"):
        write_file(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["file/report.json", "file/deeper/report.json"])
def test_a_file_where_the_folder_should_be(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_file(tmp_path / name, b"wren")


def test_an_error_while_a_file_is_written_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "a.csv") as stream:
        stream.write(bytes(1 // 0))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_when_it_is_whole(tmp_path):
    root = tmp_path / "new" / "set"
    with new_folder(root) as draft:
        (draft / "a.txt").write_text("wren")
        assert not root.exists()
    assert [path.name for path in root.iterdir()] == ["a.txt"]
    assert list(root.parent.iterdir()) == [root]


def test_a_link_to_an_empty_folder_leads_there(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    with new_folder(tmp_path / "link") as draft:
        (draft / "a.txt").write_text("wren")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a.txt"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with new_folder(Path()) as draft:
        (draft / "b.txt").write_text("crow")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["b.txt"]


def test_an_error_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "set"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(OutputError, match="is not empty; give a new folder"):
        check_new_folder(tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        check_new_folder(tmp_path / "mine")
    with pytest.raises(OutputError, match="mount point"):
        check_new_folder(Path("/"))


def test_outputs_are_checked_before_work(tmp_path):
    path = tmp_path / "out.json"
    check_output(None)
    check_output(path, suffixes=(".json",))
    with pytest.raises(OutputError, match=r"must end in \.csv or \.tsv; rename it"):
        check_output(path, suffixes=(".csv", ".tsv"))
    with pytest.raises(OutputError, match="is a folder; give a file"):
        check_output(tmp_path)
    path.write_text("")
    with pytest.raises(OutputError, match="exists; give another, or --overwrite true"):
        check_output(path)
    check_output(path, overwrite=True)


def test_no_two_results_get_one_name_and_no_file_is_replaced_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_outputs((Path("a.png"), Path("b.png")))
    with pytest.raises(OutputError, match=r"a\.png would be written twice"):
        check_outputs((Path("a.png"), tmp_path / "a.png"))
    Path("a.json").write_text("a stranger's")
    with pytest.raises(OutputError, match=r"a\.json exists; give another, or --overwrite true"):
        check_outputs((Path("a.png"), Path("a.json")))
    check_outputs((Path("a.png"), Path("a.json")), overwrite=True)
    with pytest.raises(OutputError, match=r"a\.json is not a folder that you can write to"):
        check_outputs((Path("a.json/b.png"),))


def test_a_folder_is_replaced_only_if_it_is_of_the_same_kind(tmp_path):
    check_output_folder(None, "mark")
    check_output_folder(tmp_path / "new" / "deep", "mark")
    check_output_folder(tmp_path, "mark")  # empty
    (tmp_path / ".mark.0f.tmp").touch()  # another process is about to write it
    check_output_folder(tmp_path, "mark")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OutputError, match=r"--overwrite true to replace it, or rest"):
        check_output_folder(tmp_path, "mark", hint=", or rest")
    with pytest.raises(OutputError, match=r"has no mark, so it is not this command's"):
        check_output_folder(tmp_path, "mark", overwrite=True)
    (tmp_path / "mark").touch()
    check_output_folder(tmp_path, "mark", overwrite=True)


def test_a_full_disk_is_told_in_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=5_000_000))
    check_room(tmp_path / "new", 5_000_000, "weights")
    with pytest.raises(OutputError, match=r"has 5 MB left; weights take 7 MB: free some, or give a folder"):
        check_room(tmp_path / "new", 7_000_000, "weights")
