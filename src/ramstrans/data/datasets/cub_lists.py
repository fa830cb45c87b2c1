"""The list files that CUB-200-2011 and NABirds share: images, labels, splits, boxes, parts."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from ramstrans.data.datasets.lists import (
    FolderListing,
    box_from_size,
    line_error,
    parse_flag,
    parse_number,
    read_keyed,
    read_rows,
)
from ramstrans.data.records import Box, Part, Record, Split
from ramstrans.errors import DataError


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
    present = FolderListing()

    def path(_image: str, name: str) -> Path:
        if (file := folder / "images" / name) not in present:
            raise ValueError(f"{file} does not exist")
        return file

    paths = read_keyed(folder / "images.txt", "image path", data_format, path)

    def label(image: str, class_id: str) -> int:
        check_listed(image, paths)
        if class_id not in label_of:
            raise ValueError(f"class '{class_id}' is not in classes.txt, which lists {len(label_of)}")
        return label_of[class_id]

    def split(image: str, is_train: str) -> Split:
        check_listed(image, paths)
        return "train" if parse_flag(is_train) else "test"

    def box(image: str, *numbers: str) -> Box:
        check_listed(image, paths)
        return box_from_size(*map(parse_number, numbers))

    labels = read_keyed(folder / "image_class_labels.txt", "image class", data_format, label)
    splits = read_keyed(folder / "train_test_split.txt", "image is_train", data_format, split)
    for required, name in ((labels, "image_class_labels.txt"), (splits, "train_test_split.txt")):
        if missing := [image for image in paths if image not in required]:
            raise DataError(f"{folder / name}: no line for image {missing[0]} of images.txt; add it")
    boxes, box_file = dict[str, Box](), folder / "bounding_boxes.txt"
    if box_file.is_file():
        boxes = read_keyed(box_file, "image x y width height", data_format, box)
    parts = _read_parts(folder / "parts", paths, data_format)
    return tuple(
        Record(path, labels[image], splits[image], boxes.get(image), tuple(parts.get(image, ())))
        for image, path in paths.items()
    )


def check_listed(image: str, paths: Mapping[str, Path]) -> None:
    """Raise ValueError unless an image is in `images.txt`."""
    if image not in paths:
        raise ValueError(f"image {image} is not in images.txt")


def _read_parts(folder: Path, paths: Mapping[str, Path], data_format: str) -> dict[str, list[Part]]:
    """The visible parts of each image, if there are lists of them."""
    parts: dict[str, list[Part]] = defaultdict(list)
    file = folder / "part_locs.txt"
    if not file.is_file():
        return parts
    names = read_names(folder / "parts.txt", "part", data_format)
    for number, (image, key, x, y, visible) in read_rows(file, "image part x y visible", data_format):
        try:
            check_listed(image, paths)
            if key not in names:
                raise ValueError(f"part '{key}' is not in parts.txt, which lists {len(names)}")
            part = Part(names[key], parse_number(x), parse_number(y))
            parts[image] += [part] if parse_flag(visible) else []
        except ValueError as error:
            raise line_error(file, number, str(error)) from error
    return parts
