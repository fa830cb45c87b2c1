"""Food-101: 101,000 images of 101 dishes; 750 of each, uncleaned, for training, 250 for test.

https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/, Bossard et al., 2014.
"""

from pathlib import Path

from ramstrans.data.datasets.lists import FolderListing, find_folder, read_classes, read_json, read_rows
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import DataError

_FORMAT = "Food-101"
_SPLITS: tuple[Split, ...] = ("train", "test")


def read_food101(root: Path) -> ImageSet:
    """Read Food-101: `meta/classes.txt`, the splits in `meta/*.txt` or `meta/*.json`, and `images/`.

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
    label_of = read_classes(folder / "meta" / "classes.txt", _FORMAT)
    present = FolderListing()
    records = []
    for split in _SPLITS:
        listed, names = _read_split(folder / "meta", split)
        for name in names:
            path = folder / "images" / f"{name}.jpg"
            if path.parent.name not in label_of:
                raise DataError(f"{listed}: the class of {name} is not in classes.txt")
            present.check(path, listed)
            records.append(Record(path, label_of[path.parent.name], split))
    return ImageSet(tuple(label_of), tuple(records))


def _read_split(folder: Path, split: Split) -> tuple[Path, list[str]]:
    """The list that exists, and the images in it, as `class/number`."""
    file = folder / f"{split}.txt"
    as_json = file.with_suffix(".json")
    if file.is_file() or not as_json.is_file():
        return file, [name for _, (name,) in read_rows(file, "image", _FORMAT)]
    listed = read_json(as_json, _FORMAT)
    if not isinstance(listed, dict) or not all(isinstance(names, list) for names in listed.values()):
        raise DataError(f"{as_json} is not a list of images for each class")
    return as_json, [str(name) for names in listed.values() for name in names]
