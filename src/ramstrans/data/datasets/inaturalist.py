"""iNaturalist's competition sets: 2017 to 2019 by their lists in COCO's format, 2021 by its folders.

https://github.com/visipedia/inat_comp, Van Horn et al., 2018, https://arxiv.org/abs/1707.06642.
The labels of the test images were never published, so papers report results on the validation images.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ramstrans.data.datasets.image_folder import read_split_folders
from ramstrans.data.datasets.lists import (
    FolderListing,
    box_around,
    box_from_size,
    distinct_names,
    first_there,
    read_json,
)
from ramstrans.data.reading.listing import LeftOut
from ramstrans.data.records import Box, ImageSet, Record, Split
from ramstrans.errors import DataError

TRAIN_FOLDERS = ("train", "train_mini")

_SPLITS: dict[Split, str] = {"train": "train", "test": "val"}
_RANKS = ("genus", "family", "order", "class", "phylum", "kingdom")
_CLASS_FOLDER = re.compile(r"(\d{5})_([^_]+)_([^_]+)_([^_]+)_([^_]+)_([^_]+)_([^_]+)_([^_]+)")
"""Number, kingdom, phylum, class, order, family, genus, species."""


class _Image(NamedTuple):
    """An entry of `images`, without its licence, owner, size, date and location."""

    id: int
    file_name: str


class _Annotation(NamedTuple):
    """An entry of `annotations`."""

    image_id: int
    category_id: int
    box: Box | None


def read_inaturalist(root: Path, train_folder: str | None = None) -> ImageSet:
    """Read iNaturalist 2017, 2018 or 2019 by `train<year>.json`, or 2021 by its folders.

    The published validation images are the test split, as in all papers; `splits.hold_out` draws a new
    validation split from the training images.

    2017 to 2019: the lists are in the root, or in `train_val<year>/` there, and name images relative to the
    root. A `categories.json` beside them replaces the categories in them, which have no names in 2018. The
    boxes of 2017 are read from `train_2017_bboxes.json` and `val_2017_bboxes.json` if these exist; several
    boxes of an image become one around all of them, and boxes without area are dropped.

    2021: `train/` or `train_mini/`, and `val/`, have one folder per species, whose name gives its ranks; the
    list of 2.7 million images, 1 GB of JSON, is not needed.

    Args:
        root: The folder of the lists, or of `train/` and `val/`.
        train_folder: For 2021, `train` or `train_mini`; None: the one that exists.

    Returns:
        Classes by number, with their scientific names, plus the number if several share a name; records in
        the order of the lists, or by class and file name, training images first. The hierarchy has genus,
        family, order, class, phylum and kingdom, or, for 2017, only the supercategory.

    Raises:
        DataError: A file, or an image or category in it, is missing or wrong; the message names it.
    """
    years = sorted(_years(root))
    if len(years) > 1:
        raise DataError(f"{root} has the lists of {', '.join(years)}; keep one year per folder")
    return _read_lists(root, years[0]) if years else _read_folders(root, train_folder)


def is_inaturalist(root: Path) -> bool:
    """Whether there are lists of 2017 to 2019, or class folders of 2021."""
    return bool(_years(root)) or any(
        next((root / folder).glob("[0-9][0-9][0-9][0-9][0-9]_*_*"), None) for folder in TRAIN_FOLDERS
    )


def _years(root: Path) -> set[str]:
    patterns = ("train20[0-9][0-9].json", "train_val20*/train20[0-9][0-9].json")
    return {file.stem.removeprefix("train") for pattern in patterns for file in root.glob(pattern)}


def _read_lists(root: Path, year: str) -> ImageSet:
    files: dict[Split, Path] = {
        split: _find(root, year, f"{name}{year}.json") for split, name in _SPLITS.items()
    }
    contents = {split: _read_list(file) for split, file in files.items()}
    categories = _read_categories(files["train"], contents["train"]["categories"])
    labels = {number: label for label, number in enumerate(categories)}
    records: list[Record] = []
    for split, name in _SPLITS.items():
        boxes = _read_boxes(_find(root, year, f"{name}_{year}_bboxes.json"))
        records += _records(root, files[split], contents.pop(split), split, labels, boxes)
    return ImageSet(
        distinct_names({str(number): str(category["name"]) for number, category in categories.items()}),
        tuple(records),
        *_groups_and_ranks(list(categories.values())),
    )


def _find(root: Path, year: str, name: str) -> Path:
    return first_there(root / f"train_val{year}" / name, root / name)


def _read_list(file: Path) -> dict[str, list[Any]]:
    """A list in COCO's format; parsing shrinks each entry to the fields in use."""
    content = read_json(file, object_hook=_shrink)
    for key, kind in (("images", _Image), ("annotations", _Annotation), ("categories", dict)):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, kind) for entry in entries):
            raise DataError(f"{file} has no list of '{key}'; take the published file")
    return content  # type: ignore[no-any-return]


