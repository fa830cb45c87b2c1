"""The list files that CUB-200-2011 and NABirds share: images, labels, splits, boxes, parts."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ramstrans.data.datasets.lists import (
    FolderListing,
    box_from_size,
    line_error,
    parse_flag,
    parse_number,
    read_rows,
)
from ramstrans.data.records import Box, Part, Record, Split
from ramstrans.errors import DataError

_T = TypeVar("_T")


def read_names(file: Path, what: str, data_format: str, *, are_distinct: bool = True) -> dict[str, str]:
    """Names by id, from lines of `id name`; a name may contain spaces.

    Args:
        file: The list.
        what: What the names name, in a word, for messages.
        data_format: Name of the format, for messages.
        are_distinct: Whether two ids with the same name are an error.

    Raises:
        DataError: Naming the file and line that is missing or wrong.
    """
    names: dict[str, str] = {}
    seen: set[str] = set()
    for number, (key, name) in read_rows(file, f"{what} name", data_format):
        if key in names or (are_distinct and name in seen):
            raise line_error(file, number, f"{what} {key} '{name}' is listed twice")
        names[key] = name
        seen.add(name)
    return names


def read_records(folder: Path, names: dict[str, str], data_format: str) -> tuple[Record, ...]:
    """The records of a data set in these lists, with boxes and parts if there are lists of them.

    Args:
        folder: The folder of `images.txt` and the other lists.
        names: Class names by id; a label is the index of its class there.
        data_format: Name of the format, for messages.

    Returns:
        Records in the order of `images.txt`, with visible parts only.

    Raises:
        DataError: Naming the file and line that is missing or wrong.
    """
    label_of = {class_id: label for label, class_id in enumerate(names)}
    lists = _Lists(folder, data_format)

    def label(fields: list[str]) -> int:
        if fields[0] not in label_of:
            raise ValueError(f"class '{fields[0]}' is not in classes.txt, which lists {len(label_of)}")
        return label_of[fields[0]]

    labels = lists.one_each("image_class_labels.txt", "image class", label)
    splits = lists.one_each("train_test_split.txt", "image is_train", _split)
    for required, file in ((labels, "image_class_labels.txt"), (splits, "train_test_split.txt")):
        if len(required) < len(lists.paths):
            missing = next(image for image in lists.paths if image not in required)
            raise DataError(f"{folder / file}: no line for image {missing} of images.txt; add it")
    boxes, parts = _read_boxes(lists), _read_parts(lists)
    return tuple(
        Record(path, labels[image], splits[image], boxes.get(image), tuple(parts.get(image, ())))
        for image, path in lists.paths.items()
    )


class _Lists:
    """The lists of one folder; each line of them is about an image of `images.txt`."""

    def __init__(self, folder: Path, data_format: str) -> None:
        self.folder = folder
        self.data_format = data_format
        self.paths = _read_paths(folder, data_format)

    def one_each(self, name: str, columns: str, parse: Callable[[list[str]], _T]) -> dict[str, _T]:
        """One parsed value per image."""
        values: dict[str, _T] = {}
        for image, value in self.each(name, columns, parse):
            if image in values:
                raise DataError(f"{self.folder / name}: image {image} has more than one line; keep one")
            values[image] = value
        return values

    def each(self, name: str, columns: str, parse: Callable[[list[str]], _T]) -> Iterator[tuple[str, _T]]:
        """The image id and the parsed rest of each line; a `ValueError` in parsing names the line."""
        file = self.folder / name
        for number, (image, *fields) in read_rows(file, columns, self.data_format):
            if image not in self.paths:
                raise line_error(file, number, f"image {image} is not in images.txt")
            try:
                yield image, parse(fields)
            except ValueError as error:
                raise line_error(file, number, str(error)) from error


def _read_paths(folder: Path, data_format: str) -> dict[str, Path]:
    """Existing image files by id."""
    file, present = folder / "images.txt", FolderListing()
    paths: dict[str, Path] = {}
    for number, (image, name) in read_rows(file, "image path", data_format):
        path = folder / "images" / name
        present.check(path, f"{file}, line {number}")
        if image in paths:
            raise line_error(file, number, f"image {image} is listed twice")
        paths[image] = path
    return paths


def _read_boxes(lists: _Lists) -> dict[str, Box]:
    name = "bounding_boxes.txt"
    if not (lists.folder / name).is_file():
        return {}
    return lists.one_each(
        name, "image x y width height", lambda fields: box_from_size(*map(parse_number, fields))
    )


def _read_parts(lists: _Lists) -> dict[str, list[Part]]:
    """The visible parts of each image, from `parts/`."""
    parts: dict[str, list[Part]] = defaultdict(list)
    if not (lists.folder / "parts" / "part_locs.txt").is_file():
        return parts
    names = read_names(lists.folder / "parts" / "parts.txt", "part", lists.data_format)

    def part(fields: list[str]) -> Part | None:
        key, x, y, visible = fields
        if key not in names:
            raise ValueError(f"part '{key}' is not in parts.txt, which lists {len(names)}")
        located = Part(names[key], parse_number(x), parse_number(y))
        return located if parse_flag(visible) else None

    for image, seen in lists.each("parts/part_locs.txt", "image part x y visible", part):
        if seen is not None:
            parts[image].append(seen)
    return parts


def _split(fields: list[str]) -> Split:
    return "train" if parse_flag(fields[0]) else "test"
