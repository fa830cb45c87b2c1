"""CUB-200-2011 and every data set in its layout: lists of images, labels, splits, boxes and parts.

http://www.vision.caltech.edu/datasets/cub_200_2011/
"""

import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import TypeVar

from ramstrans.data.records import ImageSet, Part, Record, Split
from ramstrans.data.splits import check_classes
from ramstrans.errors import DataError

_FOLDER = "CUB_200_2011"
_T = TypeVar("_T")
_Box = tuple[float, float, float, float]


def read_cub(root: Path) -> ImageSet:
    """Read a data set in CUB-200-2011's layout; boxes and parts are read where they are there.

    Args:
        root: The folder that holds `images.txt`, or the one above, holding `CUB_200_2011/`.

    Returns:
        Classes and records in the order of `classes.txt` and `images.txt`, with visible parts only.

    Raises:
        DataError: Naming the file and line that is missing or wrong.
    """
    folder = _find_folder(root)
    names = _read_names(folder / "classes.txt", "class")
    label_of = {class_id: label for label, class_id in enumerate(names)}
    paths = _read_paths(folder)

    def label(fields: list[str]) -> int:
        if fields[0] not in label_of:
            raise ValueError(f"class '{fields[0]}' is not in classes.txt, which lists {len(label_of)}")
        return label_of[fields[0]]

    labels = _read_one_each(folder / "image_class_labels.txt", "image class", label, paths)
    splits = _read_one_each(folder / "train_test_split.txt", "image is_train", _split, paths)
    for required, file in ((labels, "image_class_labels.txt"), (splits, "train_test_split.txt")):
        if len(required) < len(paths):
            missing = next(image for image in paths if image not in required)
            raise DataError(f"{folder / file}: no line for image {missing} of images.txt; add it")
    boxes = _read_boxes(folder, paths)
    parts = _read_parts(folder, paths)
    records = tuple(
        Record(path, labels[image], splits[image], boxes.get(image), tuple(parts.get(image, ())))
        for image, path in paths.items()
    )
    images = ImageSet(tuple(names.values()), records)
    check_classes(images)
    return images


def _find_folder(root: Path) -> Path:
    for folder in (root, root / _FOLDER):
        if (folder / "images.txt").is_file():
            return folder
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the one that holds {_FOLDER} (--data.root)")
    raise DataError(
        f"{root} holds no images.txt, neither itself nor in {_FOLDER}/; unpack the data set there"
    )


def _read_names(file: Path, what: str) -> dict[str, str]:
    """Names by id, from lines of `id name`; a name may hold spaces."""
    names: dict[str, str] = {}
    for number, (key, name) in _rows(file, f"{what} name"):
        if key in names or name in names.values():
            raise _error(file, number, f"{what} {key} '{name}' is listed twice")
        names[key] = name
    return names


def _read_paths(folder: Path) -> dict[str, Path]:
    """Existing image files by id; each folder is listed once, which is faster than asking for each file."""
    file = folder / "images.txt"
    paths: dict[str, Path] = {}
    present: dict[Path, frozenset[str]] = {}
    for number, (image, name) in _rows(file, "image path"):
        path = folder / "images" / name
        if path.parent not in present:
            present[path.parent] = _file_names(path.parent)
        if path.name not in present[path.parent]:
            raise _error(file, number, f"{path} does not exist")
        if image in paths:
            raise _error(file, number, f"image {image} is listed twice")
        paths[image] = path
    return paths


def _file_names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error


def _read_boxes(folder: Path, images: Container[str]) -> dict[str, _Box]:
    file = folder / "bounding_boxes.txt"
    return _read_one_each(file, "image x y width height", _box, images) if file.is_file() else {}


def _read_parts(folder: Path, images: Container[str]) -> dict[str, list[Part]]:
    """The visible parts of each image, from `parts/`."""
    file = folder / "parts" / "part_locs.txt"
    parts: dict[str, list[Part]] = defaultdict(list)
    if not file.is_file():
        return parts
    names = _read_names(folder / "parts" / "parts.txt", "part")

    def part(fields: list[str]) -> Part | None:
        key, x, y, visible = fields
        if key not in names:
            raise ValueError(f"part '{key}' is not in parts.txt, which lists {len(names)}")
        place = (_number(x), _number(y))
        return Part(names[key], *place) if _flag(visible) else None

    for image, seen in _read_each(file, "image part x y visible", part, images):
        if seen is not None:
            parts[image].append(seen)
    return parts


def _split(fields: list[str]) -> Split:
    return "train" if _flag(fields[0]) else "test"


def _box(fields: list[str]) -> _Box:
    """Corners from corner and size; past the image's edge is allowed, as some of CUB's own are."""
    x, y, width, height = (_number(field) for field in fields)
    if width <= 0 or height <= 0:
        raise ValueError(f"the box is {width:g} wide and {height:g} high; both must be above 0")
    return x, y, x + width, y + height


def _flag(field: str) -> bool:
    if field not in ("0", "1"):
        raise ValueError(f"'{field}' is neither 0 nor 1")
    return field == "1"


def _number(field: str) -> float:
    number = float(field)
    if not math.isfinite(number):
        raise ValueError(f"'{field}' is not a finite number")
    return number


def _read_one_each(
    file: Path, columns: str, parse: Callable[[list[str]], _T], images: Container[str]
) -> dict[str, _T]:
    """One parsed value an image."""
    values: dict[str, _T] = {}
    for image, value in _read_each(file, columns, parse, images):
        if image in values:
            raise DataError(f"{file}: image {image} has more than one line; keep one")
        values[image] = value
    return values


def _read_each(
    file: Path, columns: str, parse: Callable[[list[str]], _T], images: Container[str]
) -> Iterator[tuple[str, _T]]:
    """The image id and the parsed rest of each line; a `ValueError` in parsing names the line."""
    for number, (image, *fields) in _rows(file, columns):
        if image not in images:
            raise _error(file, number, f"image {image} is not in images.txt")
        try:
            yield image, parse(fields)
        except ValueError as error:
            raise _error(file, number, str(error)) from error


def _rows(file: Path, columns: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank; the last of two fields may hold spaces."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"{file} is missing; CUB-200-2011's layout needs it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    num_columns = len(columns.split())
    max_splits = 1 if num_columns == 2 else -1
    for number, line in enumerate(lines, start=1):
        fields = line.strip().split(maxsplit=max_splits)
        if not fields:
            continue
        if len(fields) != num_columns:
            raise _error(file, number, f"{len(fields)} columns; the layout has {num_columns}: {columns}")
        yield number, fields


def _error(file: Path, number: int, what: str) -> DataError:
    return DataError(f"{file}, line {number}: {what}")
