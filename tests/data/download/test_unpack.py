import contextlib
import errno
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.download.unpack import SUFFIXES, unpack
from ramstrans.errors import DataError, OutputError
from tests.data.web import files_in, tarred, zipped

FILES = {"birds/wren/a b.jpg": b"wren" * 251, "birds/crow/1.jpg": b"", "birds/list.txt": b"1 wren\n"}


def archived(suffix, files):
    """An archive of the kind that a suffix names."""
    return zipped(files) if suffix == ".zip" else tarred(files, "w" if suffix == ".tar" else "w:gz")


def member(name, kind=tarfile.REGTYPE, content=b"", target="", mode=0o644):
    """A member of a tar file, and its content."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(content), target, mode
    return info, io.BytesIO(content)


def write_tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            tar.addfile(info, content)
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def refused(tmp_path, folder):
    """Unpacks what must be refused: the message. Nothing is written outside the folder."""

    def refused(archive):
        with pytest.raises(DataError) as caught:
            unpack(archive, folder)
        message = str(caught.value)
        assert message.startswith(f"{archive} was not unpacked: ")
        assert "\n" not in message
        outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)}
        assert outside == {archive, folder.parent}
        return message

    return refused


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_is_unpacked(tmp_path, folder, suffix):
    archive, calls = tmp_path / f"set{suffix.upper()}", []
    archive.write_bytes(archived(suffix, FILES))
    unpack(archive, folder, lambda *call: calls.append(call))
    assert files_in(folder) == FILES
    assert {what for *_, what in calls} == {f"unpacking {archive.name}"}
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1]


def test_a_second_archive_adds_to_the_first(tmp_path, folder):
    for name, files in (
        ("a.tar", FILES),
        ("b.zip", {"birds/list.txt": b"2", "birds/c.jpg": b"c", "d/": b""}),
    ):
        (tmp_path / name).write_bytes(archived((tmp_path / name).suffix, files))
        unpack(tmp_path / name, folder)
    assert files_in(folder) == FILES | {"birds/list.txt": b"2", "birds/c.jpg": b"c"}
    assert (folder / "d").is_dir()


def test_links_inside_are_kept_and_special_rights_are_not(tmp_path, folder):
    archive = write_tar(
        tmp_path / "a.tar",
        member("./", tarfile.DIRTYPE),
        member("a/file", content=b"bird", mode=0o6777),
        member("links/to", tarfile.SYMTYPE, target="../a/file"),
        member("again", tarfile.LNKTYPE, target="a/file"),
    )
    unpack(archive, folder)
    assert (folder / "links" / "to").read_bytes() == b"bird"
    assert (folder / "again").samefile(folder / "a" / "file")
    assert not (folder / "a" / "file").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["/tmp/stolen", "../stolen", "a/../../stolen", "//host/x", "..\\stolen"])
def test_paths_out_of_the_folder_are_refused_or_lead_into_it(tmp_path, folder, suffix, name):
    archive = tmp_path / f"a{suffix}"
    archive.write_bytes(archived(suffix, {name: b"x"}))
    with contextlib.suppress(DataError):
        unpack(archive, folder)
    assert set(tmp_path.rglob("*")) - set(folder.rglob("*")) == {archive, folder.parent, folder}
    assert not Path("/tmp/stolen").exists()


def test_a_tar_that_names_a_file_outside(tmp_path, refused):
    assert "outside the destination" in refused(write_tar(tmp_path / "a.tar", member("../stolen")))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside"])
def test_links_out_of_the_folder(tmp_path, refused, kind, target):
    archive = write_tar(tmp_path / "a.tar", member("a/x", content=b"x"), member("link", kind, target=target))
    assert "link" in refused(archive)


@pytest.mark.parametrize("name", ["link/x", "link/deep/x"])
def test_nothing_is_written_through_a_link_to_the_outside(tmp_path, folder, refused, name):
    (folder / "link").symlink_to(folder.parent)
    assert "outside" in refused(write_tar(tmp_path / "a.tar", member(name, content=b"x")))


def test_devices(tmp_path, folder, refused):
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        assert "'dev' is a special file" in refused(write_tar(tmp_path / "a.tar", member("dev", kind)))
    assert list(folder.iterdir()) == []


def test_links_and_devices_of_a_zip_file_become_files(tmp_path, folder):
    for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO):
        info = zipfile.ZipInfo("link")
        info.external_attr = (kind | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
            bundle.writestr(info, "/etc/passwd")
        unpack(tmp_path / "a.zip", folder)
        assert stat.S_ISREG((folder / "link").lstat().st_mode)


def test_an_encrypted_zip_file(tmp_path, refused):
    content = bytearray(zipped({"a": b"x"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    assert "encrypted" in refused(tmp_path / "a.zip")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_archive_and_a_web_page(tmp_path, refused, suffix):
    whole = archived(suffix, FILES)
    archive = tmp_path / f"a{suffix}"
    end = 1024 if suffix == ".tar" else len(whole) - 1  # between two members, a tar file may end
    page = b"<!DOCTYPE html><title>Please log in</title>" * 99
    for content in (page, *(whole[:length] for length in (0, 1, 100, end // 2, end - 1))):
        archive.write_bytes(content)
        assert refused(archive).endswith("; remove it and download it again")


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_content_with_another_checksum(tmp_path, refused, suffix):
    content = bytearray(archived(suffix, FILES))
    content[content.index(b"PK\x01\x02") + 16 if suffix == ".zip" else -8] ^= 1
    archive = tmp_path / f"a{suffix}"
    archive.write_bytes(content)
    assert "CRC" in refused(archive)


def test_a_full_disk(tmp_path, folder, monkeypatch):
    (tmp_path / "a.tgz").write_bytes(tarred({"a": b"x" * 101}))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(OutputError, match=r"inner cannot be written \(No space left on device\)"):
        unpack(tmp_path / "a.tgz", folder)


def test_a_file_without_a_name_is_damage(tmp_path):
    """A name ends at a zero byte, so that damage can leave none."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr("?wren", b"feathers")
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"?wren", b"\0wren"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"a\.zip.*a file without a name"):
        unpack(tmp_path / "a.zip", tmp_path / "folder")


@given(
    suffix=st.sampled_from(SUFFIXES),
    damage=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_any_damage_is_one_line_and_stays_inside(tmp_path_factory, suffix, damage):
    content = bytearray(archived(suffix, FILES))
    for index, value in damage:
        content[index % len(content)] = value
    outer = tmp_path_factory.mktemp("out")
    archive, folder = outer / f"a{suffix}", outer / "folder"
    archive.write_bytes(bytes(content))
    folder.mkdir()
    try:
        unpack(archive, folder)
    except (DataError, OutputError) as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert set(outer.iterdir()) == {archive, folder}
