"""Food-101: 101,000 images of 101 dishes; 750 of each, uncleaned, for training, 250 for test.

https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/, Bossard et al., 2014.
"""

from pathlib import Path

from ramstrans.data.datasets.lists import FolderListing, find_folder, read_classes, read_rows
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import DataError

_SPLITS: tuple[Split, ...] = ("train", "test")


def read_food101(root: Path) -> ImageSet:
    """Read Food-101: `meta/classes.txt`, the splits in `meta/*.txt`, and `images/`.

    Args:
        root: The folder of `meta/`, or its parent, which holds `food-101/`.

    Returns:
        Classes in the order of `classes.txt`, named as there, e.g. `apple_pie`; records in the order of
        the lists, training images first. As published, `cheesecake` comes before `cheese_plate`;
        torchvision sorts the names, so its labels of these two are swapped.

    Raises:
        DataError: A file, or a line or image in it, is missing or wrong; the message names it.
    """
    folder = find_folder(root, "meta/classes.txt", "food-101")
    label_of = read_classes(folder / "meta" / "classes.txt")
    present = FolderListing()
    records = []
    for split in _SPLITS:
        file = folder / "meta" / f"{split}.txt"
        for _, (name,) in read_rows(file, "image"):
            path = folder / "images" / f"{name}.jpg"
            if path.parent.name not in label_of:
                raise DataError(f"{file}: the class of {name} is not in classes.txt")
            present.check(path, file)
            records.append(Record(path, label_of[path.parent.name], split))
    return ImageSet(tuple(label_of), tuple(records))
