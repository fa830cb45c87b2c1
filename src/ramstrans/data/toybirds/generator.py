"""toybirds: a generated fine-grained data set in the format of CUB-200-2011.

All classes share shape, pose and body colours, and differ only in the colours of four small parts:
crown, beak, wing bars and tail tip. The colours of a class are a code word whose digits sum to a
multiple of three, so two classes never differ in one part alone: any three parts identify the class,
two rarely do.

    class       crown    beak     wing     tail
    ...         Red      Blue     Yellow   Red
    ...         Red      Blue     Blue     Blue       the same head; wing and tail differ

Crown and wing are visible in a small image of the whole scene; beak and tail hardly are.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramstrans.console import Progress, no_progress
from ramstrans.data.toybirds.drawing import PALETTE, PARTS, Drawing, draw_bird
from ramstrans.errors import ConfigError
from ramstrans.files import new_folder

VERSION = 1
"""Incremented whenever the same arguments give other images."""

MARKER = "toybirds.json"
MAX_CLASSES = 27

_GENERA = ("Finch", "Wren", "Warbler", "Bunting", "Sparrow", "Thrush", "Pipit", "Robin", "Lark")

Code = tuple[int, int, int, int]
"""Index into `PALETTE` of each of `CODED_PARTS`: crown, beak, wing, tail."""


@dataclass(frozen=True)
class _Options:
    """The arguments that, with `VERSION`, determine every byte of the set."""

    num_classes: int
    train_per_class: int
    test_per_class: int
    image_size: int
    seed: int

    def __post_init__(self) -> None:
        allowed = {
            "num_classes": (2, MAX_CLASSES),
            "train_per_class": (1, 100_000),
            "test_per_class": (1, 100_000),
            "image_size": (32, 4096),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in allowed.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"toybirds: {name} is {value}; give {low} to {high}")

    @property
    def num_images(self) -> int:
        return self.num_classes * (self.train_per_class + self.test_per_class)


class _Entry(NamedTuple):
    """One image in the lists; ids count from 1."""

    image_id: int
    label: int
    path: str
    is_train: bool
    drawing: Drawing


def species_codes(num_classes: int) -> tuple[Code, ...]:
    """Colour codes of the first classes; any two differ in at least two parts.

    The codes are the words of Z3^4 with digit sum 0, in an order that balances the colours.

    >>> species_codes(3)
    ((0, 0, 0, 0), (2, 1, 1, 2), (1, 2, 2, 1))
    """
    words = (divmod(22 * index % MAX_CLASSES, 9) for index in range(num_classes))
    heads = ((crown, *divmod(rest, 3)) for crown, rest in words)
    return tuple((crown, beak, wing, -(crown + beak + wing) % 3) for crown, beak, wing in heads)


def species_name(code: Code) -> str:
    """Name of a class: colours of crown and beak, and a genus for those of wing and tail.

    >>> species_name((2, 1, 1, 2))
    'Blue_crowned_Yellow_billed_Thrush'
    """
    crown, beak, wing, tail = code
    colours = list(PALETTE)
    return f"{colours[crown]}_crowned_{colours[beak]}_billed_{_GENERA[3 * wing + tail]}"


def make_toybirds(
    root: Path,
    *,
    num_classes: int = 20,
    train_per_class: int = 100,
    test_per_class: int = 40,
    image_size: int = 176,
    seed: int = 0,
    progress: Progress = no_progress,
) -> None:
    """Draw the set into a new folder; the same arguments give the same bytes.

    An image depends only on the seed, its class and its number in the class. The folder appears once it is
    complete.

    Args:
        root: Folder to create; may exist if it is empty.
        num_classes: 2 to 27.
        train_per_class: Training images per class.
        test_per_class: Test images per class.
        image_size: Side of the square images, in pixels.
        seed: Seed of the whole set.
        progress: Reports images done.

    Raises:
        ConfigError: A number is out of range.
        OutputError: The folder is not empty, or cannot be written.
    """
    options = _Options(num_classes, train_per_class, test_per_class, image_size, seed)
    with new_folder(root) as draft:
        _write_lists(draft, options, list(_draw_images(draft, options, progress)))


def is_toybirds(root: Path, **arguments: int) -> bool:
    """Whether a folder holds a complete set of this version, drawn with the given arguments.

    Args:
        root: The folder.
        arguments: Some of the numbers that `make_toybirds` takes; the others may be anything.
    """
    marker = root / MARKER
    if not marker.is_file():
        return False
    try:
        made = json.loads(marker.read_text(encoding="utf-8"))
        options = _Options(**{name: value for name, value in made.items() if name != "version"})
    except (ValueError, TypeError, AttributeError):  # not a marker that we wrote
        return False
    wanted = {"version": VERSION, **arguments}
    num_found = sum(1 for _ in (root / "images").glob("*/*.jpg"))
    return all(made.get(name) == value for name, value in wanted.items()) and num_found == options.num_images


def ensure_toybirds(root: Path, progress: Progress = no_progress) -> None:
    """Draw the set with the default arguments, unless the folder holds one, drawn with any arguments.

    Args:
        root: Folder of the set.
        progress: Reports images done.

    Raises:
        OutputError: The folder holds something else, a set of another version or with missing files,
            or cannot be written.
    """
    if not is_toybirds(root):
        make_toybirds(root, progress=progress)


def _draw_images(folder: Path, options: _Options, progress: Progress) -> Iterator[_Entry]:
    """Write the images, class by class, training images first."""
    image_id = 0
    codes = species_codes(options.num_classes)
    for label, (name, code) in enumerate(zip(_class_names(options), codes, strict=True)):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(options.train_per_class + options.test_per_class):
            image_id += 1
            path = f"{name}/{name.partition('.')[2]}_{index + 1:04d}.jpg"
            drawing = draw_bird(code, options.image_size, np.random.default_rng((options.seed, label, index)))
            # full chroma: the parts are a few pixels of pure colour
            drawing.image.save(folder / "images" / path, quality=90, subsampling=0)
            yield _Entry(image_id, label, path, index < options.train_per_class, drawing)
            progress(image_id, options.num_images, "drawing toybirds")


def _class_names(options: _Options) -> list[str]:
    codes = species_codes(options.num_classes)
    return [f"{number:03d}.{species_name(code)}" for number, code in enumerate(codes, start=1)]


def _write_lists(folder: Path, options: _Options, entries: list[_Entry]) -> None:
    """Write CUB's lists of images, labels, splits, classes, boxes and parts, and the marker."""
    (folder / "parts").mkdir()
    lists: dict[str, Iterable[str]] = {
        "images.txt": (f"{e.image_id} {e.path}" for e in entries),
        "image_class_labels.txt": (f"{e.image_id} {e.label + 1}" for e in entries),
        "train_test_split.txt": (f"{e.image_id} {int(e.is_train)}" for e in entries),
        "classes.txt": (f"{label} {name}" for label, name in enumerate(_class_names(options), start=1)),
        "bounding_boxes.txt": (f"{e.image_id} {_corner_and_size(e.drawing)}" for e in entries),
        "parts/parts.txt": (f"{part_id} {name}" for part_id, name in enumerate(PARTS, start=1)),
        "parts/part_locs.txt": (line for e in entries for line in _part_lines(e)),
        MARKER: [json.dumps({"version": VERSION, **asdict(options)}, indent=2)],
    }
    for name, lines in lists.items():
        text = "".join(f"{line}\n" for line in lines)
        (folder / name).write_bytes(text.encode())  # the same bytes on every system


def _corner_and_size(drawing: Drawing) -> str:
    x0, y0, x1, y1 = (round(value, 2) for value in drawing.box)
    return f"{x0:.2f} {y0:.2f} {x1 - x0:.2f} {y1 - y0:.2f}"


def _part_lines(entry: _Entry) -> Iterator[str]:
    for part_id, name in enumerate(PARTS, start=1):
        x, y = entry.drawing.parts[name]
        yield f"{entry.image_id} {part_id} {x:.2f} {y:.2f} 1"
