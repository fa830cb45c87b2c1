"""FGVC-Aircraft: 10,000 images of 100 variants, 70 families, 30 manufacturers, with boxes.

https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/, Maji et al., 2013, https://arxiv.org/abs/1306.5151.

The bottom 20 pixels of each image are a banner with the photographer's name, which the authors ask to cut
off. This reader does not cut it off; the boxes end above it.
"""

from collections.abc import Container, Iterable
from pathlib import Path

from ramstrans.data.config import DataConfig
from ramstrans.data.datasets.lists import (
    FolderListing,
    box_from_pixels,
    find_folder,
    line_error,
    parse_number,
    read_classes,
    read_keyed,
    read_rows,
)
from ramstrans.data.records import SPLITS, Box, ImageSet, Record, Split
from ramstrans.errors import DataError

LEVELS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
"""The lists of classes by level, from the finest level up."""


def read_fgvc_aircraft(root: Path, level: str = DataConfig.aircraft_level) -> ImageSet:
    """Read FGVC-Aircraft at one of its levels, in its own training, validation and test splits.

    Args:
        root: The folder of `data/`, or its parent, which holds `fgvc-aircraft-2013b/`.
        level: The level of the classes, a key of `LEVELS`.

    Returns:
        Classes in the order of the level's list, some with a `/` in their name; records in the order of the
        lists of images, by split; the levels above as hierarchy. Boxes are published as first and last
        pixel, counted from 1; a few start at 0 nevertheless, and thus lie one pixel outside.

    Raises:
        DataError: A file or line is missing or wrong; the message names it.
    """
    folder = find_folder(root, "data/variants.txt", "fgvc-aircraft-2013b") / "data"
    above = list(LEVELS)[list(LEVELS).index(level) :]
    labels = {upper: read_classes(folder / LEVELS[upper]) for upper in above}
    classes = {upper: _read_images(folder, upper, labels[upper]) for upper in above}
    boxes = read_keyed(folder / "images_box.txt", "image xmin ymin xmax ymax", _box)
    present = FolderListing()
    records = []
    for image, (name, split) in classes[level].items():
        path = folder / "images" / f"{image}.jpg"
        present.check(path, folder / f"images_{level}_{split}.txt")
        records.append(Record(path, labels[level][name], split, boxes.get(image)))
    hierarchy = _hierarchy(folder, classes, labels[level])
    return ImageSet(tuple(labels[level]), tuple(records), hierarchy, tuple(above))


def _read_images(folder: Path, level: str, names: Container[str]) -> dict[str, tuple[str, Split]]:
    """The class at one level and the split of each image, in order."""
    images: dict[str, tuple[str, Split]] = {}
    for split in SPLITS:
        file = folder / f"images_{level}_{split}.txt"
        for number, (image, name) in read_rows(file, "image class"):
            if name not in names:
                raise line_error(file, number, f"class '{name}' is not in {LEVELS[level]}")
            if image in images:
                raise line_error(file, number, f"image {image} is listed in {images[image][1]} already")
            images[image] = name, split
    return images


def _box(_image: str, *corners: str) -> Box:
    return box_from_pixels(*map(parse_number, corners))


def _hierarchy(
    folder: Path, classes: dict[str, dict[str, tuple[str, Split]]], names: Iterable[str]
) -> tuple[tuple[str, ...], ...]:
    """The classes above each class, which all of its images must share."""
    level, *above = classes
    groups: dict[str, tuple[str, ...]] = {}
    for image, (name, split) in classes[level].items():
        for upper in above:
            if image not in classes[upper] or classes[upper][image][1] != split:
                raise DataError(
                    f"{folder / f'images_{upper}_{split}.txt'}: no line for image {image}; add it"
                )
        group = tuple(classes[upper][image][0] for upper in above)
        if groups.setdefault(name, group) != group:
            raise DataError(
                f"{folder}: {level} '{name}' is in {' of '.join(groups[name])}, "
                f"but image {image} in {' of '.join(group)}; correct one"
            )
    return tuple(groups.get(name, ()) for name in names) if above else ()
