"""Decode every image file once, so that broken ones are reported before the first epoch."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ramstrans.console import Progress, no_progress
from ramstrans.data.config import DataConfig
from ramstrans.data.reading.decode import decode_reduced
from ramstrans.data.reading.threads import NUM_THREADS, in_threads
from ramstrans.data.records import Record
from ramstrans.errors import DataError, UnreadableImageError

_T = TypeVar("_T")


def find_unreadable(
    records: Iterable[Record],
    max_pixels: int = DataConfig.max_pixels,
    progress: Progress = no_progress,
    timeout: float = DataConfig.read_timeout,
) -> list[UnreadableImageError]:
    """Read every image file to its end, and return an error for each that cannot be decoded.

    Args:
        records: The records to check; a file listed twice is read once.
        max_pixels: As in `decode_reduced`.
        progress: Reports files done.
        timeout: Seconds in which one of the threads must finish a file; 0 waits forever.

    Returns:
        The errors, in the order of the records.

    Raises:
        DataError: No thread finished a file in time; the message names the file.
    """

    def decode(path: Path) -> None:
        # A JPEG is read to its last byte even at its smallest size, in half the time.
        decode_reduced(path, (1, 1), max_pixels=max_pixels)

    outcomes = decode_each(decode, records, progress, timeout)
    return [outcome for _, outcome in outcomes if isinstance(outcome, UnreadableImageError)]


def decode_each(
    decode: Callable[[Path], _T],
    records: Iterable[Record],
    progress: Progress = no_progress,
    timeout: float = DataConfig.read_timeout,
) -> Iterator[tuple[Path, _T | UnreadableImageError]]:
    """Call a function on each file of some records once; yield each file with its result or error.

    `decode` may raise `UnreadableImageError`; the other arguments are those of `find_unreadable`.
    """

    def outcome(path: Path) -> _T | UnreadableImageError:
        try:
            return decode(path)
        except UnreadableImageError as error:
            # A new one: the traceback of the caught one would keep the half-decoded pixels alive.
            return UnreadableImageError(error.path, error.reason)

    paths = list(dict.fromkeys(record.path for record in records))
    done = 0
    try:
        for result in in_threads(outcome, paths, NUM_THREADS, timeout):
            yield paths[done], result
            done += 1
            progress(done, len(paths), "checking files")
    except TimeoutError as error:
        raise DataError(
            f"{paths[done]}: {error}; check the file system, or give a longer --data.read_timeout"
        ) from error