def _read_categories(train: Path, given: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The categories by number, in order: those of `categories.json` beside the list, or of the list."""
    file = train.with_name("categories.json")
    if file.is_file():
        given = read_json(file)
    else:
        file = train
    try:
        categories = {int(category["id"]): category for category in given if category["name"]}
        is_whole = len(categories) == len(given)
    except (KeyError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise DataError(f"{file}: each category needs a name, and a whole number of its own as id")
    return dict(sorted(categories.items()))


def _shrink(entry: dict[str, Any]) -> Any:  # noqa: ANN401 - categories stay as they are
    if "file_name" in entry:
        return _Image(int(entry["id"]), str(entry["file_name"]))
    if "image_id" in entry:
        box = entry.get("bbox")
        return _Annotation(int(entry["image_id"]), int(entry["category_id"]), box and _box(*map(float, box)))
    return entry


def _box(x: float, y: float, width: float, height: float) -> Box | None:
    return box_from_size(x, y, width, height) if width * height else None


def _read_boxes(file: Path) -> dict[str, Box]:
    """The box of each image, by its file name; none without the file."""
    if not file.is_file():
        return {}
    content = _read_list(file)
    names = {image.id: image.file_name for image in content["images"]}
    boxes: dict[str, list[Box]] = defaultdict(list)
    for image_id, _, box in content["annotations"]:
        if image_id not in names:
            raise DataError(f"{file}: image {image_id} of the annotations is not among its images")
        if box is not None:
            boxes[names[image_id]].append(box)
    around = {name: box_around(found) for name, found in boxes.items()}
    return {name: box for name, box in around.items() if box is not None}


def _records(
    root: Path,
    file: Path,
    content: dict[str, list[Any]],
    split: Split,
    labels: dict[int, int],
    boxes: dict[str, Box],
) -> Iterator[Record]:
    category_of = {image: category for image, category, _ in content["annotations"]}
    present = FolderListing()
    for image, name in content["images"]:
        if image not in category_of:
            raise DataError(f"{file}: image {image} has no annotation; add it")
        if category_of[image] not in labels:
            raise DataError(
                f"{file}: category {category_of[image]} of image {image} is not among "
                f"the {len(labels)} categories"
            )
        present.check(f"{root}/{name}", file)
        yield Record(root / name, labels[category_of[image]], split, boxes.get(name))


def _groups_and_ranks(
    categories: list[dict[str, Any]],
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The groups above each category, and the names of the ranks."""
    ranks = [rank for rank in _RANKS if any(rank in each for each in categories)] or ["supercategory"]
    groups = tuple(tuple(str(each.get(rank, "")) for rank in ranks) for each in categories)
    return groups, ("species", *ranks)


def _read_folders(root: Path, train_folder: str | None) -> ImageSet:
    left_out = LeftOut()
    images = read_split_folders({"train": _train_folder(root, train_folder), "test": root / "val"}, left_out)
    left_out.log(root)
    taxa = []
    for name in images.class_names:
        if (match := _CLASS_FOLDER.fullmatch(name)) is None:
            raise DataError(
                f"{root}: the class folder {name} is not named <number>_<kingdom>_..._<genus>_<species>; "
                "take the published folders"
            )
        taxa.append(match.groups())
    names = distinct_names({number: f"{genus} {species}" for number, *_, genus, species in taxa})
    hierarchy = tuple(tuple(reversed(groups[1:-1])) for groups in taxa)
    return ImageSet(names, images.records, hierarchy, ("species", *_RANKS))


def _train_folder(root: Path, given: str | None) -> Path:
    there = [given] if given else [name for name in TRAIN_FOLDERS if (root / name).is_dir()]
    if len(there) == 1:
        return root / there[0]
    if there:
        raise DataError(
            f"{root} has both {' and '.join(f'{name}/' for name in there)}; "
            f"choose by --data.train_folder {' or '.join(there)}"
        )
    raise DataError(
        f"{root} has neither train<year>.json nor {'/ or '.join(TRAIN_FOLDERS)}/; unpack iNaturalist there"
    )
