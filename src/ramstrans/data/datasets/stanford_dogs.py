"""Stanford Dogs: 20,580 images of 120 breeds, from ImageNet, with boxes.

http://vision.stanford.edu/aditya86/ImageNetDogs/, Khosla et al., 2011.
"""

from pathlib import Path

from ramstrans.data.datasets.lists import FolderListing, box_around, find_folder, first_there
from ramstrans.data.datasets.mat import read_mat, whole_numbers
from ramstrans.data.datasets.voc import read_voc_boxes
from ramstrans.data.records import Box, ImageSet, Record, Split
from ramstrans.errors import DataError

_LISTS: dict[Split, str] = {"train": "train_list.mat", "test": "test_list.mat"}


def read_stanford_dogs(root: Path) -> ImageSet:
    """Read Stanford Dogs: `lists/*.mat`, `Images/`, and the boxes of `Annotation/` if it exists.

    The lists may also be in the folder itself. An image of several dogs has one box around all of them.
    Corners are used as written, counted from 0, as in ImageNet.

    Args:
        root: The folder of `Images/`, or its parent, which holds `stanford_dogs/`.

    Returns:
        Classes by label, named as their folders, e.g. `n02085620-Chihuahua`; records in the order of the
        lists, training images first.

    Raises:
        DataError: A file, or an image in it, is missing or wrong; the message names it.
    """
    folder = find_folder(root, "Images", "stanford_dogs")
    names: dict[int, str] = {}
    entries = [entry for split in _LISTS for entry in _read_list(folder, split, names)]
    labels = {number: label for label, number in enumerate(sorted(names))}
    has_boxes = (folder / "Annotation").is_dir()
    records = tuple(
        Record(
            folder / "Images" / name, labels[number], split, _read_box(folder, name) if has_boxes else None
        )
        for name, number, split in entries
    )
    return ImageSet(tuple(names[number] for number in sorted(names)), records)


def _read_list(folder: Path, split: Split, names: dict[int, str]) -> list[tuple[str, int, Split]]:
    """Image, published label and split of each entry; adds the class folder of each label to `names`."""
    file = first_there(folder / "lists" / _LISTS[split], folder / _LISTS[split])
    paths, numbers = read_mat(file, ("file_list", "labels"))
    if len(paths) != len(numbers):
        raise DataError(f"{file}: {len(paths)} images have {len(numbers)} labels; there must be one each")
    present = FolderListing()
    entries: list[tuple[str, int, Split]] = []
    for path, number in zip(map(str, paths), whole_numbers(numbers, file, "labels"), strict=True):
        present.check(folder / "Images" / path, file)
        class_folder = path.split("/", maxsplit=1)[0]
        if names.setdefault(number, class_folder) != class_folder:
            raise DataError(f"{file}: label {number} of {path} is that of {names[number]} elsewhere")
        entries.append((path, number, split))
    return entries


def _read_box(folder: Path, image: str) -> Box | None:
    return box_around(read_voc_boxes(folder / "Annotation" / Path(image).with_suffix("")))
