"""What goes wrong while photographs are loaded."""

import errno
import gc
import os
import signal
import subprocess
import threading
import time
from itertools import starmap
from pathlib import Path

import pytest

from ramstrans.data.loading import loader as loading
from ramstrans.data.loading.loader import ImageDataset, build_loader
from ramstrans.data.reading import retry as reads
from ramstrans.data.reading.photographs import read_resized
from ramstrans.data.reading.retry import retry
from ramstrans.errors import DataError, UnreadableImageError
from tests.data.loading.loaders import (
    PREPROCESSING,
    dataset_of,
    epochs_of,
    loader_of,
    same_batch,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core


class Mishap:
    """A cache, of no use, in whose reading something happens."""

    def __init__(self, happen):
        self.happen = happen

    def read(self, path, resize, *, max_pixels):
        self.happen(path)
        return read_resized(path, resize, max_pixels=max_pixels)


def die(_path):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(_path):
    time.sleep(60)


@pytest.mark.parametrize(
    ("happen", "num_workers", "started", "message"),
    [
        (die, 1, None, r"a process of the loader died .* while reading .*/[0-4]\.png.*num_workers"),
        (die, 1, "spawn", r"a process of the loader died .* while reading .*/[0-4]\.png.*num_workers"),
        (hang, 1, None, r"in time .* while reading .*/[0-4]\.png.*read_timeout"),
        (
            hang,
            0,
            None,
            r"in time \(timed out after 0\.5 seconds\) while reading .*/[0-4]\.png.*read_timeout",
        ),
    ],
)
def test_a_loader_that_dies_or_hangs_is_told_and_what_it_read(
    records, happen, num_workers, started, message, monkeypatch
):
    monkeypatch.setattr(loading, "start_method", lambda: started)
    dataset = ImageDataset(records, PREPROCESSING, (32, 32), cache=Mishap(happen))
    options = {"shuffle": True, "with_high_res": False, "num_workers": num_workers}
    loader = build_loader(dataset, 1, timeout=30.0 if started else 3.0 if num_workers else 0.5, **options)
    with pytest.raises(DataError, match=message) as caught:
        list(loader)
    assert str(caught.value).count(".png") == 1


def test_only_what_is_being_read_is_under_way(records):
    seen = []
    dataset = ImageDataset(records, PREPROCESSING, (32, 32))
    dataset.cache = Mishap(lambda path: seen.append((str(path), dataset.under_way())))
    assert dataset.under_way() == []
    batches = list(build_loader(dataset, 2, shuffle=True, with_high_res=False))
    assert [[path] for path, _ in seen] == [under_way for _, under_way in seen]
    assert len(seen) == len(records) == sum(len(batch.labels) for batch in batches)
    assert dataset.under_way() == []


@pytest.mark.parametrize(("timeout", "is_main"), [(0.0, True), (60.0, False)])
def test_a_loader_that_may_wait_for_ever_reads_in_the_main_thread(records, timeout, is_main):
    dataset, seen = ImageDataset(records, PREPROCESSING, (32, 32)), []
    dataset.cache = Mishap(lambda _path: seen.append(threading.current_thread()))
    assert len(list(build_loader(dataset, 2, shuffle=True, with_high_res=False, timeout=timeout))) == 3
    assert {thread is threading.main_thread() for thread in seen} == {is_main}


def test_the_thread_ends_with_a_pass_that_is_broken_off(records):
    before = threading.active_count()
    for _ in range(3):
        for _batch in loader_of(records):
            break
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("timeout", [0.0, 60.0])
def test_waiting_changes_no_batch(records, timeout):
    expected = epochs_of(loader_of(records))
    options = {"shuffle": True, "with_high_res": True, "seed": 3, "timeout": timeout}
    for mine, theirs in zip(
        expected, epochs_of(build_loader(dataset_of(records), 2, **options)), strict=True
    ):
        assert all(starmap(same_batch, zip(mine, theirs, strict=True)))


class Flaky(Mishap):
    """A cache whose reading fails for a moment the first time that it meets a file."""

    def __init__(self):
        super().__init__(self.fail_once)
        self.met = set()

    def fail_once(self, path):
        def read():
            if path not in self.met:
                self.met.add(path)
                raise OSError(errno.EIO, "Input/output error", str(path))

        retry(read, path)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_repeated_reads_are_counted_whatever_the_workers_and_change_nothing(
    records, num_workers, monkeypatch
):
    monkeypatch.setattr(reads, "FIRST_PAUSE", 0.001)
    expected = epochs_of(loader_of(records), 1)[0]
    loader = loader_of(records, num_workers=num_workers, cache=Flaky())
    [batches] = epochs_of(loader, 1)
    assert all(starmap(same_batch, zip(expected, batches, strict=True)))
    assert [batch.num_retries for batch in batches] == [2, 2, 1]
    assert loader.dataset.num_retries == 5
    if num_workers < 2:  # of two each meets each file for itself
        [again] = epochs_of(loader, 1)
        assert loader.dataset.num_retries == 5
        assert [batch.num_retries for batch in again] == [0, 0, 0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_read_that_fails_each_time_names_the_file(records, tmp_path, num_workers, monkeypatch):
    monkeypatch.setattr(reads, "FIRST_PAUSE", 0.001)
    opener, bad = Path.open, records[2].path

    def broken(path, *mode, **options):
        if path == bad:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return opener(path, *mode, **options)

    monkeypatch.setattr(Path, "open", broken)
    loader = loader_of(records, num_workers=num_workers, read_retries=2)
    with pytest.raises(UnreadableImageError, match=r"2\.png: input/output error, 3 times in a row"):
        list(loader)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_vanishes_between_epochs_is_named(records, tmp_path, num_workers):
    copies = []
    for number, record in enumerate(records):
        copies.append(record._replace(path=tmp_path / f"{number}{record.path.suffix}"))
        copies[-1].path.write_bytes(record.path.read_bytes())
    loader = build_loader(
        ImageDataset(copies, PREPROCESSING, (32, 32)),
        2,
        shuffle=True,
        with_high_res=False,
        num_workers=num_workers,
    )
    assert len(list(loader)) == len(loader)
    copies[1].path.unlink()
    with pytest.raises(UnreadableImageError, match=copies[1].path.name):
        list(loader)


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="this system cannot wait for a signal")
def test_signals_do_not_reach_workers(records):
    dataset = ImageDataset(records, PREPROCESSING, (32, 32))
    loader = build_loader(dataset, 1, shuffle=True, with_high_res=False, num_workers=2)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    batches = iter(loader)
    next(batches)
    workers = loader._iterator._workers
    for number in (signal.SIGTERM, signal.SIGINT):
        for worker in workers:
            subprocess.run(["kill", f"-{number.value}", str(worker.pid)], check=True)  # not by their parent
        next(batches)
    assert len(list(batches)) == len(loader) - 3
    assert len(list(loader)) == len(loader)
    assert all(worker.is_alive() for worker in workers)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    gc.collect()  # not the loaders of other tests
    start = time.monotonic()
    del batches, loader
    gc.collect()
    assert not any(worker.is_alive() for worker in workers)
    assert time.monotonic() - start < 4  # torch would wait for 5 seconds for one that does not end
