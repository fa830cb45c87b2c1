"""An entry is what decoding gives, to the bit, or it is rebuilt."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from ramstrans.data.preprocessing import Reading
from ramstrans.data.reading import cache as caching
from ramstrans.data.reading.cache import DiskCache, MemoryCache, default_cache_dir
from ramstrans.data.reading.resize import read_resized
from ramstrans.errors import OutputError, UnreadableImageError

READING = Reading(23)


def draw(path, seed=0, size=(61, 47)):
    """Save noise, uncompressed, so that files of one size have one length."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def path(tmp_path):
    return draw(tmp_path / "a.bmp")


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache")


@pytest.fixture
def decoded(monkeypatch):
    """Every (path, resize) that is decoded rather than found."""
    calls, read = [], caching.read_resized

    def noted(path, reading, **options):
        calls.append((path, reading.resize))
        return read(path, reading, **options)

    monkeypatch.setattr(caching, "read_resized", noted)
    return calls


def files_of(cache):
    return sorted(file for file in cache.folder.rglob("*") if file.is_file())


def assert_same(one, other):
    assert one.original_size == other.original_size
    assert isinstance(one.original_size, tuple)
    assert one.pixels.dtype == other.pixels.dtype == torch.uint8
    assert one.pixels.stride() == other.pixels.stride()
    assert torch.equal(one.pixels, other.pixels)


@pytest.mark.parametrize("name", ["a.bmp", "a.jpg", "a.png"])
@pytest.mark.parametrize("resize", [5, 23, 101, (17, 29), (29, 17)])
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_hit_is_a_miss_to_the_bit(tmp_path, cache, decoded, name, resize, kind):
    path = draw(tmp_path / name, size=(211, 101))
    cache = cache if kind == "disk" else MemoryCache()
    miss, hit = cache.read(path, Reading(resize)), cache.read(path, Reading(resize))
    assert decoded == [(path, resize)]
    assert_same(miss, hit)
    assert_same(hit, read_resized(path, Reading(resize)))


def test_other_caches_in_the_folder_find_it(path, cache, decoded):
    first = cache.read(path, READING)
    assert_same(DiskCache(cache.folder).read(path, READING), first)
    assert len(decoded) == 1
    assert len(files_of(cache)) == 1


def test_a_relative_path_is_the_same_file(path, cache, decoded, monkeypatch):
    monkeypatch.chdir(path.parent)
    cache.read(path, READING)
    cache.read(Path(path.name), READING)
    assert len(decoded) == 1


def test_an_entry_of_another_image_is_not_used(tmp_path, path, cache, decoded):
    cache.read(path, READING)
    (first,) = files_of(cache)
    other = draw(tmp_path / "b.bmp", seed=1)
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    cache.read(other, READING)
    (second,) = set(files_of(cache)) - {first}
    shutil.copyfile(first, second)
    assert_same(cache.read(other, READING), read_resized(other, READING))
    assert len(decoded) == 3


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_resizes_do_not_push_each_other_out(path, cache, decoded, kind):
    cache = cache if kind == "disk" else MemoryCache()
    resizes = [23, 29, (23, 29), (29, 23)]
    for resize in resizes * 2:
        reading = Reading(resize)
        assert cache.read(path, reading).pixels.shape == read_resized(path, reading).pixels.shape
    assert decoded == [(path, resize) for resize in resizes]


def test_images_that_differ_only_in_their_path_are_two(tmp_path, path, cache):
    other = draw(tmp_path / "b.bmp", seed=1)
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    cache.read(path, READING)
    assert_same(cache.read(other, READING), read_resized(other, READING))


def test_a_changed_date_is_enough(path, cache, decoded):
    cache.read(path, READING)
    before = path.stat()
    draw(path, seed=1)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    if path.stat().st_mtime_ns == before.st_mtime_ns:
        pytest.skip("dates are not kept to the nanosecond here")
    assert_same(cache.read(path, READING), read_resized(path, READING))
    assert len(decoded) == 2
    assert len(files_of(cache)) == 1  # it replaced the old one


def test_a_changed_size_is_enough(path, cache, decoded):
    cache.read(path, READING)
    before = path.stat()
    draw(path, seed=1, size=(61, 53))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_same(cache.read(path, READING), read_resized(path, READING))
    assert len(decoded) == 2


