"""Shards give what the folder gave, to the bit; damage is reported."""

import gc
import json
import os
import shutil

import numpy as np
import pytest
import torch

from ramstrans.data.audit.files import find_unreadable
from ramstrans.data.build import build_image_set
from ramstrans.data.config import DataConfig
from ramstrans.data.detect import MANIFEST
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.transforms import Augmentation
from ramstrans.data.sharding.manifest import read_manifest, read_shards, verify_shards
from ramstrans.data.sharding.writer import write_shards
from ramstrans.errors import DataError, UnreadableImageError
from tests.data.builders import decode_image, flip_byte, noise_shards
from tests.shared import CUB50, needs
from tests.training.builders import PREPROCESSING, tiny_loader


@pytest.fixture
def shards(tmp_path):
    """The folder of 13 images of noise in three training shards and one of tests."""
    return noise_shards(tmp_path)[1]


def test_records_are_what_they_were(tmp_path):
    images, output = noise_shards(tmp_path)
    found = read_shards(output)
    assert found._replace(records=()) == images._replace(records=())
    assert [record[1:] for record in found.records] == [record[1:] for record in images.records]
    assert all(isinstance(record.box, tuple | None) for record in found.records)
    assert [record.path.name for record in found.records] == [f"{index:06d}.jpg" for index in range(13)]
    for one, other in zip(found.records, images.records, strict=True):
        assert one.path.parent.name.startswith(f"{one.split}-")
        assert np.array_equal(np.asarray(decode_image(one.path)), np.asarray(decode_image(other.path)))


def test_a_set_may_be_moved(shards, tmp_path):
    before = read_shards(shards)
    shards.rename(tmp_path / "elsewhere")
    after = read_shards(tmp_path / "elsewhere")
    assert [record.path.relative_to(tmp_path / "elsewhere") for record in after.records] == [
        record.path.relative_to(shards) for record in before.records
    ]
    assert find_unreadable(after.records) == []


