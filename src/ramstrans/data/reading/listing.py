"""Folders are listed here, for training, checks and predictions: which files are images, what is left out."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import NoReturn

from ramstrans.data.reading.formats import HEIF_HINT, has_image_suffix, needs_heif, suffix_of
from ramstrans.errors import DataError

logger = logging.getLogger(__name__)

LINKED_FOLDER = "link to a folder"
LOOSE_IMAGE = "image in no class folder"
EMPTY_FOLDER = "folder without images"

OnError = Callable[[Path, OSError], None]
"""Called with a folder that cannot be listed."""

_MAX_KINDS = 8
_PLURALS = {
    LINKED_FOLDER: "links to folders",
    LOOSE_IMAGE: "images in no class folder",
    EMPTY_FOLDER: "folders without images",
    "sample without an image": "samples without an image",
}
_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""What operating systems leave behind; as little news as hidden files."""


class LeftOut(Counter[str]):
    """Counts what a reader does not use, by kind.

    >>> left_out = LeftOut()
    >>> left_out.add_file("a.MOV"), left_out.add_file("b.mov"), left_out.add_file("notes")
    (None, None, None)
    >>> str(left_out)
    '2 .mov, 1 without a suffix'
    """

    def __str__(self) -> str:
        """The kinds with their counts, most files first."""
        kinds = sorted(self.items(), key=lambda item: (-item[1], item[0]))
        named = [
            f"{count} {kind if count == 1 else _PLURALS.get(kind, kind)}"
            + (f" ({HEIF_HINT})" if needs_heif(kind) else "")
            for kind, count in kinds[:_MAX_KINDS]
        ]
        rest = sum(count for _, count in kinds[_MAX_KINDS:])
        return ", ".join([*named, *([f"{rest} of other kinds"] if rest else [])])

    def add_file(self, name: str) -> None:
        """Count a file that is not an image, by its suffix."""
        self[suffix_of(name) or "without a suffix"] += 1

    def log(self, source: object) -> None:
        """Log one warning with all counts, if there are any; the same one only once per process."""
        if self:
            _warn_once(f"{source}: left out {self}")


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def refuse(folder: Path, error: OSError) -> NoReturn:
    """Raise the DataError of a folder that cannot be listed."""
    if isinstance(error, FileNotFoundError):
        raise DataError(f"{folder} does not exist; give the folder of the data set (--data.root)") from error
    raise DataError(f"{folder} cannot be read as a folder: {error.strerror}") from error


def list_folder(folder: Path, on_error: OnError = refuse) -> list[os.DirEntry[str]]:
    """List a folder, sorted by name, without hidden files and what operating systems leave behind.

    Raises:
        DataError: It cannot be listed, unless `on_error` returns; then it counts as empty.
    """
    try:
        with os.scandir(folder) as entries:
            seen = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _SYSTEM_NAMES]
    except OSError as error:
        on_error(folder, error)
        return []
    return sorted(seen, key=attrgetter("name"))


def is_hidden(name: str) -> bool:
    """Whether a path within a tar is of a hidden file, or of what operating systems leave behind.

    >>> is_hidden("birds/._wren.jpg"), is_hidden("__MACOSX/wren.jpg"), is_hidden("./birds/wren.jpg")
    (True, True, False)
    """
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part.lower() in _SYSTEM_NAMES for part in parts)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link that leads in circles, or nowhere, does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def images_below(folder: Path, left_out: LeftOut, on_error: OnError = refuse) -> Iterator[Path]:
    """Yield all images in a folder and below, sorted by path, one folder listed at a time.

    Links to files are followed. Links to folders, which may be loops, and files of other kinds are counted.
    """
    for entry in list_folder(folder, on_error):
        if is_folder(entry):
            if entry.is_symlink():
                left_out[LINKED_FOLDER] += 1
            else:
                yield from images_below(Path(entry), left_out, on_error)
        elif has_image_suffix(entry.name):
            yield Path(entry)
        else:
            left_out.add_file(entry.name)
