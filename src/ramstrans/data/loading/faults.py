"""Errors of a loader in one line each: what happened, which file was being read, what to do."""

import errno
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ramstrans.errors import DataError, first_few

_MAX_NAMED = 4
_SHARED_MEMORY = Path("/dev/shm")  # where Linux has it, and a container perhaps too little

LESS_MEMORY = "give fewer --data.num_workers, --data.cache disk or none, or a smaller --training.batch_size"
LESS_SHARED = (
    "start the container with more (docker run --shm-size 8g, or --ipc host), or give fewer "
    "--data.num_workers; 0 needs none"
)
LESS_FILES = "raise the limit (ulimit -n 65536), or give fewer --data.num_workers"
FAULTS = {
    errno.ENOSPC: ("shared memory is full", LESS_SHARED),
    errno.EMFILE: ("too many open files", LESS_FILES),
    errno.ENOMEM: ("no memory left", LESS_MEMORY),
    -signal.SIGBUS: ("shared memory is full", LESS_SHARED),
    -signal.SIGKILL: ("killed by SIGKILL, as the system does when memory runs out", LESS_MEMORY),
}
"""Why a process ended, and what to do, by its exit code: the number of the system's error, or of a signal."""


def exit_code_of(error: BaseException) -> int:
    """The code with which a worker exits that cannot send a batch: the number of the system's error, else 1.

    torch raises RuntimeError with the number at the end of its text.

    >>> exit_code_of(OSError(errno.EMFILE, "Too many open files"))
    24
    >>> exit_code_of(RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: (28)"))
    28
    """
    if isinstance(error, OSError):
        number = error.errno
    else:
        number = next((known for known in FAULTS if f"({known})" in str(error)), None)
    return number if number in FAULTS else 1


def death(exit_codes: Iterable[int | None], files: list[str]) -> DataError:
    """The error for loader processes that have ended with these codes while reading some files.

    Args:
        exit_codes: Negative for a signal, as in `multiprocessing`; None for a process that runs.
        files: Named unless the reason shows that they are not to blame.

    >>> print(death([None, -signal.SIGSEGV], ["wren.jpg"]))
    a process of the loader died (SIGSEGV) while reading wren.jpg; repair or remove that file
    """
    code = next(filter(None, exit_codes), 0)
    reason, remedy = _reason(code)
    reading = _while_reading(files) if remedy is None or code == -signal.SIGKILL else ""
    if remedy is None:
        remedy = "repair or remove that file" if len(files) == 1 else "see what it wrote above"
    return DataError(f"a process of the loader died ({reason}){reading}; {remedy}")


def _reason(code: int) -> tuple[str, str | None]:
    """Why a process ended with a code, and the remedy; None: it depends on the file."""
    if code not in FAULTS:
        return (f"exit code {code}" if code >= 0 else signal.Signals(-code).name), None
    reason, remedy = FAULTS[code]
    if remedy == LESS_SHARED and _SHARED_MEMORY.is_dir():
        reason += f", {_SHARED_MEMORY} has {shutil.disk_usage(_SHARED_MEMORY).total / 1e6:,.0f} MB"
    return reason, remedy


def _while_reading(files: list[str]) -> str:
    return f" while reading {first_few(files, _MAX_NAMED)}" if files else ""


@contextmanager
def loader_errors(files_being_read: Callable[[], list[str]] = list) -> Iterator[None]:
    """Explain the errors of a loader, naming files.

    Raises:
        DataError: A batch took too long, or memory, shared memory or open files have run out.
    """
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        message = " ".join(str(error).split()).rstrip(".")
        reading = _while_reading(files_being_read())
        if "timed out" in message:
            raise DataError(
                f"no batch came in time ({message}){reading}; look for a file system that hangs, "
                "or give a longer --data.read_timeout"
            ) from error
        if isinstance(error, MemoryError) or "allocate memory" in message:
            raise DataError(f"no memory left to load images{reading}; {LESS_MEMORY}") from error
        code = errno.EMFILE if "Too many open files" in message else exit_code_of(error)
        if code not in FAULTS:
            raise
        reason, remedy = _reason(code)
        raise DataError(f"the loader cannot go on ({reason}); {remedy}") from error
