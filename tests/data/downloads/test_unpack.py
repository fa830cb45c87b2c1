import errno
import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.downloads import unpack as unpacking
from ramstrans.data.downloads.unpack import (
    LIMITS,
    SUFFIXES,
    Limits,
    check_new,
    is_archive,
    new_folder,
    unpack,
)
from ramstrans.errors import DataError, OutputError

FILES = {"birds/wren/a b.jpg": b"wren" * 251, "birds/crow/1.jpg": b"", "birds/list.txt": b"1 wren\n"}
TARS = (".tar", ".tar.gz", ".tgz")


def header(name, kind=tarfile.REGTYPE, content=b"", target="", **changes):
    """A member of a tar file, and its content."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(content), target, 0o644
    for key, value in changes.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


def write_tar(path, *members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, content)
    return path


def write(path, files=None):
    """An archive of a few files, of the kind that its name says."""
    files = FILES if files is None else files
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, content in files.items():
                bundle.writestr(name, content)
        return path
    members = [header(name, content=content) for name, content in files.items()]
    return write_tar(path, *members, mode="w" if path.suffix.lower() == ".tar" else "w:gz")


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def folder(tmp_path):
    """Where to unpack: what is written beside it can be seen."""
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def refused(tmp_path, folder):
    """Unpacks what must be refused: the message. Nothing lies outside of the folder."""

    def refused(archive, limits=LIMITS):
        with pytest.raises(DataError) as caught:
            unpack(archive, folder, limits)
        message = str(caught.value)
        assert message.startswith(str(archive))
        assert "\n" not in message
        assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)} == {
            archive,
            folder.parent,
        }
        return message

    return refused


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


# What they are not

BAD_NAMES = [
    "/etc/cron",
    "../stolen",
    "a/../../stolen",
    "a/..",
    "..",
    "C:/stolen",
    "C:stolen",
    "//host/share/x",
]
BAD_NAMES += ["..\\stolen", "a\\b", "\\stolen"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", BAD_NAMES)
def test_paths_out_of_the_folder(tmp_path, folder, refused, suffix, name):
    message = refused(write(tmp_path / f"a{suffix}", {name: b"x"}))
    assert f"the path {name!r}" in message
    assert files_in(folder) == {}


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_the_same_of_folders_and_links(tmp_path, refused, kind):
    assert "'..'" in refused(write_tar(tmp_path / "a.tar", header("../stolen", kind, target="x")))


def test_a_zero_byte_in_a_name_of_a_zip_file(tmp_path, refused):
    archive = write(tmp_path / "a.zip", {"a#/../x": b""})
    archive.write_bytes(archive.read_bytes().replace(b"a#/../x", b"a\0/../x"))
    assert "'..'" in refused(archive)


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../outside", "..", "../..", "a/../../outside", "nowhere", "link", "", "C:x"]
)
def test_links_that_lead_nowhere_inside(tmp_path, refused, target):
    archive = write_tar(
        tmp_path / "a.tar", header("a/x", content=b"x"), header("link", tarfile.SYMTYPE, target=target)
    )
    assert f"the link 'link' leads to {target!r}" in refused(archive)


def test_links_that_lead_out_only_together(tmp_path, refused):
    """Each alone looks as if it stayed inside: `a/b/c` is the folder itself, whose parent is outside."""
    archive = write_tar(
        tmp_path / "a.tar",
        header("a/b/x", content=b"x"),
        header("a/b/c", tarfile.SYMTYPE, target="../.."),
        header("out", tarfile.SYMTYPE, target="a/b/c/.."),
    )
    assert "the link 'out' leads to" in refused(archive)


def test_nothing_is_written_through_a_link(tmp_path, folder, refused):
    elsewhere = tmp_path / "outer" / "inner" / "real"
    for name in ("link/x", "link/deep/x"):
        for member in (header(name, content=b"x"), header(name, tarfile.DIRTYPE)):
            archive = write_tar(
                tmp_path / "a.tar",
                header("real", tarfile.DIRTYPE),
                header("link", tarfile.SYMTYPE, target="real"),
                member,
            )
            assert "leads through a link or a file" in refused(archive)
            assert list(elsewhere.iterdir()) == []
            (folder / "link").unlink()


def test_a_link_of_an_earlier_archive_is_no_way_either(tmp_path, folder):
    unpack(write_tar(tmp_path / "a.tar", header("link", tarfile.SYMTYPE, target=".")), folder)
    with pytest.raises(DataError, match="leads through a link or a file"):
        unpack(write(tmp_path / "b.zip", {"link/x": b"x"}), folder)


def test_hard_links_to_anything_but_a_file_of_the_archive(tmp_path, folder, refused):
    outside = folder.parent / "outside"
    for target in ("../outside", str(outside), "nowhere", "folder", "link", "again", "", "."):
        archive = write_tar(
            tmp_path / "a.tar",
            header("folder", tarfile.DIRTYPE),
            header("link", tarfile.SYMTYPE, target="../outside"),
            header("again", tarfile.LNKTYPE, target=target),
        )
        assert target in refused(archive)
        (folder / "link").unlink(missing_ok=True)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_devices(tmp_path, folder, refused, kind):
    archive = write_tar(tmp_path / "a.tar", header("dev", kind))
    assert "'dev' is a device, a pipe, or of an unknown kind" in refused(archive)
    assert not os.path.lexists(folder / "dev")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_of_a_zip_file(tmp_path, refused, kind):
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr(info, "/etc/passwd")
    assert "'link' is a link, device or pipe" in refused(tmp_path / "a.zip")


def test_encrypted_and_oddly_packed_zip_files(tmp_path, refused):
    archive = write(tmp_path / "a.zip", {"a": b"x"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert "'a' is encrypted" in refused(archive)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as bundle:
        bundle.writestr("a", b"x")
    assert "'a' is packed by another method" in refused(archive)


def test_a_file_where_a_folder_is(tmp_path, folder, refused):
    for members in (("a/b", "a"), ("a", "a/b"), ("a/b/c", "a/b"), (".",), ("./",)):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        archive = write_tar(tmp_path / "a.tar", *(header(name, content=b"x") for name in members))
        message = refused(archive)
        assert "both a folder and none" in message or "through a link or a file" in message


# Bombs


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_members_than_allowed(tmp_path, folder, refused, suffix):
    archive = write(tmp_path / f"a{suffix}", {str(i): b"" for i in range(5)})
    assert "more than 4 members" in refused(archive, Limits(num_members=4))
    assert unpack(archive, folder, Limits(num_members=5)) == 5


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_bytes_than_allowed(tmp_path, folder, refused, suffix):
    archive = write(tmp_path / f"a{suffix}", {"a": b"x" * 60, "b": b"x" * 41})
    assert "more than 100 bytes" in refused(archive, Limits(num_bytes=100))
    assert set(files_in(folder)) == {"a"}
    assert unpack(archive, folder, Limits(num_bytes=101)) == 2


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_a_bomb(tmp_path, folder, refused, monkeypatch, suffix):
    monkeypatch.setattr(unpacking, "_FREE_BYTES", 1000)
    archive = write(tmp_path / f"a{suffix}", {"a": bytes(2**20)})
    ratio = 2**20 / archive.stat().st_size
    assert "more than 100 times its size" in refused(archive, Limits(ratio=100))
    assert sum(map(len, files_in(folder).values())) < 2**20
    assert unpack(archive, folder, Limits(ratio=2 * ratio)) == 1


def test_members_that_share_their_packed_bytes(tmp_path, folder, refused, monkeypatch):
    """A zip file whose list names one member many times: each is honest, together they are a bomb."""
    monkeypatch.setattr(unpacking, "_FREE_BYTES", 1000)
    archive = write(tmp_path / "a.zip", {"a": bytes(20_000)})
    with zipfile.ZipFile(archive, "a") as bundle:
        bundle.filelist += bundle.filelist * 999
        bundle._didModify = True
    assert "more than 100 times its size" in refused(archive)
    assert files_in(folder) == {}


def test_a_header_that_would_fill_the_memory(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(unpacking, "_HEADER_BYTES", 2**20)
    info, content = header("a", content=b"x")
    info.pax_headers = {"comment": "x" * 2**21}
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, content)
    assert f"a header of more than {2**20} bytes" in refused(archive)


def test_a_sparse_file(tmp_path, refused):
    info, content = header("a", content=b"x")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "1"}
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, content)
    assert "'a' is a sparse file" in refused(archive)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_path_too_deep_to_be_removed_again(tmp_path, folder, refused, suffix):
    deepest = "a/" * (unpacking._MAX_DEPTH - 1) + "b"
    assert unpack(write(tmp_path / f"a{suffix}", {deepest: b"x"}), folder) == 1
    assert files_in(folder) == {deepest: b"x"}
    for depth in (unpacking._MAX_DEPTH, 1500):
        assert "... is more than 64 folders deep" in refused(
            write(tmp_path / f"a{suffix}", {"a/" * depth + "b": b"x"})
        )


def test_a_name_too_long_for_the_disk(tmp_path, folder):
    with pytest.raises(OutputError, match="inner cannot be written: File name too long"):
        unpack(write(tmp_path / "a.zip", {"a" * 5000: b"x"}), folder)


# Damage


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_archive(tmp_path, folder, refused, suffix):
    archive = write(tmp_path / f"a{suffix}")
    whole = archive.read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512 if suffix == ".tar" else len(whole) - 1
    assert end < len(whole)
    for length in (0, 1, 100, end // 2, end - 1, end):
        archive.write_bytes(whole[:length])
        assert "is damaged" in refused(archive), length


def test_a_damaged_header_is_not_the_end(tmp_path, refused):
    archive = write_tar(tmp_path / "a.tar", header("a", content=b"x"), header("b", content=b"x"))
    content = bytearray(archive.read_bytes())
    content[1024] ^= 1
    archive.write_bytes(content)
    assert "is damaged" in refused(archive)


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_content_that_has_another_checksum(tmp_path, refused, suffix):
    archive = write(tmp_path / f"a{suffix}")
    content = bytearray(archive.read_bytes())
    if suffix == ".zip":
        content[14] ^= 1
        second = content.index(b"PK\x01\x02") + 16
        content[second] ^= 1
    else:
        content[-8] ^= 1
    archive.write_bytes(content)
    assert "is damaged" in refused(archive)


def test_a_checksum_far_behind_the_last_member(tmp_path, folder, refused):
    content = gzip.compress(write(tmp_path / "a.tar").read_bytes() + bytes(2**20))
    (tmp_path / "a.tar").unlink()
    archive = tmp_path / "a.tgz"
    archive.write_bytes(content)
    assert unpack(archive, folder) == len(FILES)
    archive.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    assert "is damaged" in refused(archive)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_page_in_the_place_of_an_archive(tmp_path, refused, suffix):
    archive = tmp_path / f"a{suffix}"
    archive.write_bytes(b"<!DOCTYPE html><title>Please log in</title>" * 99)
    assert "is damaged" in refused(archive)
    archive.write_bytes(b"")
    assert "is damaged" in refused(archive)


def fuzzed(tmp_path_factory):
    for suffix in SUFFIXES:
        members = dict(FILES)
        yield write(tmp_path_factory.mktemp("fuzz") / f"a{suffix}", members)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """An archive of each kind, and what it holds."""
    found = {path: path.read_bytes() for path in fuzzed(tmp_path_factory)}
    links = tmp_path_factory.mktemp("fuzz") / "links.tar"
    write_tar(links, header("a", content=b"x"), header("b", tarfile.SYMTYPE, target="a"), *pax_members())
    return found | {links: links.read_bytes()}


def pax_members():
    yield header("é" * 99, content=b"pax")
    yield header("c", tarfile.LNKTYPE, target="a")


@given(data=st.data())
def test_any_damage_is_an_error_of_ours_and_stays_inside(archives, tmp_path_factory, data):
    path = data.draw(st.sampled_from(sorted(archives)))
    content = bytearray(archives[path])
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    outer = tmp_path_factory.mktemp("out")
    archive = outer / path.name
    archive.write_bytes(bytes(content))
    folder = outer / "folder"
    folder.mkdir()
    try:
        unpack(archive, folder, Limits(num_bytes=10_007, num_members=11))
    except (DataError, OutputError) as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert set(outer.iterdir()) == {archive, folder}


def test_negative_sizes(tmp_path, refused):
    info, _ = header("a", content=b"x")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = struct.pack(">Bxxxq", 0xFF, -512)  # base 256, as GNU writes what does not fit
    block[128:128] = b""
    block[125:128] = b"\xff\xff\xff"
    block[148:156] = b"        "
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    archive = tmp_path / "a.tar"
    archive.write_bytes(bytes(block) + bytes(10240))
    refused(archive)


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


def test_gzip_twice_is_no_tar(tmp_path, refused):
    archive = tmp_path / "a.tgz"
    archive.write_bytes(gzip.compress(write(tmp_path / "a.tgz").read_bytes()))
    assert "is damaged" in refused(archive)
