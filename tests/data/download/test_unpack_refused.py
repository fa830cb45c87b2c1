import gzip
import os
import stat
import struct
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.download import unpack as unpacking
from ramstrans.data.download.unpack import SUFFIXES, Limits, unpack
from ramstrans.errors import DataError, OutputError
from tests.data.download.archives import FILES, header, write, write_tar
from tests.data.web import files_in

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


@given(
    which=st.integers(0, len(SUFFIXES)),
    damage=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_any_damage_is_an_error_of_ours_and_stays_inside(archives, tmp_path_factory, which, damage):
    path = sorted(archives)[which]
    content = bytearray(archives[path])
    for place, value in damage:
        content[place % len(content)] = value
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
    assert "a.tar" in refused(archive)


def test_gzip_twice_is_no_tar(tmp_path, refused):
    archive = tmp_path / "a.tgz"
    archive.write_bytes(gzip.compress(write(tmp_path / "a.tgz").read_bytes()))
    assert "is damaged" in refused(archive)
