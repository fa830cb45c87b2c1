"""DataLoader over an `ImageDataset`: the same batches for any workers; timeouts, signals, dead workers."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat, takewhile
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from typing import Any, NoReturn

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from ramstrans.data.config import DataConfig
from ramstrans.data.loading.dataset import Batch, Example, ImageDataset, collate
from ramstrans.data.loading.faults import death, exit_code_of, loader_errors
from ramstrans.data.loading.sampling import Draw, EpochBatches
from ramstrans.data.reading.threads import in_threads, parts_of
from ramstrans.distributed import SIGNALS, num_processes, process_index
from ramstrans.errors import RamsTransError

PARENT_SECONDS = 1.0
"""Seconds between a worker's checks whether the main process still runs."""
WORKER_SECONDS = 0.5
"""Seconds between the main process's checks, while it waits for a batch, whether the workers still run."""

_CAN_WAIT = hasattr(signal, "sigtimedwait")  # neither on macOS nor on Windows


class ImageLoader(DataLoader[Batch]):
    """A loader that raises the errors of its workers as they are, and never waits forever.

    Attributes:
        read_timeout: Seconds that a batch may take, whatever the number of workers; 0: any time.

    Raises:
        RamsTransError: An image cannot be read, or a worker has died, or takes too long; memory has run out.
    """

    dataset: ImageDataset  # type: ignore[assignment] # torch takes items for batches
    batch_sampler: EpochBatches
    read_timeout: float = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        sampler = self.batch_sampler
        epoch, numbers = sampler.epoch, sampler.numbers()
        with loader_errors(self.dataset.files_being_read):
            with block_signals():
                batches: Iterator[Batch] = super().__iter__()
            if self.num_workers == 0 and self.read_timeout > 0:  # with workers torch has its own timeout
                load = partial(next, batches, None)  # in a thread, one at a time
                loaded = in_threads(lambda _: load(), repeat(None), 1, self.read_timeout, max_ahead=1)
                batches = takewhile(lambda batch: batch is not None, loaded)
            for batch, number in zip(batches, numbers, strict=True):
                if isinstance(batch, RamsTransError):
                    raise batch
                yield batch._replace(weight=sampler.weight(number), key=(sampler.seed, epoch, number))

    def _get_iterator(self) -> _BaseDataLoaderIter:
        return super()._get_iterator() if self.num_workers == 0 else _Batches(self)


class _Batches(_MultiProcessingDataLoaderIter):
    """Batches of worker processes, whose death ends a wait for a batch.

    torch looks for dead workers when its timeout is over, and raises from a handler of SIGCHLD, wherever the
    main process is: perhaps in a training step, or while it writes a checkpoint. That handler is removed.
    """

    def __init__(self, loader: ImageLoader) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGCHLD) if is_main and _CAN_WAIT else None
        super().__init__(loader)
        self.files_being_read = loader.dataset.files_being_read
        if before is not None:
            signal.signal(signal.SIGCHLD, before)

    def _try_get_data(self, timeout: float = WORKER_SECONDS) -> tuple[bool, Any]:
        found: tuple[bool, Any] = False, None
        for part in parts_of(timeout, WORKER_SECONDS):
            try:
                found = super()._try_get_data(part)  # type: ignore[no-untyped-call]
            except (RuntimeError, OSError, EOFError) as error:
                codes = self._exit_codes()
                if not codes:
                    raise
                raise death(codes, self.files_being_read()) from error
            if found[0]:
                break
        return found

    def _exit_codes(self) -> list[int | None]:
        """The codes of workers that have ended, or are ending: their connections break first."""
        ended = wait([worker.sentinel for worker in self._workers], WORKER_SECONDS)
        workers = [worker for worker in self._workers if worker.sentinel in ended]
        for worker in workers:
            worker.join(WORKER_SECONDS)
        return [worker.exitcode for worker in workers]


def build_loader(
    dataset: ImageDataset,
    batch_size: int,
    *,
    shuffle: bool,
    with_high_res: bool,
    seed: int = 0,
    draw: Draw | None = None,
    num_workers: int = 0,
    timeout: float = DataConfig.read_timeout,
    pin_memory: bool = False,
) -> ImageLoader:
    """Build a loader of this process's share of the batches; see `EpochBatches`.

    Set its `batch_sampler.epoch` before each pass.
    """
    with loader_errors():
        dataset.note_reads(num_workers)
    sampler = EpochBatches(
        len(dataset),
        batch_size,
        shuffle=shuffle,
        seed=seed,
        draw=draw,
        process=process_index(),
        num_processes=num_processes(),
    )
    loader = ImageLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=partial(_collate_or_error, with_high_res=with_high_res),
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=init_worker,
        multiprocessing_context=start_method() if num_workers > 0 else None,
        timeout=timeout if num_workers > 0 else 0,
        generator=torch.Generator(),  # of the workers' seeds: torch's own is part of a run's saved state
    )
    loader.read_timeout = timeout
    return loader


def _collate_or_error(
    examples: Sequence[Example | RamsTransError], *, with_high_res: bool
) -> Batch | RamsTransError:
    """A batch, or the first error among its examples."""
    errors = [example for example in examples if isinstance(example, RamsTransError)]
    readable = [example for example in examples if isinstance(example, Example)]
    return errors[0] if errors else collate(readable, with_high_res=with_high_res)


def start_method() -> str | None:
    """How `multiprocessing` starts workers: by spawn in distributed runs, otherwise by its default.

    A fork copies one thread of a process, and every lock, held or not. In distributed runs, threads of gloo
    or NCCL exchange tensors: a lock that one of them holds during the fork stays locked in the copy
    forever. PyTorch's documentation of DistributedDataParallel warns of that.
    """
    return "spawn" if num_processes() > 1 else None


@contextmanager
def block_signals() -> Iterator[None]:
    """Block `SIGNALS`, so that children started inside inherit the mask; this thread's is restored."""
    if not _CAN_WAIT:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def init_worker(_worker: int) -> None:
    """In a worker: ignore `SIGNALS` unless the main process sends them, and exit when it does.

    A batch that cannot be sent, e.g. because shared memory is full, ends the worker, with a code that says
    why. `multiprocessing` would drop the batch, and the main process wait for it.

    torch sends SIGTERM to workers that do not end by themselves. A thread waits for it, so that it works
    during a read that hangs. On macOS and Windows SIGTERM ends a worker whoever sends it, as torch has it.
    """
    Queue._on_queue_feeder_error = staticmethod(_exit_because)  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _CAN_WAIT:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    main = multiprocessing.parent_process()
    assert main is not None, "this is a loader's process"
    while os.getppid() == main.pid:
        received = signal.sigtimedwait({signal.SIGTERM}, PARENT_SECONDS)
        if received is not None and received.si_pid == main.pid:
            break
    os._exit(0)


def _exit_because(error: Exception, _batch: object) -> NoReturn:
    os._exit(exit_code_of(error))
