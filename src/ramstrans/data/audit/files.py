"""A look at every image file before the first epoch, so that a broken one is named and not met later."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from ramstrans.console import Progress, no_progress
from ramstrans.data.config import DataConfig
from ramstrans.data.reading.decode import decode_reduced
from ramstrans.data.reading.threads import in_threads
from ramstrans.data.records import ImageSet, Record
from ramstrans.data.splits import check_classes
from ramstrans.errors import DataError, UnreadableImageError

NUM_THREADS = min(8, os.cpu_count() or 1)
"""That decode files side by side, unless another number is asked for."""

_MAX_NAMED = 10


def find_unreadable(
    records: Iterable[Record],
    max_pixels: int = DataConfig.max_pixels,
    num_workers: int = NUM_THREADS,
    progress: Progress = no_progress,
    timeout: float = DataConfig.read_timeout,
) -> list[UnreadableImageError]:
    """Read every image file to its end, and return an error for each that cannot be decoded.

    Args:
        records: What to look at; a file listed twice is read once.
        max_pixels: As in `decode_image`.
        num_workers: Threads, which pay because decoding holds no lock; 0 decodes in this one.
        progress: Called after each file.
        timeout: Seconds in which one of the threads must be done with a file; 0: any time.

    Returns:
        The errors, in the order of the records.

    Raises:
        DataError: None was; names the file that is waited for.
    """
    paths = list(dict.fromkeys(record.path for record in records))
    errors, done = [], 0
    try:
        for error in in_threads(lambda path: _outcome(path, max_pixels), paths, num_workers, timeout):
            done += 1
            if error is not None:
                errors.append(error)
            progress(done, len(paths), "checking files")
    except TimeoutError as error:
        raise DataError(
            f"{paths[done]}: {error}; look for a file system that hangs, or give a longer --data.read_timeout"
        ) from error
    return errors


def apply_unreadable(
    images: ImageSet, errors: Sequence[UnreadableImageError], on_unreadable: Literal["stop", "skip"]
) -> ImageSet:
    """Stop because of unreadable files, or leave them out.

    Args:
        images: The data set.
        errors: What `find_unreadable` found in it.
        on_unreadable: `stop` raises one error that names the files; `skip` drops their records.

    Returns:
        The data set without the unreadable files; the same where there are none.

    Raises:
        DataError: If there are any and we are to stop, or if too little is left without them.

    >>> images = ImageSet(("crow", "wren"), tuple(Record(Path(f"{i}.jpg"), i % 2, "train") for i in range(3)))
    >>> error = UnreadableImageError("0.jpg", "empty file")
    >>> [record.path.name for record in apply_unreadable(images, [error], "skip").records]
    ['1.jpg', '2.jpg']
    """
    if not errors:
        return images
    if on_unreadable == "stop":
        named = "; ".join(str(error) for error in errors[:_MAX_NAMED])
        more = f"; and {len(errors) - _MAX_NAMED} more" if len(errors) > _MAX_NAMED else ""
        raise DataError(
            f"{len(errors)} image file{'s' * (len(errors) > 1)} cannot be read: {named}{more}. "
            "Repair or remove them, or go on without them by --data.on_unreadable skip"
        )
    unreadable = {error.path for error in errors}
    kept = tuple(record for record in images.records if record.path not in unreadable)
    remaining = images._replace(records=kept)
    check_classes(remaining)
    return remaining


def _outcome(path: Path, max_pixels: int) -> UnreadableImageError | None:
    try:
        # A JPEG reduced as far as may be is read to its last byte all the same, in half the time.
        decode_reduced(path, 1, max_pixels=max_pixels)
    except UnreadableImageError as error:
        # A fresh one: the caught one's traceback would keep the half-decoded pixels alive.
        return UnreadableImageError(error.path, error.reason)
    return None
