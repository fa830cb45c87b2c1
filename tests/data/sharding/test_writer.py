"""The same set gives the same bytes, all of them there, or nothing at all."""

import errno
import hashlib
import json
import shutil
import tarfile
from collections import namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.detect import MANIFEST
from ramstrans.data.sharding import writer as shard_writer
from ramstrans.data.sharding.manifest import read_shards
from ramstrans.data.sharding.writer import cut_into_runs, write_shards
from ramstrans.errors import DataError, OutputError, UnreadableImageError, UsageError
from tests.data.builders import jpeg, noise_set, noise_shards

Usage = namedtuple("Usage", "total used free")


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def members_of(tar):
    with tarfile.open(tar) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}


def test_what_lies_there(tmp_path):
    images, output = noise_shards(tmp_path)
    names = [
        f"{split}-{number:06d}" for split, count in (("test", 1), ("train", 3)) for number in range(count)
    ]
    assert sorted(contents_of(output)) == [
        MANIFEST,
        *(name + suffix for name in names for suffix in (".jsonl", ".tar")),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photographs", "shards"]
    members = {}
    for name in names:
        with tarfile.open(output / f"{name}.tar") as archive:
            order = archive.getnames()
            assert all((info.mtime, info.uid, info.uname, info.mode) == (0, 0, "", 0o644) for info in archive)
        assert order[1::2] == [name.replace(".jpg", ".json") for name in order[::2]]
        assert len(order) <= 10
        members |= members_of(output / f"{name}.tar")
    assert len(members) == 26
    for index, record in enumerate(images.records):
        assert members[f"{index:06d}.jpg"] == record.path.read_bytes()
    assert json.loads(members["000001.json"]) == {
        "label": 1,
        "class_name": "wren",
        "box": [0.1, 2.0, 41.0, 1 / 3 + 7],
        "parts": [["left eye", 11.0, 1 / 7]],
        "path": "photographs/bird 1.JPG",
    }
    assert json.loads(members["000003.json"]) == {
        "label": 1,
        "class_name": "wren",
        "path": "photographs/bird 3.JPG",
    }


def test_the_manifest_and_the_lists_say_what_is_there(tmp_path):
    _, output = noise_shards(tmp_path)
    manifest = json.loads((output / MANIFEST).read_text())
    assert (manifest["version"], manifest["class_names"]) == (1, ["crow", "wren"])
    assert manifest["hierarchy"] == [["Corvus"], ["Troglodytes"]]
    assert [(shard["file"], shard["split"], shard["num_images"]) for shard in manifest["shards"]] == [
        ("train-000000.tar", "train", 5),
        ("train-000001.tar", "train", 5),
        ("train-000002.tar", "train", 1),
        ("test-000000.tar", "test", 2),
    ]
    for shard in manifest["shards"]:
        tar = (output / shard["file"]).read_bytes()
        listed = (output / shard["file"]).with_suffix(".jsonl").read_bytes()
        assert (len(tar), hashlib.sha256(tar).hexdigest()) == (shard["num_bytes"], shard["sha256"])
        assert len(tar) % 10240 == 0
        assert hashlib.sha256(listed).hexdigest() == shard["list_sha256"]
        members = members_of(output / shard["file"])
        for line in map(json.loads, listed.splitlines()):
            assert tar[line["offset"] :][: line["size"]] == members[line["file"]]


def test_training_images_are_distributed_by_seed_and_others_stay_in_order(tmp_path):
    images = noise_set(tmp_path / "photographs", 40)
    for seed in (0, 1):
        write_shards(images, tmp_path / str(seed), seed=seed)

    def keys(seed, split):
        lines = (tmp_path / str(seed) / f"{split}-000000.jsonl").read_text().splitlines()
        return [int(json.loads(line)["file"][:6]) for line in lines]

    assert keys(0, "test") == keys(1, "test") == list(range(4, 40, 5))
    assert keys(0, "train") != keys(1, "train")
    assert sorted(keys(0, "train")) == sorted(keys(1, "train")) == [n for n in range(40) if n % 5 != 4]
    assert keys(0, "train") != sorted(keys(0, "train"))


def test_the_same_set_gives_the_same_bytes(tmp_path):
    images, output = noise_shards(tmp_path)
    write_shards(images, tmp_path / "again", root=tmp_path, max_images=5)
    assert contents_of(tmp_path / "again") == contents_of(output)


def test_shards_of_shards_have_the_same_images(tmp_path):
    _, output = noise_shards(tmp_path)
    images = read_shards(output)
    write_shards(images, tmp_path / "again", root=output, max_images=3)
    again = read_shards(tmp_path / "again")
    assert [record[1:] for record in again.records] == [record[1:] for record in images.records]
    for one, other in zip(again.records, images.records, strict=True):
        assert shard_writer._content(one.path) == shard_writer._content(other.path)


@given(sizes=st.lists(st.integers(0, 20)), max_bytes=st.integers(1, 30), max_images=st.integers(1, 5))
def test_runs_are_whole_and_as_long_as_allowed(sizes, max_bytes, max_images):
    runs = list(cut_into_runs(sizes, max_bytes, max_images))
    assert [index for run in runs for index in range(run.start, run.stop)] == list(range(len(sizes)))
    for run in runs:
        length = run.stop - run.start
        assert length == 1 or (length <= max_images and sum(sizes[run]) <= max_bytes)
        if run.stop < len(sizes):
            assert length == max_images or sum(sizes[run.start : run.stop + 1]) > max_bytes


def test_bytes_are_limited_too(tmp_path):
    size = len(jpeg(0))
    _, output = noise_shards(tmp_path, max_bytes=3 * size + size // 2, max_images=100)
    assert sum(1 for _ in output.glob("train-*.tar")) == 4  # of 11, three each


@pytest.mark.parametrize(
    ("name", "member"),
    [("a.jpeg", "000000.jpeg"), ("b", "000000.img"), ("c.d.e", "000000.e"), ("x.json", "000000.img")],
)
def test_names_that_webdataset_would_take_for_something_else(tmp_path, name, member):
    images = noise_set(tmp_path / "photographs", 2)
    path = images.records[0].path.rename(tmp_path / name)
    images = images._replace(records=(images.records[0]._replace(path=path), images.records[1]))
    write_shards(images, tmp_path / "shards")
    assert read_shards(tmp_path / "shards").records[0].path.name == member
    assert json.loads(members_of(tmp_path / "shards/train-000000.tar")["000000.json"])["path"] == str(path)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    images = noise_set(tmp_path / "photographs")
    (tmp_path / "shards").mkdir()
    write_shards(images, tmp_path / "shards")
    before = contents_of(tmp_path / "shards")
    with pytest.raises(OutputError, match=r"shards is not empty; give a new folder"):
        write_shards(images, tmp_path / "shards")
    assert contents_of(tmp_path / "shards") == before


@pytest.mark.parametrize("broken", ["missing", "empty", "folder"])
def test_an_image_that_cannot_be_read_leaves_nothing(tmp_path, broken):
    images = noise_set(tmp_path / "photographs")
    path = images.records[7].path
    path.unlink()
    if broken == "empty":
        path.touch()
    elif broken == "folder":
        path.mkdir()
    reason = {"missing": "no such file", "empty": "empty file", "folder": "a folder"}[broken]
    with pytest.raises(UnreadableImageError, match=rf"bird 7\.JPG: {reason}"):
        write_shards(images, tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


def test_a_disk_too_small_is_reported_before_anything_is_read(tmp_path, monkeypatch):
    images = noise_set(tmp_path / "photographs")
    size = sum(record.path.stat().st_size for record in images.records)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, size))
    with pytest.raises(OutputError, match=r"MB left; the shards take [\d,]+ MB: free some"):
        write_shards(images, tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, size + 13 * 4096))
    write_shards(images, tmp_path / "shards")
    taken = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir() if path.name != MANIFEST)
    assert taken <= size + 13 * 4096 + 2 * 10240  # each tar's end is filled to 10 KB


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    images = noise_set(tmp_path / "photographs")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_writer, "_finish", full)
    with pytest.raises(OutputError, match=r"shards cannot be written \(No space left"):
        write_shards(images, tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


def test_an_interrupt_leaves_nothing(tmp_path):
    images = noise_set(tmp_path / "photographs")

    def stop(done, total, what):
        assert (total, what) == (13, "writing")
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(images, tmp_path / "shards", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


@pytest.mark.parametrize("name", ["max_bytes", "max_images"])
def test_limits_below_one(tmp_path, name):
    with pytest.raises(UsageError, match=f"{name} is 0; give 1 or more"):
        noise_shards(tmp_path, **{name: 0})


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    images = noise_set(tmp_path / "photographs")
    images = images._replace(class_names=("crow", "wren", "owl"))
    with pytest.raises(DataError, match="1 of 3 classes have no training images: 'owl'"):
        write_shards(images, tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]