@pytest.fixture(scope="module")
def both(birds, tmp_path_factory):
    """The birds with a validation split, as a folder and as shards."""
    images = build_image_set(DataConfig("cub", birds, val_fraction=0.25))
    output = tmp_path_factory.mktemp("both") / "shards"
    write_shards(images, output, root=birds, max_images=2)
    return images, read_shards(output)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_batches_are_those_of_the_folder_to_the_bit(both, split):
    loaders = [
        tiny_loader(images.of_split(split), batch_size=4, seed=7, augmentation=Augmentation(color_jitter=0.3))
        for images in both
    ]
    for epoch in range(2):
        for loader in loaders:
            loader.sampler.epoch = epoch
        for one, other in zip(*loaders, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
            assert torch.equal(one.indices, other.indices)
            assert one.geometries == other.geometries


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves its files to the garbage collector
def test_webdataset_reads_them(both):
    webdataset = pytest.importorskip("webdataset")
    images, shards = both
    root = shards.records[0].path.parent.parent
    tars = sorted(map(str, root.glob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode("pil"))
    gc.collect()
    assert len(samples) == len(images.records)
    for sample in samples:
        record = images.records[int(sample["__key__"])]
        assert sample["json"]["label"] == record.label
        assert sample["json"]["box"] == list(record.box)
        assert np.array_equal(np.asarray(sample["jpg"]), np.asarray(decode_image(record.path)))


def test_intact_shards_pass(shards):
    calls = []
    assert verify_shards(shards, lambda *call: calls.append(call)) == []
    assert calls == [(done, 4, "verifying checksums") for done in range(1, 5)]


def test_a_flipped_byte_is_found(shards):
    record = read_shards(shards).records[3]
    tar = record.path.parent
    line = next(
        fields
        for fields in map(json.loads, tar.with_suffix(".jsonl").read_text().splitlines())
        if fields["file"] == record.path.name
    )
    flip_byte(tar, line["offset"] + line["size"] // 2)
    read_shards(shards)  # which reads no image
    (error,) = verify_shards(shards)
    assert f"{tar} is damaged: its SHA-256 is not that of shards.json; copy it again" in str(error)
    flip_byte(tar, line["offset"] - 512)  # its header
    with pytest.raises(
        UnreadableImageError, match=rf"{tar.name}/000003\.jpg: .* does not hold it where it should"
    ):
        decode_image(record.path)


def test_every_flipped_byte_is_found(shards):
    tar = shards / "train-000002.tar"
    for index in np.random.default_rng(0).integers(0, tar.stat().st_size, 31).tolist():
        flip_byte(tar, index)
        assert len(verify_shards(shards)) == 1
        flip_byte(tar, index)
    assert verify_shards(shards) == []


def test_a_shard_cut_short_is_named_at_once(shards):
    tar = shards / "train-000001.tar"
    size = tar.stat().st_size
    os.truncate(tar, size - 1)
    with pytest.raises(
        DataError, match=rf"train-000001\.tar has {size - 1:,} bytes; shards\.json says {size:,}"
    ):
        read_shards(shards)
    assert len(verify_shards(shards)) == 1


def test_a_shard_cut_short_while_it_is_read(shards):
    records = [
        record for record in read_shards(shards).records if record.path.parent.name == "train-000001.tar"
    ]
    decode_image(records[0].path)
    os.truncate(records[0].path.parent, 512)
    errors = find_unreadable(records)
    assert [error.path for error in errors] == [record.path for record in records]
    assert {error.reason for error in errors} == {"train-000001.tar ends before it does; copy that tar again"}


def test_a_shard_that_goes_missing(shards):
    images = read_shards(shards)
    (shards / "test-000000.tar").unlink()
    with pytest.raises(DataError, match=r"test-000000\.tar is missing; copy it again"):
        read_shards(shards)
    (error,) = verify_shards(shards)
    assert "test-000000.tar is missing" in str(error)
    with pytest.raises(UnreadableImageError, match=r"000004\.jpg: there is no tar test-000000\.tar"):
        decode_image(images.records[4].path)


def test_a_shard_that_is_a_copy_of_another(shards):
    records = read_shards(shards).records
    shutil.copyfile(shards / "train-000000.tar", shards / "train-000001.tar")
    paths = [record.path for record in records if record.path.parent.name == "train-000001.tar"]
    assert len(find_unreadable([records[0]._replace(path=path) for path in paths])) > 0
    assert "train-000001.tar" in str(verify_shards(shards)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.unlink(), r"train-000001\.jsonl is missing; copy it again"),
        (lambda file: flip_byte(file, 40), r"train-000001\.jsonl is damaged: its SHA-256"),
        (lambda file: file.write_bytes(b""), r"train-000001\.jsonl is damaged: its SHA-256"),
    ],
)
def test_a_damaged_list(shards, change, message):
    change(shards / "train-000001.jsonl")
    with pytest.raises(DataError, match=message):
        read_shards(shards)
    (error,) = verify_shards(shards)
    assert "train-000001.jsonl" in str(error)


def test_a_list_that_is_damaged_while_images_are_read(shards):
    path = read_shards(shards).records[4].path
    (shards / "test-000000.jsonl").write_text('{"file": 4}\n')
    with pytest.raises(UnreadableImageError, match=r"000004\.jpg: its tar cannot .*\.jsonl is damaged"):
        decode_image(path)
    (shards / "test-000000.jsonl").unlink()
    decode_image(path)  # the tar's own headers say where it is


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"[]", "is damaged"),
        (b"{}", "is damaged"),
        (b'{"version": 1}', "is damaged"),
        (
            b'{"version": 1, "class_names": ["a"], "hierarchy": [], "shards": [{"file": "a.tar"}]}',
            "is damaged",
        ),
        (b'{"version": 2}', r"has version 2; this ramstrans reads 1"),
        (b"\xff", "is damaged"),
    ],
)
def test_a_damaged_manifest(shards, content, message):
    (shards / MANIFEST).write_bytes(content)
    for read in (read_shards, verify_shards, read_manifest):
        with pytest.raises(DataError, match=rf"shards\.json {message}") as caught:
            read(shards)
        assert "\n" not in str(caught.value)


def test_a_manifest_that_was_not_copied(shards):
    (shards / MANIFEST).unlink()
    with pytest.raises(DataError, match=r"shards\.json is missing, but test-000000\.jsonl exists"):
        read_shards(shards)
    with pytest.raises(DataError, match=r"shards\.json is missing; copy it, or write"):
        verify_shards(shards)


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"has neither shards\.json nor tars"):
        read_shards(tmp_path)
    with pytest.raises(DataError, match="nowhere is not a folder"):
        read_shards(tmp_path / "nowhere")


@pytest.mark.realdata
def test_real_photographs(tmp_path):
    needs(CUB50)
    root = CUB50.parent
    images = build_image_set(DataConfig("cub", root))
    few = images._replace(records=tuple({record[1:3]: record for record in images.records}.values()))
    write_shards(few, tmp_path / "shards", root=root, max_bytes=1_000_000)
    found = read_shards(tmp_path / "shards")
    assert [record[1:] for record in found.records] == [record[1:] for record in few.records]
    assert verify_shards(tmp_path / "shards") == []
    datasets = [
        ImageDataset(chosen.records, PREPROCESSING, (32, 32), augmentation=Augmentation(), seed=3)
        for chosen in (few, found)
    ]
    for index, (one, other) in enumerate(zip(few.records, found.records, strict=True)):
        assert np.array_equal(np.asarray(decode_image(one.path)), np.asarray(decode_image(other.path)))
        first, second = (dataset[5, index] for dataset in datasets)
        assert torch.equal(first.view.image, second.view.image)
