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

from ramstrans.data.loading import loader as loading
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import block_signals, build_loader, start_method, worker_errors
from ramstrans.data.reading.decode import read_resized
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

    def read(self, path, resize, fit, *, max_pixels):
        self.happen(path)
        return read_resized(path, resize, fit, max_pixels=max_pixels)


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
            r"in time \(timed out after 3\.?0? seconds\) while reading .*/[0-4]\.png.*read_timeout",
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
    timeout = 600.0 if happen is die else 10.0 if num_workers else 3.0
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


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            TimeoutError("timed out after 3 seconds"),
            r"no batch came in time .* while reading a; b; c; d; and 1 more;",
        ),
        (
            RuntimeError("DataLoader timed out after 3 seconds"),
            r"no batch came in time .*--data\.read_timeout",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            r"died \(.* Killed\) while reading",
        ),
    ],
)
def test_errors_of_a_loader_are_one_line(error, message):
    with pytest.raises(DataError, match=message) as caught, worker_errors(lambda: list("abcde")):
        raise error
    assert "\n" not in str(caught.value)


def test_no_file_is_named_if_none_is_read():
    with pytest.raises(DataError, match=r"killed\); if memory"), worker_errors():
        raise RuntimeError("DataLoader worker (pid 7) is killed")


def test_an_error_of_another_kind_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes"), worker_errors():
        raise RuntimeError("shapes do not fit")


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
