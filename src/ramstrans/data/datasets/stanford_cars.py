"""Stanford Cars: 16,185 images of 196 makes, models and years, with boxes.

https://ai.stanford.edu/~jkrause/cars/car_dataset.html, Krause et al., 2013. torchvision's reader
returns neither boxes nor paths, so this one reads the annotations itself.
"""

from pathlib import Path
from typing import Any

from ramstrans.data.datasets.lists import FolderListing, box_from_pixels, find_folder, first_there
from ramstrans.data.datasets.mat import read_mat
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import DataError

_ANNOTATIONS: dict[Split, str] = {
    "train": "cars_train_annos.mat",
    "test": "cars_test_annos_withlabels.mat",
}
_BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def read_stanford_cars(root: Path) -> ImageSet:
    """Read Stanford Cars: `devkit/*.mat`, `cars_train/` and `cars_test/`.

    The labelled test annotations may be beside `devkit/`, as published, or in it.

    Args:
        root: The folder of `devkit/`, or its parent, which holds `stanford_cars/`.

    Returns:
        Classes in the order of `cars_meta.mat`, with their names there, some with a `/`; records in the
        order of the annotations, training images first. Boxes are published as first and last pixel,
        counted from 1.

    Raises:
        DataError: A file, or an image in it, is missing or wrong; the message names it.
    """
    folder = find_folder(root, "devkit/cars_meta.mat", "stanford_cars")
    (names,) = read_mat(folder / "devkit" / "cars_meta.mat", ("class_names",))
    class_names = tuple(str(name).strip() for name in names)
    if len(set(class_names)) < len(class_names):
        raise DataError(f"{folder / 'devkit' / 'cars_meta.mat'}: a class is listed twice; keep one")
    records = tuple(
        record for split in _ANNOTATIONS for record in _read_split(folder, split, len(class_names))
    )
    return ImageSet(class_names, records)


def _read_split(folder: Path, split: Split, num_classes: int) -> list[Record]:
    file = first_there(folder / "devkit" / _ANNOTATIONS[split], folder / _ANNOTATIONS[split])
    (annotations,) = read_mat(file, ("annotations",))
    missing = [name for name in ("fname", "class", *_BOX) if name not in (annotations.dtype.names or ())]
    if missing:
        raise DataError(f"{file}: the annotations have no '{missing[0]}'; take the published file")
    present = FolderListing()
    records = []
    for annotation in annotations:
        path = folder / f"cars_{split}" / str(annotation["fname"])
        present.check(path, file)
        try:
            records.append(_record(path, annotation, split, num_classes))
        except (TypeError, ValueError) as error:
            raise DataError(f"{file}, image {path.name}: {error}") from error
    return records


def _record(path: Path, annotation: Any, split: Split, num_classes: int) -> Record:  # noqa: ANN401 - a NumPy void
    number = int(annotation["class"])
    if not 1 <= number <= num_classes:
        raise ValueError(f"class {number} is not in cars_meta.mat, which lists {num_classes}")
    # As floats, because small unsigned integers would overflow.
    x0, y0, x1, y1 = (float(annotation[name]) for name in _BOX)
    return Record(path, number - 1, split, box_from_pixels(x0, y0, x1, y1))
