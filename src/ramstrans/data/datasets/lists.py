"""What the readers share: names of splits, list files, image files that must exist, boxes."""

import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ramstrans.data.reading.retry import open_retrying
from ramstrans.data.records import Box, Split
from ramstrans.errors import DataError

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""The splits by the names that folders, tables and other libraries give them."""


def find_folder(root: Path, landmark: str, nested: str) -> Path:
    """The root, or the folder of the published name in it: whichever holds the landmark.

    Args:
        root: The folder that was given.
        landmark: A file or folder that the data set has, relative to its own folder.
        nested: Name of the data set's own folder, as it is unpacked.

    Raises:
        DataError: Neither holds it.
    """
    for folder in (root, root / nested):
        if (folder / landmark).is_file() or (folder / landmark).is_dir():
            return folder
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the one that holds {nested} (--data.root)")
    raise DataError(f"{root} holds no {landmark}, neither itself nor in {nested}/; unpack the data set there")


def first_there(*files: Path) -> Path:
    """The first of the files that exists, or else the first."""
    return next((file for file in files if file.is_file()), files[0])


def read_rows(file: Path, columns: str, layout: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank; the last of two fields may hold spaces.

    Args:
        file: Text in UTF-8, fields separated by blanks.
        columns: Their names, for messages, e.g. `"image class"`.
        layout: Name of the data set, for messages.

    Raises:
        DataError: The file is missing or no text, or a line has another number of fields.
    """
    num_columns = len(columns.split())
    max_splits = 1 if num_columns == 2 else -1
    for number, line in enumerate(read_text(file, layout).split("\n"), start=1):
        fields = line.split(maxsplit=max_splits) if num_columns > 1 else [line]
        fields = [field.strip() for field in fields if field.strip()]
        if not fields:
            continue
        if len(fields) != num_columns:
            raise line_error(file, number, f"{len(fields)} columns; the layout has {num_columns}: {columns}")
        yield number, fields


def read_classes(file: Path, layout: str) -> dict[str, int]:
    """The label of each class, from a list of one a line: its place there.

    Raises:
        DataError: Naming the file, and the line that lists a class again.
    """
    labels: dict[str, int] = {}
    for number, (name,) in read_rows(file, "class", layout):
        if name in labels:
            raise line_error(file, number, f"class '{name}' is listed twice")
        labels[name] = len(labels)
    return labels


def read_text(file: Path, layout: str) -> str:
    """The text of a file that the layout needs; a missing or unreadable one is a `DataError`."""
    try:
        # None is published with a byte-order mark, but editors add it.
        with io.TextIOWrapper(open_retrying(file), encoding="utf-8-sig") as text:
            return text.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{file} is missing; the layout of {layout} needs it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def read_json(file: Path, layout: str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:  # noqa: ANN401 - as it is written there
    """What a JSON file that the layout needs holds; each object as the hook makes of it.

    Raises:
        DataError: The file is missing, no JSON, or the hook raised `KeyError`, `TypeError` or `ValueError`.
    """
    text = read_text(file, layout)
    try:
        return json.loads(text, object_hook=object_hook)
    except KeyError as error:
        raise DataError(f"{file}: an entry has no {error}; the layout of {layout} needs it") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{file} cannot be read in the layout of {layout}: {error}") from error


def line_error(file: Path, number: int, what: str) -> DataError:
    """The error that names a line, counted from 1."""
    return DataError(f"{file}, line {number}: {what}")


class FolderListing:
    """Which files exist; each folder is listed once, which is faster than asking for each file.

    >>> Path("nowhere/wren.jpg") in FolderListing()
    False
    """

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def __contains__(self, path: Path | str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            self._names[folder] = _file_names(folder)
        return name in self._names[folder]


def _file_names(folder: str) -> frozenset[str]:
    try:
        # No `Path` for each of millions.
        return frozenset(os.listdir(folder or "."))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without hidden files and folders.

    Raises:
        OSError: It cannot be read.
    """

    def scan() -> list[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]

    return sorted(scan(), key=lambda entry: entry.name)


def distinct_names(names: dict[str, str]) -> tuple[str, ...]:
    """The names, in order; those that several ids share are told apart by their ids.

    >>> distinct_names({"3": "Agathis", "5": "Morus", "8": "Agathis"})
    ('Agathis (3)', 'Morus', 'Agathis (8)')
    """
    counts = Counter(names.values())
    return tuple(name if counts[name] == 1 else f"{name} ({key})" for key, name in names.items())


def parse_number(field: str) -> float:
    """A finite number.

    >>> parse_number("inf")
    Traceback (most recent call last):
    ValueError: 'inf' is not a finite number
    """
    number = float(field)
    if not math.isfinite(number):
        raise ValueError(f"'{field}' is not a finite number")
    return number


def parse_flag(field: str) -> bool:
    """True for `1`, False for `0`; anything else is a `ValueError`."""
    if field not in ("0", "1"):
        raise ValueError(f"'{field}' is neither 0 nor 1")
    return field == "1"


def box_from_size(x: float, y: float, width: float, height: float) -> Box:
    """Corners from corner and size; past the image's edge is allowed, as some published ones are.

    >>> box_from_size(2, 3, 5, 7)
    (2, 3, 7, 10)
    """
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise ValueError(f"the box is {width:g} wide and {height:g} high; both must be above 0")
    return x, y, x + width, y + height


def box_from_pixels(x0: float, y0: float, x1: float, y1: float) -> Box:
    """Half-open corners from the first and last pixel, counted from 1, as MATLAB and VOC write them.

    >>> box_from_pixels(1, 1, 5, 7)
    (0, 0, 5, 7)
    """
    return box_from_size(x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1)


def box_around(boxes: list[Box]) -> Box | None:
    """The smallest box that holds them all; None for no boxes.

    >>> box_around([(2, 3, 5, 7), (3, 1, 11, 5)])
    (2, 1, 11, 7)
    """
    if not boxes:
        return None
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)
