"""Batches are the same for any number of workers, and carry their key and weight."""

from itertools import starmap

import pytest
import torch

from ramstrans.data.loading import loader as loading
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.reading.cache import DiskCache
from ramstrans.data.records import ImageSet
from ramstrans.data.sharding.manifest import read_shards
from ramstrans.data.sharding.writer import write_shards
from ramstrans.errors import OutputError
from tests.data.loading.loaders import dataset_of, epochs_of, loader_of, same_batch

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(records, num_workers):
    alone = epochs_of(loader_of(records))
    shared = epochs_of(loader_of(records, num_workers=num_workers))
    for mine, theirs in zip(alone, shared, strict=True):
        assert all(starmap(same_batch, zip(mine, theirs, strict=True)))
    assert not same_batch(alone[0][0], alone[1][0])


def test_the_last_batch_may_be_smaller(records):
    loader = loader_of(records)
    (batches,) = epochs_of(loader, 1)
    assert [len(batch.labels) for batch in batches] == [2, 2, 1]
    assert len(loader) == 3
    indices = torch.cat([batch.indices for batch in batches]).tolist()
    assert sorted(indices) == list(range(5))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [index % 3 for index in indices]


@pytest.mark.slow
def test_spawned_workers_give_the_same_batches(records, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "start_method", lambda: "spawn")
    write_shards(ImageSet(tuple("abc"), records), tmp_path / "shards", max_images=3)
    shards = read_shards(tmp_path / "shards").of_split("train")
    alone = epochs_of(loader_of(shards))
    shared = epochs_of(loader_of(shards, num_workers=1, cache=DiskCache(tmp_path / "cache")))
    for mine, theirs in zip(alone, shared, strict=True):
        assert all(starmap(same_batch, zip(mine, theirs, strict=True)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_batches_carry_their_key_and_weight(records, num_workers):
    loader = loader_of(records, num_workers=num_workers)
    sampler = loader.batch_sampler
    sampler.process, sampler.num_processes = 1, 2
    for epoch, first in ((0, 0), (3, 1)):
        sampler.epoch, sampler.first_batch = epoch, first
        batches = list(loader)
        assert [batch.key for batch in batches] == [(3, epoch, number) for number in range(first, 3)]
        assert [batch.weight for batch in batches] == [(1, 2), (1, 2), (0, 1)][first:]


def test_evaluation_batches_carry_their_key_and_weight(records):
    loader = build_loader(dataset_of(records, augmentation=None), 2, shuffle=False, with_high_res=False)
    loader.batch_sampler.num_processes = 2
    assert [(batch.key, batch.weight) for batch in loader] == [((0, 0, 0), (2, 2)), ((0, 0, 2), (1, 1))]


def test_workers_share_the_cache_on_disk(records, tmp_path):
    alone = epochs_of(loader_of(records))
    shared = epochs_of(loader_of(records, num_workers=2, cache=DiskCache(tmp_path)))
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 5
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = epochs_of(loader_of(records, num_workers=1, cache=DiskCache(tmp_path)))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    for batches in (shared, again):
        for mine, theirs in zip(alone, batches, strict=True):
            assert all(starmap(same_batch, zip(mine, theirs, strict=True)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_cache_that_cannot_be_written_is_one_line(records, tmp_path, num_workers):
    loader = loader_of(records, num_workers=num_workers, cache=DiskCache(tmp_path / "cache"))
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(OutputError, match=r"--data\.cache_dir") as caught:
        list(loader)
    assert "\n" not in str(caught.value)
