from itertools import starmap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.loading import loader as loading
from ramstrans.data.loading.loader import EpochBatches, collate
from ramstrans.data.reading import cache as caching
from ramstrans.data.reading.cache import DiskCache, MemoryCache
from ramstrans.data.records import ImageSet, Record
from ramstrans.data.sharding.manifest import read_shards
from ramstrans.data.sharding.writer import write_shards
from ramstrans.errors import OutputError, UnreadableImageError
from tests.data.loading.loaders import dataset_of, epochs_of, loader_of, same_batch, same_example

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core


def batches_of(length, batch_size, epoch=0, first_batch=0, **options):
    """The indices in each batch of a pass; all keys are of the epoch."""
    batches = EpochBatches(length, batch_size, **options)
    batches.epoch, batches.first_batch = epoch, first_batch
    passed = list(batches)
    assert {key[0] for batch in passed for key in batch} <= {epoch}
    return [[index for _, index in batch] for batch in passed]


@given(
    length=st.integers(1, 61), size=st.integers(1, 17), seed=st.integers(0, 2**32), epoch=st.integers(0, 9)
)
def test_an_epoch_is_a_permutation_and_always_the_same_one(length, size, seed, epoch):
    batches = batches_of(length, size, epoch, shuffle=True, seed=seed)
    assert batches == batches_of(length, size, epoch, shuffle=True, seed=seed)
    assert sorted(index for batch in batches for index in batch) == list(range(length))
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert len(batches) == len(EpochBatches(length, size, shuffle=True)) == -(-length // size)


def test_epochs_and_seeds_are_shuffled_differently():
    passes = ((0, 0), (0, 1), (1, 0), (1, 1))
    orders = {tuple(batches_of(31, 31, epoch, shuffle=True, seed=seed)[0]) for seed, epoch in passes}
    assert len(orders) == 4


def test_unshuffled_is_in_order():
    assert batches_of(5, 2, shuffle=False, seed=5) == [[0, 1], [2, 3], [4]]


@given(length=st.integers(1, 61), size=st.integers(1, 17), first=st.integers(0, 61))
def test_a_pass_may_begin_at_a_later_batch(length, size, first):
    whole = batches_of(length, size, 3, shuffle=True)
    assert batches_of(length, size, 3, first, shuffle=True) == whole[first:]


@given(length=st.integers(1, 61), size=st.integers(1, 17), processes=st.integers(1, 5))
def test_processes_share_each_training_batch(length, size, processes):
    whole = batches_of(length, size, 2, shuffle=True)
    samplers = [
        EpochBatches(length, size, shuffle=True, process=process, num_processes=processes)
        for process in range(processes)
    ]
    for sampler in samplers:
        sampler.epoch = 2
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(whole)}  # or some would wait for others for ever
    for number, batch in enumerate(whole):
        counted = []
        for sampler, share in zip(samplers, shares, strict=True):
            own, of = sampler.counts(number)
            assert of == len(batch)
            assert len(share[number]) == max(own, 1)
            counted += share[number][:own]
        assert sorted(counted) == sorted((2, index) for index in batch)


@given(length=st.integers(1, 61), size=st.integers(1, 17), processes=st.integers(1, 5))
def test_evaluation_batches_are_dealt_whole_and_once(length, size, processes):
    whole, dealt = batches_of(length, size, shuffle=False), []
    for process in range(processes):
        share = batches_of(length, size, shuffle=False, process=process, num_processes=processes)
        assert len(share) == len(
            EpochBatches(length, size, shuffle=False, process=process, num_processes=processes)
        )
        dealt += share
    assert sorted(dealt) == whole


def test_an_item_is_a_pure_function_of_seed_epoch_and_index(records):
    first, again = dataset_of(records), dataset_of(records)
    forwards = [first[1, index] for index in range(5)]
    backwards = [again[1, index] for index in reversed(range(5))][::-1]
    assert all(map(same_example, forwards, backwards))
    assert not any(map(same_example, forwards, (first[2, index] for index in range(5))))
    other = dataset_of(records, seed=4)
    assert not any(map(same_example, forwards, (other[1, index] for index in range(5))))


def test_views_without_augmentation_are_the_same_in_every_epoch(records):
    dataset = dataset_of(records, augmentation=None)
    assert same_example(dataset[0, 3], dataset[7, 3])


def test_an_item_tells_where_it_comes_from(records):
    example = dataset_of(records)[0, 3]
    assert (example.label, example.place, example.original_size) == (0, 3, (37, 61))
    assert example.view.image.shape == (3, 17, 19)
    assert example.view.high_res.shape == (3, 29, 23)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_are_the_same_whatever_the_workers(records, num_workers):
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


def test_processes_that_are_started_anew_give_the_same_batches(records, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "start_method", lambda: "spawn")
    write_shards(ImageSet(tuple("abc"), records), tmp_path / "shards", max_images=3)
    shards = read_shards(tmp_path / "shards").of_split("train")
    alone = epochs_of(loader_of(shards))
    shared = epochs_of(loader_of(shards, num_workers=1, cache=DiskCache(tmp_path / "cache")))
    for mine, theirs in zip(alone, shared, strict=True):
        assert all(starmap(same_batch, zip(mine, theirs, strict=True)))


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_cache_changes_nothing_but_the_number_of_decodings(records, tmp_path, monkeypatch, kind):
    decoded, read = [], caching.read_resized

    def counted(path, *args, **options):
        decoded.append(path)
        return read(path, *args, **options)

    monkeypatch.setattr(caching, "read_resized", counted)
    cache = MemoryCache() if kind == "memory" else DiskCache(tmp_path)
    cached, plain = dataset_of(records, cache=cache), dataset_of(records)
    for epoch in range(3):
        assert all(same_example(cached[epoch, index], plain[epoch, index]) for index in range(5))
    assert decoded == [record.path for record in records]


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


def test_collate_stacks(records):
    dataset = dataset_of(records)
    batch = collate([dataset[0, 3], dataset[0, 0]], with_high_res=True)
    assert batch.images.shape == (2, 3, 17, 19)
    assert batch.high_res.shape == (2, 3, 29, 23)
    assert batch.images.dtype == batch.high_res.dtype == torch.uint8
    assert batch.labels.tolist() == [0, 0]
    assert batch.indices.tolist() == [3, 0]
    assert batch.original_sizes.tolist() == [[61, 37], [40, 48]]
    assert batch.images.is_contiguous()
    assert batch.high_res.is_contiguous()
    for index, example in enumerate([dataset[0, 3], dataset[0, 0]]):
        assert torch.equal(batch.images[index], example.view.image)
        assert torch.equal(batch.high_res[index], example.view.high_res)
    assert collate([dataset[0, 3]], with_high_res=False).high_res is None


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_file_is_named_wherever_it_is_met(records, tmp_path, num_workers):
    broken = tmp_path / "broken.png"
    broken.write_bytes(records[0].path.read_bytes()[:99])
    loader = loader_of((*records, Record(broken, 0, "train")), num_workers=num_workers)
    with pytest.raises(UnreadableImageError) as caught:
        list(loader)
    assert caught.value.path == broken
    assert str(caught.value).count("\n") == 0


def test_an_image_over_the_limit_of_pixels_is_refused(records):
    with pytest.raises(UnreadableImageError, match="max_pixels"):
        dataset_of(records, max_pixels=61 * 37 - 1)[0, 3]
