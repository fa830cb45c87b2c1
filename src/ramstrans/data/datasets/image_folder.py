"""Folders of images, one per class, either in `train`, `val` and `test` folders or without splits."""

import logging
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Literal

from ramstrans.data.datasets.lists import SPLIT_NAMES, split_of, split_words
from ramstrans.data.reading.formats import has_image_suffix
from ramstrans.data.reading.listing import (
    EMPTY_FOLDER,
    LOOSE_IMAGE,
    LeftOut,
    images_below,
    is_folder,
    list_folder,
)
from ramstrans.data.records import SPLITS, ImageSet, Record, Split
from ramstrans.errors import DataError, first_few

logger = logging.getLogger(__name__)

ClassLevel = Literal["top", "leaf"]


def read_image_folder(root: Path, class_level: ClassLevel = "top") -> ImageSet:
    """Read `root/train/<class>/*.jpg`, and `val` and `test` if they exist, or `root/<class>/*.jpg`.

    Folders of splits have any of the names in `lists.SPLIT_NAMES`, in any case. Without them every image is a
    training image; `splits.hold_out` splits them. One warning counts everything that is not used: files of
    other kinds, images in no class folder, folders beside those of the splits, links to folders in classes.
    Hidden files do not count.

    Args:
        root: The data set's folder.
        class_level: What the classes are. `top`: the folders in the root or in a split's folder, with all
            images in and below them. `leaf`: every folder that holds images, e.g. the species in
            `<genus>/<species>/`; the class is named `genus/species`.

    Returns:
        Classes sorted by name, records by split, class and path. With `leaf`, the hierarchy has the folders
        above each class.

    Raises:
        DataError: A folder is missing or empty, or looks like a split that would not be used.
    """
    left_out = LeftOut()
    images = read_split_folders(_split_folders(root, left_out), left_out, class_level)
    left_out.log(root)
    return images


def read_split_folders(
    folders: Mapping[Split, Path], left_out: LeftOut, class_level: ClassLevel = "top"
) -> ImageSet:
    """Read `<folder>/<class>/*.jpg` of each split, as `read_image_folder` does.

    Args:
        folders: The folder of each split.
        left_out: Counts what is not used.
        class_level: As in `read_image_folder`.

    Raises:
        DataError: A folder is missing or empty.
    """
    found = {split: _classes(folder, class_level, left_out) for split, folder in folders.items()}
    class_names = tuple(sorted({name for classes in found.values() for name in classes}))
    label_of = {name: label for label, name in enumerate(class_names)}
    records = tuple(
        Record(path, label_of[name], split)
        for split in SPLITS
        for name, paths in sorted(found.get(split, {}).items())
        for path in paths
    )
    groups = tuple(tuple(reversed(name.split("/")[:-1])) for name in class_names)
    return ImageSet(class_names, records, groups if any(groups) else ())


def _split_folders(root: Path, left_out: LeftOut) -> dict[Split, Path]:
    """Find the folder of each split; the root itself, as training images, if it has no split folders."""
    folders = [Path(entry) for entry in list_folder(root) if is_folder(entry)]
    named = [folder for folder in folders if split_of(folder.name)]
    others = [folder for folder in folders if folder not in named]
    if not named:
        if len(folders) > 1 and all(split_words(folder.name) for folder in folders):
            raise DataError(
                f"{root} has only {_listed(folders)}, which look like splits, not classes; rename them to "
                f"splits' names ({', '.join(SPLIT_NAMES)})"
            )
        return {"train": root}
    if len(named) == 1 and len(others) > 1 and not _subfolders(named[0]):
        return {"train": root}  # a class: of buses, cars and trains
    found: dict[Split, Path] = {}
    for folder in named:
        split = split_of(folder.name)
        assert split is not None, "named like a split"
        if split in found:
            raise DataError(
                f"{root} has both {found[split].name}/ and {folder.name}/ for the {split} split; keep one"
            )
        found[split] = folder
    _count_beside(root, found, others, left_out)
    return found


def _count_beside(root: Path, splits: Mapping[Split, Path], others: list[Path], left_out: LeftOut) -> None:
    """Count what lies beside the folders of the splits; one with the same classes looks like a mistake."""
    class_names = {folder.name for split in splits.values() for folder in _subfolders(split)}
    for folder in others:
        shared = class_names.intersection(subfolder.name for subfolder in _subfolders(folder))
        if shared:
            raise DataError(
                f"{root} has {_listed(list(splits.values()))} and {folder.name}/, which has the same "
                f"classes, such as {min(shared)}, but is not named like a split ({', '.join(SPLIT_NAMES)}); "
                "rename it, or move it elsewhere"
            )
        num_images = sum(1 for _ in images_below(folder, LeftOut()))
        if num_images:
            left_out[f"images in {folder.name}/"] += num_images
        else:
            left_out[EMPTY_FOLDER] += 1
    _count_loose(root, left_out)


def _count_loose(folder: Path, left_out: LeftOut) -> None:
    """Count the files that lie beside folders of classes or splits."""
    for entry in list_folder(folder):
        if not is_folder(entry):
            if has_image_suffix(entry.name):
                left_out[LOOSE_IMAGE] += 1
            else:
                left_out.add_file(entry.name)


def _classes(folder: Path, class_level: ClassLevel, left_out: LeftOut) -> dict[str, list[Path]]:
    """Find the images of each class in a split's folder, sorted by path."""
    tops = _subfolders(folder)
    if not tops:
        raise DataError(
            f"{folder} has no class folders; put the images into {folder}/<class>/, move the folder "
            "elsewhere, or name a table of paths and labels (--data.name table)"
        )
    _count_loose(folder, left_out)
    images, empty = {}, []
    for top in tops:
        others = LeftOut()
        images[top] = _images(top, others)
        if not images[top]:
            empty.append(f"{top} has no images{f', only {others}' if others else ''}")
        left_out.update(others)
    if empty:
        raise DataError(f"{first_few(empty)}; add some, or remove the folder{'s' * (len(empty) > 1)}")
    if class_level == "leaf":
        classes: dict[str, list[Path]] = {}
        for path in chain(*images.values()):
            classes.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path)
        return classes
    if below := {path.parent for path in chain(*images.values())} - set(tops):
        logger.info(
            "%s: the classes are its %d folders, with the images of %d folders below them; "
            "--data.class_level leaf makes every folder with images a class",
            *(folder, len(tops), len(below)),
        )
    return {top.name: paths for top, paths in images.items()}


def _images(folder: Path, left_out: LeftOut) -> list[Path]:
    """List all images of a class."""
    paths = list(images_below(folder, left_out))
    inner = sorted({path.relative_to(folder).parts[0] for path in paths if path.parent != folder})
    if inner and all(split_of(name) for name in inner):
        raise DataError(
            f"{folder} has {' and '.join(f'{name}/' for name in inner)} inside a class; put the splits above "
            f"the classes, as in {folder.parent / inner[0] / folder.name}"
        )
    return paths


def _subfolders(folder: Path) -> list[Path]:
    return [Path(entry) for entry in list_folder(folder) if is_folder(entry)]


def _listed(folders: list[Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in folders)