@pytest.mark.parametrize(
    ("owner", "name", "version"),
    [(caching, "DECODING_VERSION", -1), (caching.PIL, "__version__", "0"), (torch, "__version__", "99.0.0")],
)
def test_another_decoder_rebuilds_it(path, cache, decoded, monkeypatch, owner, name, version):
    cache.read(path, READING)
    monkeypatch.setattr(owner, name, version)
    for _ in range(2):
        cache.read(path, READING)
    assert len(decoded) == 2
    assert len(files_of(cache)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"\0" * 8,
        lambda _: b"longer" * 999,
        lambda whole: whole[:5],
        lambda whole: whole[:200],
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0",
        lambda whole: whole.replace(b"original_size", b"original_sise"),
        lambda _: save({"pixels": torch.zeros(3, 5, 3, dtype=torch.uint8)}),
        lambda _: save({"other": torch.zeros(3)}, {"key": "", "original_size": "[3, 5]"}),
    ],
)
def test_a_damaged_entry_is_logged_and_rebuilt(path, cache, decoded, caplog, damage):
    expected = cache.read(path, READING)
    (entry,) = files_of(cache)
    entry.write_bytes(damage(entry.read_bytes()))
    assert_same(cache.read(path, READING), expected)
    assert [f"{entry} is damaged" in message for message in caplog.messages] == [True]
    assert_same(cache.read(path, READING), expected)
    assert len(decoded) == 2


def test_a_change_of_the_pixels_does_not_reach_the_entry(path, cache):
    cache.read(path, READING)
    hit = cache.read(path, READING)
    before = hit.pixels.clone()
    hit.pixels.add_(1)
    assert torch.equal(cache.read(path, READING).pixels, before)


def test_a_folder_in_the_place_of_a_file_is_an_error(path, cache):
    cache.read(path, READING)
    (file,) = files_of(cache)
    file.unlink()
    file.mkdir()
    with pytest.raises(OutputError, match="cache_dir"):
        cache.read(path, READING)


def test_the_folder_may_be_deleted(path, cache, decoded):
    cache.read(path, READING)
    shutil.rmtree(cache.folder)
    assert_same(cache.read(path, READING), read_resized(path, READING))
    assert len(decoded) == 2
    assert len(files_of(cache)) == 1


def test_many_at_once_leave_one_whole_file(path, cache):
    expected = read_resized(path, READING)
    with ThreadPoolExecutor(7) as executor:
        for found in executor.map(lambda _: DiskCache(cache.folder).read(path, READING), range(31)):
            assert_same(found, expected)
    assert len(files_of(cache)) == 1


def test_a_full_disk_is_reported(path, cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"No space left on device.*--data\.cache_dir") as caught:
        cache.read(path, READING)
    assert str(cache.folder) in str(caught.value)
    assert files_of(cache) == []


def test_a_folder_that_cannot_be_created_is_reported_at_once(path):
    with pytest.raises(OutputError, match=r"--data\.cache_dir"):
        DiskCache(path / "below a file")


def test_the_limit_of_pixels_holds_for_entries(path, cache):
    cache.read(path, READING)
    with pytest.raises(UnreadableImageError, match="61 x 47 pixels, over the limit"):
        cache.read(path, READING, max_pixels=61 * 47 - 1)
    cache.read(path, READING, max_pixels=61 * 47)


def test_what_cannot_be_decoded_is_not_kept(tmp_path, path, cache):
    path.write_bytes(path.read_bytes()[:999])
    for broken, reason in (
        (path, "truncated"),
        (tmp_path / "none.jpg", "no such file"),
        (tmp_path, "folder"),
    ):
        for _ in range(2):
            with pytest.raises(UnreadableImageError, match=reason) as caught:
                cache.read(broken, READING)
            assert caught.value.path == broken
    assert files_of(cache) == []


def test_an_image_that_is_gone_is_not_answered_from_the_cache(path, cache):
    cache.read(path, READING)
    path.unlink()
    with pytest.raises(UnreadableImageError, match="no such file"):
        cache.read(path, READING)


def test_the_default_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert default_cache_dir() == tmp_path / "caches" / "ramstrans" / "images"
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_cache_dir() == Path.home() / ".cache" / "ramstrans" / "images"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "ramstrans" / "images"
