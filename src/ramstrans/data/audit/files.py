"""Decode every image file once, so that broken ones are reported before the first epoch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from ramstrans.console import Progress, no_progress
from ramstrans.data.config import DataConfig
from ramstrans.data.reading.decode import decode_reduced
from ramstrans.data.reading.threads import NUM_THREADS, in_threads
from ramstrans.data.records import ImageSet, Record
from ramstrans.data.splits import check_classes
from ramstrans.errors import DataError, UnreadableImageError, first_few
from ramstrans.plain import counted

_MAX_NAMED = 10

_T = TypeVar("_T")


def find_unreadable(
    records: Iterable[Record],
    max_pixels: int = DataConfig.max_pixels,
    num_workers: int = NUM_THREADS,
    progress: Progress = no_progress,
    timeout: float = DataConfig.read_timeout,
) -> list[UnreadableImageError]:
    """Read every image file to its end, and return an error for each that cannot be decoded.

    Args:
        records: The records to check; a file listed twice is read once.
        max_pixels: As in `decode_reduced`.
        num_workers: Threads, which help because decoding releases the GIL; 0 decodes in the calling thread.
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

    outcomes = decode_each(decode, records, num_workers, progress, timeout)
    return [outcome for _, outcome in outcomes if isinstance(outcome, UnreadableImageError)]


def decode_each(
    decode: Callable[[Path], _T],
    records: Iterable[Record],
    num_workers: int = NUM_THREADS,
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
        for result in in_threads(outcome, paths, num_workers, timeout):
            yield paths[done], result
            done += 1
            progress(done, len(paths), "checking files")
    except TimeoutError as error:
        raise DataError(
            f"{paths[done]}: {error}; check the file system, or give a longer --data.read_timeout"
        ) from error


def apply_unreadable(
    images: ImageSet, errors: Sequence[UnreadableImageError], on_unreadable: Literal["stop", "skip"]
) -> ImageSet:
    """Raise because of unreadable files, or leave them out.

    Args:
        images: The data set.
        errors: The result of `find_unreadable`.
        on_unreadable: `stop` raises one error that names the files; `skip` drops their records.

    Returns:
        The data set without the unreadable files; the same one if there are none.

    Raises:
        DataError: There are unreadable files and `on_unreadable` is `stop`, or a class is left without
            training images, or the data set without test images.

    >>> images = ImageSet(("crow", "wren"), tuple(Record(Path(f"{i}.jpg"), i % 2, "train") for i in range(3)))
    >>> error = UnreadableImageError("0.jpg", "empty file")
    >>> [record.path.name for record in apply_unreadable(images, [error], "skip").records]
    ['1.jpg', '2.jpg']
    """
    if not errors:
        return images
    if on_unreadable == "stop":
        raise DataError(
            f"{counted(len(errors), 'image file')} cannot be read: "
            f"{first_few(list(map(str, errors)), _MAX_NAMED)}. "
            "Repair or remove them, or go on without them by --data.on_unreadable skip"
        )
    unreadable = {error.path for error in errors}
    kept = tuple(record for record in images.records if record.path not in unreadable)
    remaining = images._replace(records=kept)
    check_classes(remaining)
    num_test = len(images.of_split("test"))
    if num_test and not remaining.of_split("test"):
        raise DataError(f"none of the {num_test} test images can be read, e.g. {errors[0]}; repair them")
    return remaining
