"""What the readers share: names of splits, list files, checks that image files exist, boxes."""

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ramstrans.data.reading.formats import has_image_suffix
from ramstrans.data.reading.retry import retry
from ramstrans.data.reading.text import decode_text
from ramstrans.data.records import Box, Split
from ramstrans.errors import DataError

Value = TypeVar("Value")

SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Splits by the names, in lower case, that folders, tables, tars and other libraries give them."""


def split_of(name: str) -> Split | None:
    """Return the split that a folder, a cell of a table or a library calls by this name, in any case.

    >>> split_of("Validation"), split_of("crow")
    ('val', None)
    """
    return SPLIT_NAMES.get(name.strip().lower())


def split_words(name: str) -> set[Split]:
    """Return the splits that the words of a name mean.

    >>> split_words("birds-TRAIN_v2.tar"), split_words("traineau")
    ({'train'}, set())
    """
    return {SPLIT_NAMES[word] for word in re.split(r"[^a-z0-9]+", name.lower()) if word in SPLIT_NAMES}


def find_folder(root: Path, marker: str, nested: str) -> Path:
    """Return the root, or the folder of the published name in it: whichever holds the marker file.

    Args:
        root: The given folder.
        marker: A file or folder of the data set, relative to its own folder.
        nested: Name of the data set's own folder in its archive.

    Raises:
        DataError: Neither holds the marker.
    """
    for folder in (root, root / nested):
        if (folder / marker).exists():
            return folder
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the one that holds {nested} (--data.root)")
    raise DataError(f"{root} has no {marker}, neither itself nor in {nested}/; unpack the data set there")


def first_there(*files: Path) -> Path:
    """Return the first of the files that exists, or the first one if none does."""
    return next((file for file in files if file.is_file()), files[0])


def read_rows(file: Path, columns: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and fields of each line that is not blank; the last of two fields may contain spaces.

    Args:
        file: UTF-8 text, fields separated by blanks.
        columns: Names of the fields, for messages, e.g. `"image class"`.

    Raises:
        DataError: The file is missing or not text, or a line has another number of fields.
    """
    num_columns = len(columns.split())
    max_splits = 1 if num_columns == 2 else -1
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        fields = line.split(maxsplit=max_splits) if num_columns > 1 else [line]
        fields = [field.strip() for field in fields if field.strip()]
        if not fields:
            continue
        if len(fields) != num_columns:
            raise line_error(file, number, f"{len(fields)} columns; the format has {num_columns}: {columns}")
        yield number, fields


def read_keyed(file: Path, columns: str, parse: Callable[..., Value]) -> dict[str, Value]:
    """Read a list whose first field is different in each line, as a dict of the parsed lines.

    Args:
        file: As in `read_rows`.
        columns: As in `read_rows`.
        parse: Called with the fields of a line; a `ValueError` says what is wrong with them.

    Raises:
        DataError: Naming the file and the line that is wrong.
    """
    values: dict[str, Value] = {}
    for number, fields in read_rows(file, columns):
        if fields[0] in values:
            raise line_error(file, number, f"{columns.partition(' ')[0]} '{fields[0]}' is listed twice")
        try:
            values[fields[0]] = parse(*fields)
        except ValueError as error:
            raise line_error(file, number, str(error)) from error
    return values


def read_names(file: Path, what: str) -> dict[str, str]:
    """Read names by id from lines of `id name`; a name may contain spaces.

    Raises:
        DataError: Naming the file, and the line that is wrong or lists an id again.
    """
    return read_keyed(file, f"{what} name", lambda _key, name: name)


def read_classes(file: Path) -> dict[str, int]:
    """Read a list with one class per line; the label of a class is its index there.

    Raises:
        DataError: Naming the file, and the line that lists a class again.
    """
    names = read_keyed(file, "class", str)
    return {name: label for label, name in enumerate(names)}


