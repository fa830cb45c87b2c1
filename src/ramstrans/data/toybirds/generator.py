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
from collections import defaultdict
from pathlib import Path

import numpy as np

from ramstrans.console import Progress, no_progress
from ramstrans.data.toybirds.drawing import PALETTE, PARTS, draw_bird
from ramstrans.errors import ConfigError
from ramstrans.files import new_folder

VERSION = 1
"""Incremented when the same arguments give other images."""

MARKER = "toybirds.json"
MAX_CLASSES = 27

NEAR_SIZE, FAR_SIZE = 176, 1024
"""Sides of the images in pixels."""

ALLOWED = {
    "num_classes": (2, MAX_CLASSES),
    "train_per_class": (1, 100_000),
    "test_per_class": (1, 100_000),
    "image_size": (32, 4096),
    "seed": (0, 2**63 - 1),
}
"""Lowest and highest value of each argument of `make_toybirds`."""

_GENERA = ("Finch", "Wren", "Warbler", "Bunting", "Sparrow", "Thrush", "Pipit", "Robin", "Lark")

Code = tuple[int, int, int, int]
"""Index into `PALETTE` of each of `CODED_PARTS`: crown, beak, wing, tail."""


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
    image_size: int | None = None,
    seed: int = 0,
    far: bool = False,
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
        image_size: Side of the square images, in pixels; None: 176, or with `far` 1,024.
        seed: Seed of the whole set.
        far: Whether birds are small in wide scenes: below 2 % of the image.
        progress: Reports images done.

    Raises:
        ConfigError: A number is out of range.
        OutputError: The folder is not empty, or cannot be written.
    """
    options = {
        "num_classes": num_classes,
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "image_size": image_size or (FAR_SIZE if far else NEAR_SIZE),
        "seed": seed,
    }
    for name, (low, high) in ALLOWED.items():
        if not low <= options[name] <= high:
            raise ConfigError(f"toybirds: {name} is {options[name]}; give {low} to {high}")
    with new_folder(root) as draft:
        (draft / "parts").mkdir()
        lists = _draw_images(draft, options, progress, far=far)
        made = {"version": VERSION, **options, **({"far": True} if far else {})}
        lists[MARKER] = [json.dumps(made, indent=2)]
        for name, lines in lists.items():
            text = "".join(f"{line}\n" for line in lines)
            (draft / name).write_bytes(text.encode())  # the same bytes on every system


def is_toybirds(root: Path) -> bool:
    """Whether a folder holds a complete set of this version, drawn with any arguments."""
    try:
        made = json.loads((root / MARKER).read_text(encoding="utf-8"))
        num_images = made["num_classes"] * (made["train_per_class"] + made["test_per_class"])
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):  # not a marker of ours
        return False
    num_found = sum(1 for _ in (root / "images").glob("*/*.jpg"))
    return bool(made.get("version") == VERSION and num_found == num_images)


def _draw_images(
    folder: Path, options: dict[str, int], progress: Progress, *, far: bool
) -> dict[str, list[str]]:
    """Write the images, class by class, training images first; return the lines of CUB's lists."""
    num_classes, train_per_class = options["num_classes"], options["train_per_class"]
    per_class, image_id = train_per_class + options["test_per_class"], 0
    lists: dict[str, list[str]] = defaultdict(list)
    lists["parts/parts.txt"] = [f"{part_id} {name}" for part_id, name in enumerate(PARTS, start=1)]
    for label, code in enumerate(species_codes(num_classes)):
        species = species_name(code)
        name = f"{label + 1:03d}.{species}"
        lists["classes.txt"].append(f"{label + 1} {name}")
        (folder / "images" / name).mkdir(parents=True)
        for index in range(per_class):
            image_id += 1
            path = f"{name}/{species}_{index + 1:04d}.jpg"
            rng = np.random.default_rng((options["seed"], label, index))
            image, box, parts = draw_bird(code, options["image_size"], rng, far=far)
            # full chroma: the parts are a few pixels of pure colour
            image.save(folder / "images" / path, quality=90, subsampling=0)
            x0, y0, x1, y1 = (round(value, 2) for value in box)
            lists["images.txt"].append(f"{image_id} {path}")
            lists["image_class_labels.txt"].append(f"{image_id} {label + 1}")
            lists["train_test_split.txt"].append(f"{image_id} {int(index < train_per_class)}")
            lists["bounding_boxes.txt"].append(f"{image_id} {x0:.2f} {y0:.2f} {x1 - x0:.2f} {y1 - y0:.2f}")
            for part_id, (x, y) in enumerate((parts[part] for part in PARTS), start=1):
                lists["parts/part_locs.txt"].append(f"{image_id} {part_id} {x:.2f} {y:.2f} 1")
            progress(image_id, num_classes * per_class, "drawing toybirds")
    return lists
