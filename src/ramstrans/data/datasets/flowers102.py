"""Oxford Flowers-102: 8,189 images of 102 flowers; 10 of each for training, 10 for validation.

https://www.robots.ox.ac.uk/~vgg/data/flowers/102/, Nilsback and Zisserman, 2008.
"""

from pathlib import Path

from ramstrans.data.datasets.lists import FolderListing, find_folder
from ramstrans.data.datasets.mat import read_mat, whole_numbers
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import DataError

_SPLITS: dict[str, Split] = {"trnid": "train", "valid": "val", "tstid": "test"}


def read_flowers102(root: Path) -> ImageSet:
    """Read Flowers-102: `setid.mat`, `imagelabels.mat` and `jpg/`, in its own three splits.

    The files have numbers only; the class names are torchvision's, which are those of the data set's page.

    Args:
        root: The folder of `setid.mat`, or its parent, which holds `flowers-102/`.

    Returns:
        Classes by number; records in the order of `setid.mat`: training, validation, test.

    Raises:
        DataError: A file, or an image in it, is missing or wrong; the message names it.
    """
    from torchvision.datasets import Flowers102  # it imports torch

    folder = find_folder(root, "setid.mat", "flowers-102")
    file = folder / "imagelabels.mat"
    (values,) = read_mat(file, ("labels",))
    labels = whole_numbers(values, file, "labels")
    names = tuple(Flowers102.classes)
    wrong = [label for label in labels if not 1 <= label <= len(names)]
    if wrong:
        raise DataError(f"{file}: a label is {wrong[0]}; labels go from 1 to {len(names)}")
    records = _read_records(folder, labels)
    return ImageSet(names[: max(labels, default=0)], tuple(records))


def _read_records(folder: Path, labels: list[int]) -> list[Record]:
    file, present = folder / "setid.mat", FolderListing()
    records = []
    for (name, split), values in zip(_SPLITS.items(), read_mat(file, tuple(_SPLITS)), strict=True):
        for image in whole_numbers(values, file, name):
            if not 1 <= image <= len(labels):
                raise DataError(
                    f"{file}: image {image} of {name} has no label; imagelabels.mat lists {len(labels)}"
                )
            path = folder / "jpg" / f"image_{image:05}.jpg"
            present.check(path, file)
            records.append(Record(path, labels[image - 1] - 1, split))
    return records
