"""NABirds: 48,562 images of 555 kinds of North American birds, with a hierarchy of groups.

https://dl.allaboutbirds.org/nabirds, Van Horn et al., 2015. The lists are those of CUB-200-2011,
plus `hierarchy.txt`.
"""

from pathlib import Path

from ramstrans.data.datasets.cub import read_records
from ramstrans.data.datasets.lists import distinct_names, find_folder, read_keyed, read_names
from ramstrans.data.records import ImageSet
from ramstrans.errors import DataError


def read_nabirds(root: Path) -> ImageSet:
    """Read NABirds: entries of `classes.txt` with images are classes, the others are groups.

    Args:
        root: The folder of `hierarchy.txt`, or its parent, which holds `nabirds/`.

    Returns:
        Classes and records in the order of `classes.txt` and `images.txt`, with visible parts only, and
        the hierarchy up to its root. Classes with the same name get their id appended.

    Raises:
        DataError: A file or line is missing or wrong; the message names it.
    """
    folder = find_folder(root, "hierarchy.txt", "nabirds")
    names = read_names(folder / "classes.txt", "class")
    parents = _read_parents(folder / "hierarchy.txt", names)
    records = read_records(folder, names)
    ids = list(names)
    seen = sorted({record.label for record in records})
    label_of = {old: new for new, old in enumerate(seen)}
    return ImageSet(
        distinct_names({ids[old]: names[ids[old]] for old in seen}),
        tuple(record._replace(label=label_of[record.label]) for record in records),
        tuple(tuple(names[group] for group in _above(ids[old], parents, folder)) for old in seen),
    )


def _read_parents(file: Path, names: dict[str, str]) -> dict[str, str]:
    """The parent's id by the child's."""

    def known(child: str, parent: str) -> str:
        if unknown := [key for key in (child, parent) if key not in names]:
            raise ValueError(f"class '{unknown[0]}' is not in classes.txt, which lists {len(names)}")
        return parent

    return read_keyed(file, "child parent", known)


def _above(class_id: str, parents: dict[str, str], folder: Path) -> list[str]:
    """Ids of all groups above a class, nearest first."""
    above: list[str] = []
    while class_id in parents:
        class_id = parents[class_id]
        if class_id in above:
            raise DataError(f"{folder / 'hierarchy.txt'}: class {class_id} is above itself; break the circle")
        above.append(class_id)
    return above
