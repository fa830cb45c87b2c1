"""Folders of images, one per class, either in `train`, `val` and `test` folders or without splits."""

import os
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path

from ramstrans.data.datasets.lists import SPLIT_NAMES
from ramstrans.data.records import SPLITS, ImageSet, Record, Split
from ramstrans.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


def read_image_folder(root: Path) -> ImageSet:
    """Read `root/train/<class>/*.jpg`, and `val` and `test` if they exist, or `root/<class>/*.jpg`.

    The validation folder may be named `val`, `valid` or `validation`. Without any of these folders every
    image is a training image; `splits.hold_out` splits them. Folders inside a class belong to it. Hidden
    files, files with other suffixes, and files in no class folder are ignored.

    Args:
        root: The data set's folder.

    Returns:
        Classes sorted by name, records by split and path.

    Raises:
        DataError: A folder is missing or empty.
    """
    return read_split_folders(_split_folders(root))


def read_split_folders(folders: Mapping[Split, Path]) -> ImageSet:
    """Read `<folder>/<class>/*.jpg` of each split, as `read_image_folder` does.

    Args:
        folders: The folder of each split.

    Raises:
        DataError: A folder is missing or empty.
    """
    classes = {split: _class_folders(folder) for split, folder in folders.items()}
    class_names = tuple(sorted({name for folders in classes.values() for name in folders}))
    label_of = {name: label for label, name in enumerate(class_names)}
    records = tuple(
        Record(path, label_of[name], split)
        for split in SPLITS
        for name, folder in classes.get(split, {}).items()
        for path in _images(folder)
    )
    return ImageSet(class_names, records)


def _split_folders(root: Path) -> dict[Split, Path]:
    """The folder of each split; the root itself, as training images, if it has no split folders."""
    found: dict[Split, Path] = {}
    for folder in _subfolders(root):
        split = SPLIT_NAMES.get(folder.name)
        if split is None:
            continue
        if split in found:
            raise DataError(
                f"{root} has both {found[split].name}/ and {folder.name}/ for the {split} split; keep one"
            )
        found[split] = folder
    return found or {"train": root}


def _class_folders(folder: Path) -> dict[str, Path]:
    """The class folders in a split's folder, by name, in order."""
    folders = {subfolder.name: subfolder for subfolder in _subfolders(folder)}
    if not folders:
        raise DataError(f"{folder} has no class folders; put the images into {folder}/<class>/")
    return folders


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without hidden ones."""
    return [Path(entry) for entry in _listed(folder) if entry.is_dir()]


def _images(folder: Path) -> list[Path]:
    """All images of a class, sorted by path."""
    paths = sorted(_walk(folder))
    if not paths:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{folder} has no images ({suffixes}); add some, or remove the folder")
    return paths


def _walk(folder: Path) -> Iterator[Path]:
    for entry in _listed(folder):
        if not entry.is_dir():
            if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(entry)
        elif not entry.is_symlink():  # links may form a cycle
            yield from _walk(Path(entry))


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without hidden files and folders."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=attrgetter("name"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} does not exist; give the folder of the data set (--data.root)") from error
    except OSError as error:
        raise DataError(f"{folder} cannot be read as a folder: {error.strerror}") from error
