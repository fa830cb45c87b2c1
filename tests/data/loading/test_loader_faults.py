"""What goes wrong in a loader ends with an error that names the file; workers survive signals."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import starmap

import psutil
import pytest
import torch

from ramstrans.data.loading import loader as loading
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import block_signals, build_loader, start_method
from ramstrans.data.reading.resize import read_resized
from ramstrans.data.reading.threads import in_threads
from ramstrans.data.records import Record
from ramstrans.distributed import SIGNALS
from ramstrans.errors import DataError, UnreadableImageError
from tests.data.loading.loaders import PREPROCESSING, dataset_of, epochs_of, loader_of, same_batch
from tests.processes import ENVIRONMENT, ROOT

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core

HAS_SIGTIMEDWAIT = pytest.mark.skipif(
    not hasattr(signal, "sigtimedwait"), reason="this system cannot wait for signals"
)


class Fault:
    """A cache that keeps nothing, and in whose reading something happens."""

    def __init__(self, happen):
        self.happen = happen

    def read(self, path, reading, *, max_pixels):
        self.happen(path)
        return read_resized(path, reading, max_pixels=max_pixels)


def die(_path):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(_path):
    time.sleep(60)


@pytest.mark.parametrize(
    ("happen", "num_workers", "started", "message"),
    [
        (die, 1, None, r"a process of the loader died .* while reading .*/[0-4]\.png.*num_workers"),
        pytest.param(
            *(die, 1, "spawn", r"a process of the loader died .* while reading .*/[0-4]\.png.*num_workers"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(hang, 1, None, r"in time .* while reading .*/[0-4]\.png.*read_timeout"), marks=pytest.mark.slow
        ),
        (
            hang,
            0,
            None,
            r"in time \(timed out after 0\.5 seconds\) while reading .*/[0-4]\.png.*read_timeout",
        ),
    ],
)
def test_a_loader_that_dies_or_hangs_names_the_file(
    records, happen, num_workers, started, message, monkeypatch
):
    monkeypatch.setattr(loading, "start_method", lambda: started)
    dataset = ImageDataset(records, PREPROCESSING, (32, 32), cache=Fault(happen))
    options = {"shuffle": True, "with_high_res": False, "num_workers": num_workers}
    # workers need time to start on a busy machine; one that dies is found before its timeout
    timeout = 600.0 if happen is die else 10.0 if num_workers else 0.5
    loader = build_loader(dataset, 1, timeout=timeout, **options)
    with pytest.raises(DataError, match=message) as caught:
        list(loader)
    assert str(caught.value).count(".png") == 1


def test_only_files_being_read_are_listed(records):
    seen = []
    dataset = ImageDataset(records, PREPROCESSING, (32, 32))
    dataset.cache = Fault(lambda path: seen.append((str(path), dataset.files_being_read())))
    assert dataset.files_being_read() == []
    batches = list(build_loader(dataset, 2, shuffle=True, with_high_res=False))
    assert [[path] for path, _ in seen] == [files for _, files in seen]
    assert len(seen) == len(records) == sum(len(batch.labels) for batch in batches)
    assert dataset.files_being_read() == []


@pytest.mark.parametrize(("timeout", "is_main"), [(0.0, True), (60.0, False)])
def test_a_loader_that_may_wait_for_ever_reads_in_the_main_thread(records, timeout, is_main):
    dataset, seen = ImageDataset(records, PREPROCESSING, (32, 32)), []
    dataset.cache = Fault(lambda _path: seen.append(threading.current_thread()))
    assert len(list(build_loader(dataset, 2, shuffle=True, with_high_res=False, timeout=timeout))) == 3
    assert {thread is threading.main_thread() for thread in seen} == {is_main}


def test_the_thread_ends_when_a_pass_is_dropped(records):
    before = threading.active_count()
    for _ in range(3):
        for _batch in loader_of(records):
            break
    end = time.monotonic() + 60
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("timeout", [0.0, 60.0])
def test_the_timeout_changes_no_batch(records, timeout):
    expected = epochs_of(loader_of(records))
    options = {"shuffle": True, "with_high_res": True, "seed": 3, "timeout": timeout}
    for mine, theirs in zip(
        expected, epochs_of(build_loader(dataset_of(records), 2, **options)), strict=True
    ):
        assert all(starmap(same_batch, zip(mine, theirs, strict=True)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_transient_errors_are_retried_and_change_nothing(records, num_workers, opening_fails):
    expected = epochs_of(loader_of(records), 1)[0]
    opening_fails(2)
    [batches] = epochs_of(loader_of(records, num_workers=num_workers), 1)
    assert all(starmap(same_batch, zip(expected, batches, strict=True)))
    opening_fails(5)
    with pytest.raises(UnreadableImageError, match=r"\.png: input/output error"):
        list(loader_of(records, num_workers=num_workers))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_file_is_named(records, tmp_path, num_workers):
    broken = tmp_path / "broken.png"
    broken.write_bytes(records[0].path.read_bytes()[:99])
    loader = loader_of((*records, Record(broken, 0, "train")), num_workers=num_workers)
    with pytest.raises(UnreadableImageError) as caught:
        list(loader)
    assert caught.value.path == broken
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_file_that_vanishes_between_epochs_is_named(records, tmp_path):
    copies = []
    for number, record in enumerate(records):
        copies.append(record._replace(path=tmp_path / f"{number}{record.path.suffix}"))
        copies[-1].path.write_bytes(record.path.read_bytes())
    loader = build_loader(
        ImageDataset(copies, PREPROCESSING, (32, 32)),
        2,
        shuffle=True,
        with_high_res=False,
        num_workers=1,
    )
    assert len(list(loader)) == len(loader)
    copies[1].path.unlink()
    with pytest.raises(UnreadableImageError, match=copies[1].path.name):
        list(loader)


@pytest.mark.slow
@HAS_SIGTIMEDWAIT
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
    del batches, loader
    gc.collect()
    assert [worker.exitcode for worker in workers] == [0, 0]  # not killed: they end when torch asks them to


def cannot_share(_storage):
    raise RuntimeError(
        "unable to allocate shared memory(shm) for file </torch_7>: No space left on device (28)"
    )


def cannot_open(_storage):
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (cannot_share, r"died \(shared memory is full.*\); .*--shm-size.*num_workers"),
        (cannot_open, r"died \(too many open files\); .*ulimit -n"),
    ],
)
def test_a_batch_that_cannot_be_sent_ends_the_wait(records, share, message, monkeypatch, capfd):
    """Without a timeout: if the batch were dropped, this test would hang."""
    dataset = ImageDataset(records, PREPROCESSING, (32, 32))
    options = {"shuffle": True, "with_high_res": False, "num_workers": 2, "timeout": 0}
    loader = build_loader(dataset, 1, **options)
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", share)  # in the workers, which are forked
    with pytest.raises(DataError, match=message) as caught:
        list(loader)
    assert "while reading" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


def broken(*_args, **_options):
    raise ConnectionResetError(104, "Connection reset by peer")


def test_a_connection_that_breaks_before_the_worker_has_ended_is_its_death(records, monkeypatch):
    dataset = ImageDataset(records, PREPROCESSING, (32, 32))
    loader = build_loader(dataset, 1, shuffle=True, with_high_res=False, num_workers=1)
    batches = iter(loader)
    next(batches)
    monkeypatch.setattr(loader._iterator._data_queue, "get", broken)
    worker = loader._iterator._workers[0]
    monkeypatch.setattr(
        loading, "wait", lambda sentinels, _: os.kill(worker.pid, signal.SIGKILL) or sentinels
    )
    with pytest.raises(DataError, match="killed by SIGKILL"):
        list(batches)
    assert worker.exitcode == -signal.SIGKILL


def kill_a_worker(loader, number):
    worker = loader._iterator._workers[0]
    os.kill(worker.pid, number)
    worker.join()


@pytest.mark.parametrize("waits", ["in the main thread", "in another thread"])
def test_a_death_is_noticed_in_any_thread_and_only_while_waiting(records, waits):
    dataset = ImageDataset(records, PREPROCESSING, (32, 32))
    loader = build_loader(dataset, 1, shuffle=True, with_high_res=False, num_workers=1, timeout=0)
    batches, before = iter(loader), signal.getsignal(signal.SIGCHLD)
    next(batches)
    kill_a_worker(loader, signal.SIGBUS)
    time.sleep(0.01)  # torch's handler of SIGCHLD would raise here
    rest = in_threads(lambda _: list(batches), [None], int(waits == "in another thread"))
    with pytest.raises(DataError, match="shared memory is full"):
        list(rest)
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.parametrize("num_workers", [0, 1])
def test_no_memory_for_an_image_is_one_line(records, num_workers):
    def fill(_path):
        raise MemoryError

    dataset = ImageDataset(records, PREPROCESSING, (32, 32), cache=Fault(fill))
    loader = build_loader(dataset, 1, shuffle=True, with_high_res=False, num_workers=num_workers)
    with pytest.raises(DataError, match=r"no memory left to load images.*--data\.cache") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def test_without_workers_nothing_is_in_shared_memory(records, monkeypatch):
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", cannot_share)
    monkeypatch.setattr(torch.Tensor, "share_memory_", cannot_share)
    assert len(epochs_of(loader_of(records), 1)[0]) == 3
    with pytest.raises(DataError, match="shared memory is full"):
        loader_of(records, num_workers=1)


@HAS_SIGTIMEDWAIT
def test_blocked_signals_arrive_afterwards():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with block_signals():
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= set(SIGNALS)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # not to any thread of the process
            assert received == []
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("count", "method"), [(1, None), (2, "spawn")])
def test_distributed_runs_spawn_their_workers(count, method, monkeypatch):
    monkeypatch.setattr(loading, "num_processes", lambda: count)
    assert start_method() == method


PARENT = """
import multiprocessing, os, signal, sys
from ramstrans.data.loading.loader import block_signals, init_worker

def work(ready):
    init_worker(0)
    ready.set()
    open(sys.argv[1]).read()  # a pipe into which nobody writes: a read that hangs

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    workers, context = [], multiprocessing.get_context("fork")
    with block_signals():
        for _ in range(2):
            ready = context.Event()
            workers.append(context.Process(target=work, args=[ready], daemon=True))
            workers[-1].start()
            ready.wait()
    print(*(worker.pid for worker in workers), flush=True)
    sys.stdin.readline()
    workers[0].terminate()
    workers[0].join()
    print("ended", workers[0].exitcode, flush=True)
    sys.stdin.readline()
"""


def has_ended(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
@HAS_SIGTIMEDWAIT
def test_workers_that_hang_in_a_read_obey_only_their_parent_and_end_with_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "parent.py").write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", tmp_path / "pipe"],
        env=ENVIRONMENT,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        first, second = map(int, process.stdout.readline().split())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(first, number)
            time.sleep(0.1)
        process.stdin.write("end the first\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ended 0\n"
        assert not has_ended(second)
    finally:
        process.kill()
        process.communicate()
    end = time.monotonic() + 60
    while not has_ended(second):
        assert time.monotonic() < end
        time.sleep(0.02)