def read_text(file: Path) -> str:
    """Read a text file that the format needs; a missing or unreadable one is a `DataError`."""
    try:
        text = decode_text(retry(file.read_bytes, file), file)
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{file} is missing; unpack the whole set, or choose another --data.name") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def read_json(file: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:  # noqa: ANN401
    """Read a JSON file that the format needs, each object replaced by the result of the hook.

    Raises:
        DataError: The file is missing or not JSON, or the hook raised a `KeyError`, `TypeError` or
            `ValueError`.
    """
    text = read_text(file)
    try:
        return json.loads(text, object_hook=object_hook)
    except KeyError as error:
        raise DataError(f"{file}: an entry has no {error}; take the published file") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{file} is not as published: {error}") from error


def line_error(file: Path, number: int, what: str) -> DataError:
    """Make the error that names a line, counted from 1."""
    return DataError(f"{file}, line {number}: {what}")


class FolderListing:
    """The files that exist; lists each folder once, which is faster than one call per file.

    >>> Path("nowhere/wren.jpg") in FolderListing()
    False
    """

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def __contains__(self, path: Path | str) -> bool:
        folder, name = os.path.split(path)
        return name in self.names(folder)

    def names(self, folder: Path | str) -> frozenset[str]:
        """Names of the entries of a folder; empty if it does not exist."""
        folder = str(folder)
        if folder not in self._names:
            try:
                names = os.listdir(folder or ".")  # noqa: PTH208 - millions of `Path` would be slow
            except (FileNotFoundError, NotADirectoryError, ValueError):  # a zero byte, which no name has
                names = []
            except OSError as error:
                raise DataError(f"{folder} cannot be read: {error.strerror}") from error
            self._names[folder] = frozenset(names)
        return self._names[folder]

    def images(self, path: Path) -> list[str]:
        """The names, sorted, of the images that a path without an image's suffix may stand for."""
        folder = str(path.parent)
        if folder not in self._stems:
            stems = self._stems[folder] = defaultdict(list)
            for name in sorted(filter(has_image_suffix, self.names(folder))):
                stems[Path(name).stem].append(name)
        return self._stems[folder].get(path.name, [])

    def check(self, path: Path | str, source: object) -> None:
        """Raise a `DataError` unless the file exists; `source` names the list that names the file."""
        if path not in self:
            raise DataError(f"{source}: {path} does not exist")


def distinct_names(names: dict[str, str]) -> tuple[str, ...]:
    """List the names, in order; names that several ids share get their id appended.

    >>> distinct_names({"3": "Agathis", "5": "Morus", "8": "Agathis"})
    ('Agathis (3)', 'Morus', 'Agathis (8)')
    """
    counts = Counter(names.values())
    return tuple(name if counts[name] == 1 else f"{name} ({key})" for key, name in names.items())


def parse_number(field: str) -> float:
    """Parse a finite number.

    >>> parse_number("inf")
    Traceback (most recent call last):
    ValueError: 'inf' is not a finite number
    """
    number = float(field)
    if not math.isfinite(number):
        raise ValueError(f"'{field}' is not a finite number")
    return number


def parse_flag(field: str) -> bool:
    """Parse `1` as True and `0` as False; anything else is a `ValueError`."""
    if field not in ("0", "1"):
        raise ValueError(f"'{field}' is neither 0 nor 1")
    return field == "1"


def box_from_size(x: float, y: float, width: float, height: float) -> Box:
    """Convert corner and size to corners; they may pass the image's edge, as some published boxes do.

    >>> box_from_size(2, 3, 5, 7)
    (2, 3, 7, 10)
    """
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise ValueError(f"the box is {width:g} wide and {height:g} high; both must be above 0")
    return x, y, x + width, y + height


def box_from_pixels(x0: float, y0: float, x1: float, y1: float) -> Box:
    """Convert first and last pixel, counted from 1 as in MATLAB and VOC, to half-open corners.

    >>> box_from_pixels(1, 1, 5, 7)
    (0, 0, 5, 7)
    """
    return box_from_size(x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1)


def box_around(boxes: list[Box]) -> Box | None:
    """Return the smallest box that contains all boxes; None for no boxes.

    >>> box_around([(2, 3, 5, 7), (3, 1, 11, 5)])
    (2, 1, 11, 7)
    """
    if not boxes:
        return None
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)
