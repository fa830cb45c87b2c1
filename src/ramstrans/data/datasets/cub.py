"""CUB-200-2011 and every data set in its format: lists of images, labels, splits, boxes and parts.

http://www.vision.caltech.edu/datasets/cub_200_2011/
"""

from pathlib import Path

from ramstrans.data.datasets.cub_lists import read_names, read_records
from ramstrans.data.datasets.lists import find_folder
from ramstrans.data.records import ImageSet

_FORMAT = "CUB-200-2011"


def read_cub(root: Path) -> ImageSet:
    """Read a data set in CUB-200-2011's format, with boxes and parts if there are lists of them.

    Args:
        root: The folder of `images.txt`, or its parent, which holds `CUB_200_2011/`.

    Returns:
        Classes and records in the order of `classes.txt` and `images.txt`, with visible parts only.

    Raises:
        DataError: A file or line is missing or wrong; the message names it.
    """
    folder = find_folder(root, "images.txt", "CUB_200_2011")
    names = read_names(folder / "classes.txt", "class", _FORMAT)
    return ImageSet(tuple(names.values()), read_records(folder, names, _FORMAT))
