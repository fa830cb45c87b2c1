"""CUB-200-2011 and every data set in its format: lists of images, labels, splits, boxes and parts.

http://www.vision.caltech.edu/datasets/cub_200_2011/
"""

from collections import defaultdict
from collections.abc import KeysView, Mapping
from pathlib import Path

from ramstrans.data.datasets.lists import (
    FolderListing,
    box_from_size,
    distinct_names,
    find_folder,
    line_error,
    parse_flag,
    parse_number,
    read_keyed,
    read_names,
    read_rows,
)
from ramstrans.data.records import Box, ImageSet, Part, Record, Split
from ramstrans.errors import DataError


def read_cub(root: Path) -> ImageSet:
    """Read a data set in CUB-200-2011's format, with boxes and parts if there are lists of them.

    Args:
        root: The folder of `images.txt`, or its parent, which holds `CUB_200_2011/`.

    Returns:
        Classes and records in the order of `classes.txt` and `images.txt`, with visible parts only. Classes
        with the same name get their id appended.

    Raises:
        DataError: A file or line is missing or wrong; the message names it.
    """
    folder = find_folder(root, "images.txt", "CUB_200_2011")
    names = read_names(folder / "classes.txt", "class")
    return ImageSet(distinct_names(names), read_records(folder, names))


def read_records(folder: Path, names: dict[str, str]) -> tuple[Record, ...]:
    """The records of a data set in these lists, with boxes and parts if there are lists of them.

    Args:
        folder: The folder of `images.txt` and the other lists.
        names: Class names by id; a label is the index of its class there.

    Returns:
        Records in the order of `images.txt`, with visible parts only.

    Raises:
        DataError: Naming the file and the line or image that is missing or wrong.
    """
    label_of = {class_id: label for label, class_id in enumerate(names)}
    present = FolderListing()

    def path(_image: str, name: str) -> Path:
        if (file := folder / "images" / name) not in present:
            raise ValueError(f"{file} does not exist")
        return file

    def label(_image: str, class_id: str) -> int:
        if class_id not in label_of:
            raise ValueError(f"class '{class_id}' is not in classes.txt, which lists {len(label_of)}")
        return label_of[class_id]

    def split(_image: str, is_train: str) -> Split:
        return "train" if parse_flag(is_train) else "test"

    def box(_image: str, *numbers: str) -> Box:
        return box_from_size(*map(parse_number, numbers))

    paths = read_keyed(folder / "images.txt", "image path", path)
    labels = read_keyed(folder / "image_class_labels.txt", "image class", label)
    splits = read_keyed(folder / "train_test_split.txt", "image is_train", split)
    boxes, box_file = dict[str, Box](), folder / "bounding_boxes.txt"
    if box_file.is_file():
        boxes = read_keyed(box_file, "image x y width height", box)
    parts = _read_parts(folder / "parts" / "part_locs.txt")
    required = {"image_class_labels.txt": labels.keys(), "train_test_split.txt": splits.keys()}
    optional = {"bounding_boxes.txt": boxes.keys(), "parts/part_locs.txt": parts.keys()}
    _check_same_images(folder, paths.keys(), required, optional)
    return tuple(
        Record(path, labels[image], splits[image], boxes.get(image), tuple(parts.get(image, ())))
        for image, path in paths.items()
    )


def _check_same_images(
    folder: Path,
    listed: KeysView[str],
    required: Mapping[str, KeysView[str]],
    optional: Mapping[str, KeysView[str]],
) -> None:
    """Raise DataError unless all lists are about images of images.txt, and the required ones about all."""
    for name, images in {**required, **optional}.items():
        if unknown := images - listed:
            raise DataError(f"{folder / name}: image {min(unknown)} is not in images.txt; remove its lines")
    for name, images in required.items():
        if missing := listed - images:
            raise DataError(f"{folder / name}: no line for image {min(missing)} of images.txt; add it")


def _read_parts(file: Path) -> dict[str, list[Part]]:
    """The visible parts of each image, if there is such a list; `parts.txt` beside it names them."""
    parts: dict[str, list[Part]] = defaultdict(list)
    if not file.is_file():
        return parts
    names = read_names(file.with_name("parts.txt"), "part")
    for number, (image, key, x, y, visible) in read_rows(file, "image part x y visible"):
        try:
            if key not in names:
                raise ValueError(f"part '{key}' is not in parts.txt, which lists {len(names)}")
            part = Part(names[key], parse_number(x), parse_number(y))
            parts[image] += [part] if parse_flag(visible) else []
        except ValueError as error:
            raise line_error(file, number, str(error)) from error
    return parts
