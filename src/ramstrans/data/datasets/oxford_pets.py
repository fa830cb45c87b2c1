"""Oxford-IIIT Pets: 7,349 images of 37 breeds of cats and dogs, with outlines and head boxes.

https://www.robots.ox.ac.uk/~vgg/data/pets/, Parkhi et al., 2012.
"""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ramstrans.data.datasets.lists import FolderListing, box_from_pixels, find_folder, read_keyed
from ramstrans.data.datasets.voc import read_voc_boxes
from ramstrans.data.reading.retry import open_retrying
from ramstrans.data.reading.threads import NUM_THREADS, in_threads
from ramstrans.data.records import Box, ImageSet, Part, Record, Split
from ramstrans.errors import DataError

_LISTS: dict[Split, str] = {"train": "trainval.txt", "test": "test.txt"}
_SPECIES = {"1": "cat", "2": "dog"}
_FOREGROUND = 1
"""Value of the foreground in a trimap; 2 is background, 3 the border, which is neither."""


class _Entry(NamedTuple):
    """One line of a list."""

    image: str
    class_id: int
    species: str
    split: Split


def read_oxford_pets(root: Path) -> ImageSet:
    """Read Oxford-IIIT Pets: `trainval.txt`, `test.txt`, `trimaps/` and `xmls/` in `annotations/`.

    An image's box encloses its trimap's foreground, so it covers the whole animal and test images have one
    too; this decodes each trimap, which takes about 10 s in one thread. The published boxes enclose heads,
    and exist for most training images only (3,671 of 3,680): the centre of each is the part `head`. Files
    of images in no list, such as 41 trimaps, are ignored.

    Args:
        root: The folder of `annotations/` and `images/`, or its parent, which holds `oxford-iiit-pet/`.

    Returns:
        Classes by number, named as the image files, e.g. `Abyssinian`, with the group `cat` or `dog`;
        records in the order of the lists, those of `trainval.txt` first, as training images.

    Raises:
        DataError: A file or line is missing or wrong; the message names it.
    """
    folder = find_folder(root, "annotations/trainval.txt", "oxford-iiit-pet")
    entries = [entry for split in _LISTS for entry in _read_list(folder, split)]
    names, hierarchy = _classes(folder, entries)
    label_of = {class_id: label for label, class_id in enumerate(names)}
    boxes = _read_boxes(folder, entries)
    heads = FolderListing()
    records = tuple(
        Record(
            folder / "images" / f"{entry.image}.jpg",
            label_of[entry.class_id],
            entry.split,
            box,
            _read_head(folder / "annotations" / "xmls" / f"{entry.image}.xml", heads),
        )
        for entry, box in zip(entries, boxes, strict=True)
    )
    return ImageSet(tuple(names.values()), records, hierarchy, ("breed", "species"))


def _read_list(folder: Path, split: Split) -> list[_Entry]:
    present = FolderListing()

    def entry(image: str, class_id: str, species: str, _breed: str) -> _Entry:
        if (path := folder / "images" / f"{image}.jpg") not in present:
            raise ValueError(f"{path} does not exist")
        if not class_id.isdecimal() or species not in _SPECIES:
            raise ValueError(f"class '{class_id}', species '{species}'; allowed are a number, and 1 or 2")
        return _Entry(image, int(class_id), _SPECIES[species], split)

    file = folder / "annotations" / _LISTS[split]
    return list(read_keyed(file, "image class species breed", entry).values())


def _classes(folder: Path, entries: list[_Entry]) -> tuple[dict[int, str], tuple[tuple[str, ...], ...]]:
    """The breed of each class, by number, and the species above it."""
    breeds: dict[int, tuple[str, str]] = {}
    for entry in entries:
        breed = entry.image.rpartition("_")[0], entry.species
        if breeds.setdefault(entry.class_id, breed) != breed:
            raise DataError(
                f"{folder / 'annotations' / _LISTS[entry.split]}: class {entry.class_id} is "
                f"{' '.join(breeds[entry.class_id])}, but {' '.join(breed)} for {entry.image}; correct one"
            )
    in_order = dict(sorted(breeds.items()))
    return (
        {class_id: name for class_id, (name, _) in in_order.items()},
        tuple((species,) for _, species in in_order.values()),
    )


def _read_boxes(folder: Path, entries: list[_Entry]) -> list[Box | None]:
    """The box of each trimap's foreground; None for an image without trimap, or with an empty one."""
    present = FolderListing()
    files = [folder / "annotations" / "trimaps" / f"{entry.image}.png" for entry in entries]
    existing = [file if file in present else None for file in files]
    return list(in_threads(_foreground, existing, NUM_THREADS))


def _foreground(file: Path | None) -> Box | None:
    if file is None:
        return None
    try:
        with open_retrying(file) as stream, Image.open(stream) as trimap:
            return trimap.point([value == _FOREGROUND for value in range(256)]).getbbox()
    except (OSError, ValueError, SyntaxError) as error:  # the last one is Pillow's for a broken PNG
        raise DataError(f"{file} cannot be read as a trimap: {error}") from error


def _read_head(file: Path, present: FolderListing) -> tuple[Part, ...]:
    if file not in present:
        return ()
    boxes = [box_from_pixels(*box) for box in read_voc_boxes(file)]
    return tuple(Part("head", (x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in boxes)
