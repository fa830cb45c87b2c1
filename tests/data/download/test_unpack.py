import errno
import stat
import tarfile
from pathlib import Path

import pytest

from ramstrans.data.download import unpack as unpacking
from ramstrans.data.download.unpack import SUFFIXES, check_new, is_archive, new_folder, unpack
from ramstrans.errors import DataError, OutputError
from tests.data.download.archives import FILES, header, write, write_tar
from tests.data.web import files_in

# What data sets are


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_is_unpacked(tmp_path, folder, suffix):
    archive = write(tmp_path / f"set{suffix.upper()}" if suffix == ".tar" else tmp_path / f"set{suffix}")
    calls = []
    assert unpack(archive, folder, progress=lambda done, total: calls.append((done, total))) == len(FILES)
    assert files_in(folder) == FILES
    size = archive.stat().st_size
    assert calls[-1] == (size, size)
    assert calls == sorted(calls)


def test_folders_and_files_that_come_twice(tmp_path, folder):
    archive = write_tar(
        tmp_path / "a.tar",
        header("./", tarfile.DIRTYPE),
        header("./a/", tarfile.DIRTYPE, mode=0),
        header("./a/", tarfile.DIRTYPE),
        header("./a/b", content=b"old"),
        header("a/b", content=b"new"),
    )
    assert unpack(archive, folder) == 5
    assert files_in(folder) == {"a/b": b"new"}


def test_a_second_archive_adds_to_the_first(tmp_path, folder):
    unpack(write(tmp_path / "a.tar"), folder)
    unpack(write(tmp_path / "b.zip", {"birds/list.txt": b"2", "birds/wren/c.jpg": b"c"}), folder)
    assert files_in(folder) == FILES | {"birds/list.txt": b"2", "birds/wren/c.jpg": b"c"}


def test_folders_of_a_zip_file(tmp_path, folder):
    assert unpack(write(tmp_path / "a.zip", {"a/": b"", "a/b/": b"", "c/d": b"d"}), folder) == 3
    assert (folder / "a" / "b").is_dir()
    assert files_in(folder) == {"c/d": b"d"}


def test_rights_are_not_taken_over(tmp_path, folder):
    unpack(write_tar(tmp_path / "a.tar", header("a", content=b"#!", mode=0o6777)), folder)
    assert not (folder / "a").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


def test_more_members_than_are_kept(tmp_path, folder, monkeypatch):
    kept, write_member = [], unpacking._write_member

    def counted(tar, *rest):
        kept.append(len(tar.members))
        write_member(tar, *rest)

    monkeypatch.setattr(unpacking, "_write_member", counted)
    members = [header(f"{i % 7}/{i}", content=b"x" * (i % 3)) for i in range(1009)]
    assert unpack(write_tar(tmp_path / "a.tgz", *members, mode="w:gz"), folder) == 1009
    assert len(files_in(folder)) == 1009
    assert max(kept) <= 1


def test_links_inside_are_kept(tmp_path, folder):
    archive = write_tar(
        tmp_path / "a.tar",
        header("links/to", tarfile.SYMTYPE, target="../a/file"),  # before what it leads to
        header("a/file", content=b"bird"),
        header("folder", tarfile.SYMTYPE, target="a"),
        header("again", tarfile.LNKTYPE, target="./a/file"),
    )
    assert unpack(archive, folder) == 4
    assert (folder / "links" / "to").read_bytes() == b"bird"
    assert (folder / "folder" / "file").read_bytes() == b"bird"
    assert (folder / "again").samefile(folder / "a" / "file")


def test_a_file_that_replaces_a_hard_link_leaves_the_other_name(tmp_path, folder):
    archive = write_tar(
        tmp_path / "a.tar",
        header("a", content=b"old"),
        header("b", tarfile.LNKTYPE, target="a"),
        header("b", content=b"new"),
    )
    unpack(archive, folder)
    assert files_in(folder) == {"a": b"old", "b": b"new"}


def test_a_file_that_replaces_a_link_does_not_go_through_it(tmp_path, folder):
    archive = write_tar(
        tmp_path / "a.tar",
        header("b", tarfile.SYMTYPE, target="../../stolen"),
        header("b", content=b"new"),
    )
    unpack(archive, folder)
    assert files_in(folder) == {"b": b"new"}
    assert not (tmp_path / "stolen").exists()


# The folder


def test_other_names_are_no_archives(tmp_path, folder):
    assert not is_archive("setid.mat")
    with pytest.raises(DataError, match=r"setid.mat is no archive .* \.tar \.tar\.gz \.tgz \.zip"):
        unpack(tmp_path / "setid.mat", folder)
    with pytest.raises(DataError, match=r"none.zip cannot be read: No such file"):
        unpack(tmp_path / "none.zip", folder)


@pytest.mark.parametrize("suffix", [".tgz", ".zip"])
def test_a_full_disk(tmp_path, folder, monkeypatch, suffix):
    archive, opened = write(tmp_path / f"a{suffix}"), Path.open

    def full(path, mode="r", *args, **options):
        if "x" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match=r"inner cannot be written: No space left on device; give another"):
        unpack(archive, folder)


def test_a_new_folder_appears_when_it_is_whole(tmp_path):
    root = tmp_path / "new" / "set"
    with new_folder(root) as partial:
        assert partial.parent == root.parent
        (partial / "a").write_text("x")
        assert not root.exists()
    assert files_in(tmp_path) == {"new/set/a": b"x"}


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    with new_folder(tmp_path / "set") as partial:
        (partial / "a").write_text("x")
    assert files_in(tmp_path) == {"set/a": b"x"}


def test_nothing_is_left_of_what_fails(tmp_path):
    def stopped():
        with new_folder(tmp_path / "set") as partial:
            (partial / "a").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_folders_that_hold_something(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    (root / "mine").write_text("keep")
    with pytest.raises(OutputError, match="set is not empty; give a new folder"), new_folder(root):
        pass
    with pytest.raises(OutputError, match="mine cannot be written: Not a directory"):
        check_new(root / "mine")
    with pytest.raises(OutputError, match="mine/set cannot be written"), new_folder(root / "mine" / "set"):
        pass
    assert files_in(tmp_path) == {"set/mine": b"keep"}


def test_a_mounted_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    with pytest.raises(OutputError, match="where a disk is mounted; give a new folder in it"):
        check_new(tmp_path)


def test_what_came_in_between_is_kept(tmp_path):
    root = tmp_path / "set"

    def overtaken():
        with new_folder(root):
            root.mkdir()
            (root / "mine").write_text("keep")

    with pytest.raises(OutputError, match="set cannot be written"):
        overtaken()
    assert files_in(tmp_path) == {"set/mine": b"keep"}
