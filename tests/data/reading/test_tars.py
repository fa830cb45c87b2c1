"""Members are those that tarfile finds; errors name the tar and the member."""

import os
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.preprocessing import Reading
from ramstrans.data.reading import tars
from ramstrans.data.reading.cache import DiskCache
from ramstrans.data.reading.decode import open_file
from ramstrans.data.reading.resize import read_resized
from ramstrans.data.reading.tars import Entry, TarIndex, entries_of, file_status, find_member
from ramstrans.errors import DataError, UnreadableImageError
from tests.data.builders import decode_image, flip_byte, jpeg, make_tar

FILES = (
    ("a.jpg", b"crow"),
    ("b/c d.jpg", b"w" * 512),
    ("b/empty.jpg", b""),
    ("./dotted.jpg", b"owl" * 999),
    ("/rooted.jpg", b"tit"),
    ("ünï.jpg", b"umlauts"),
    ("long/" * 30 + "name.jpg", b"long"),
)
PLAIN = {name.removeprefix("./").lstrip("/"): content for name, content in FILES}


@pytest.fixture(params=[tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def tar(tmp_path, request):
    return make_tar(tmp_path / "set.tar", FILES, request.param)


def read(path):
    return find_member(path).read()


def test_members_are_what_was_put_in(tar):
    assert {name: read(tar / name) for name in PLAIN} == PLAIN
    assert {name: find_member(tar / name).size() for name in PLAIN} == {
        name: len(content) for name, content in PLAIN.items()
    }
    assert [entry.name for entry in entries_of(tar)] == list(PLAIN)


def test_only_files_are_members(tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name, kind in (
            ("folder", tarfile.DIRTYPE),
            ("link.jpg", tarfile.SYMTYPE),
            ("pipe", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
    assert list(entries_of(tmp_path / "set.tar")) == []
    with pytest.raises(UnreadableImageError, match=r"link\.jpg: set\.tar holds no such file"):
        read(tmp_path / "set.tar" / "link.jpg")


def test_of_two_with_one_name_the_last_counts_as_for_tar(tmp_path):
    tar = make_tar(tmp_path / "set.tar", [("a.jpg", b"old"), ("b.jpg", b"other"), ("a.jpg", b"newer")])
    assert read(tar / "a.jpg") == b"newer"


@given(
    names=st.sets(
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1)
    ),
    asked=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
)
def test_an_index_is_a_dict(names, asked):
    entries = {name: Entry(name, 512 * index, index + 1) for index, name in enumerate(names)}
    index = TarIndex.of(reversed(entries.values()))
    for name in {*names, asked}:
        assert index.find(name) == entries.get(name)


def test_plain_files_and_folders_called_tar(tmp_path):
    folder = tmp_path / "folder.tar"
    inner = make_tar(folder / "set.tar", FILES)
    (folder / "photo.jpg").write_bytes(jpeg())
    assert find_member(folder / "photo.jpg") is None
    assert find_member(tmp_path / "photo.jpg") is None
    assert find_member(inner) is None
    assert file_status(folder / "photo.jpg").st_size == len(jpeg())
    member = find_member(inner / "b" / "c d.jpg")
    assert (member.tar, member.name) == (inner, "b/c d.jpg")
    assert file_status(inner / "b" / "c d.jpg") == inner.stat()


def test_decoding_gives_the_same_from_a_tar(tmp_path):
    files = {"a.jpg": jpeg(3), "b.png": jpeg(5, kind="PNG")}
    tar = make_tar(tmp_path / "set.tar", files.items())
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        inside, outside = tar / name, tmp_path / name
        assert open_file(inside).read() == content
        assert np.array_equal(np.asarray(decode_image(inside)), np.asarray(decode_image(outside)))
        assert read_resized(inside, Reading(23)).pixels.equal(read_resized(outside, Reading(23)).pixels)


def test_a_cache_keeps_members_until_their_tar_changes(tmp_path, monkeypatch):
    from ramstrans.data.reading import cache as caching

    decoded, read_one = [], caching.read_resized
    monkeypatch.setattr(
        caching,
        "read_resized",
        lambda path, *args, **options: decoded.append(path) or read_one(path, *args, **options),
    )
    tar, cache = (
        make_tar(tmp_path / "set.tar", [("a.jpg", jpeg(0)), ("b.jpg", jpeg(1))]),
        DiskCache(tmp_path / "c"),
    )
    for _ in range(2):
        for name in ("a.jpg", "b.jpg"):
            assert cache.read(tar / name, Reading(23)).pixels.equal(
                read_resized(tar / name, Reading(23)).pixels
            )
    assert decoded == [tar / "a.jpg", tar / "b.jpg"]
    before = tar.stat()
    make_tar(tar, [("b.jpg", jpeg(1)), ("a.jpg", jpeg(2))])
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert cache.read(tar / "a.jpg", Reading(23)).pixels.equal(
        read_resized(tar / "a.jpg", Reading(23)).pixels
    )
    assert len(decoded) == 3
    shutil.rmtree(tmp_path / "c")
    with pytest.raises(UnreadableImageError, match="holds no such file"):
        cache.read(tar / "c.jpg", Reading(23))


def test_a_replaced_tar_is_indexed_again(tmp_path):
    tar = make_tar(tmp_path / "set.tar", [("a.jpg", b"old"), ("b.jpg", b"other")])
    assert read(tar / "a.jpg") == b"old"
    make_tar(tmp_path / "new.tar", [("b.jpg", b"more"), ("a.jpg", b"new")]).replace(tar)
    assert (read(tar / "a.jpg"), read(tar / "b.jpg")) == (b"new", b"more")


def test_threads_read_side_by_side(tmp_path):
    contents = {(t, m): bytes([t, m]) * (997 * m + 1) for t in range(5) for m in range(7)}
    for t in range(5):
        make_tar(tmp_path / f"{t}.tar", [(f"{m}.jpg", contents[t, m]) for m in range(7)])
    asked = list(contents) * 20
    np.random.default_rng(0).shuffle(asked)
    with ThreadPoolExecutor(7) as executor:
        found = list(executor.map(lambda key: read(tmp_path / f"{key[0]}.tar" / f"{key[1]}.jpg"), asked))
    assert found == [contents[tuple(key)] for key in asked]


def test_what_is_missing_is_named(tar):
    for path, reason in (
        (tar.with_name("other.tar") / "a.jpg", r"other\.tar/a\.jpg: there is no tar other\.tar"),
        (tar / "z.jpg", r"set\.tar/z\.jpg: set\.tar holds no such file"),
        (tar / "b" / "empty.jpg", r"set\.tar/b/empty\.jpg: empty file"),
        (tar / "b", r"set\.tar/b: set\.tar holds no such file"),
    ):
        with pytest.raises(UnreadableImageError, match=reason) as caught:
            decode_image(path)
        assert caught.value.path == path


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        decode_image(tmp_path / "pipe.tar" / "a.jpg")


def test_every_cut_is_seen(tmp_path):
    whole = make_tar(tmp_path / "set.tar", [("a.jpg", b"crow" * 200), ("b.jpg", b"wren" * 300)]).read_bytes()
    end = 512 + 1024 + 512 + 1536  # of two headers and two contents; the mark of the end follows
    assert whole[end:] == bytes(len(whole) - end)
    for cut in [*range(0, end + 512, 128), 1, 511, 513, end - 1, end + 511]:
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"cut\.tar is not a complete, uncompressed tar"):
            list(entries_of(tmp_path / "cut.tar"))
    (tmp_path / "cut.tar").write_bytes(whole[: end + 512])
    assert len(list(entries_of(tmp_path / "cut.tar"))) == 2


@pytest.mark.parametrize("place", [0, 100, 148, 1536, 1700])
def test_a_damaged_header_is_seen(tmp_path, place):
    tar = make_tar(tmp_path / "set.tar", [("a.jpg", b"crow" * 200), ("b.jpg", b"wren" * 300)])
    flip_byte(tar, place)
    with pytest.raises(UnreadableImageError, match=r"b\.jpg: its tar cannot be used .*not a complete"):
        read(tar / "b.jpg")


@pytest.mark.parametrize("content", [b"", b"something else" * 99, b"\x1f\x8b" + bytes(2000)])
def test_what_is_not_a_tar_is_refused(tmp_path, content):
    (tmp_path / "set.tar").write_bytes(content)
    with pytest.raises(
        UnreadableImageError,
        match=r"a\.jpg: its tar cannot be used .*set\.tar is not a complete",
    ):
        decode_image(tmp_path / "set.tar" / "a.jpg")


def test_a_compressed_tar_is_refused(tmp_path):
    make_tar(tmp_path / "set.tar", FILES)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.add(tmp_path / "set.tar", "a.jpg")
    with pytest.raises(DataError, match="not a complete, uncompressed tar"):
        list(entries_of(tmp_path / "packed.tar"))


def test_an_endless_file_of_nothing_is_an_empty_tar(tmp_path):
    (tmp_path / "set.tar").write_bytes(bytes(10240))
    with pytest.raises(UnreadableImageError, match="holds no such file"):
        decode_image(tmp_path / "set.tar" / "a.jpg")


def test_transient_errors_are_retried(tmp_path, monkeypatch, opening_fails, caplog):
    tar = make_tar(tmp_path / "set.tar", [("a.jpg", jpeg())])
    assert decode_image(tar / "a.jpg").size == (61, 47)
    failed = opening_fails()
    assert decode_image(tar / "a.jpg").size == (61, 47)
    assert failed == [tar]
    assert f"{tar / 'a.jpg'}: Input/output error; retry 1" in caplog.text


def test_predictions_beside_a_tar_are_no_list(tmp_path):
    tar = make_tar(tmp_path / "birds.tar", FILES)
    (tmp_path / "birds.jsonl").write_text('{"path": "birds.tar/a.jpg", "label_1": "crow"}\n')
    assert read(tar / "a.jpg") == b"crow"


def test_threads_index_a_tar_once(tmp_path, monkeypatch):
    tar, passes = make_tar(tmp_path / "set.tar", FILES), []
    monkeypatch.setattr(
        tars, "entries_of", lambda path: passes.append(path) or iter([Entry("a.jpg", 512, 4)])
    )
    with ThreadPoolExecutor(7) as executor:
        assert set(executor.map(read, [tar / "a.jpg"] * 40)) == {b"crow"}
    assert passes == [tar]
