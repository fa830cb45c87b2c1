"""Put the photographs of CUB-200-2011, shrunk, into large pictures of other photographs' backgrounds.

    python scripts/far.py CUB_200_2011 OUT [--classes 50] [--size 1024] [--seed 0]

Writes a data set in the same format, with boxes, parts and the official split, which `ramstrans train OUT`
reads. The bird's box covers 0.5 to 2 % of a picture. A picture is rows of tiles: one is the whole
photograph, never cut and never enlarged. The others are cut from photographs of the same split, outside their
birds' boxes and about as much shrunk, so that edges and sharpness tell nothing of where the bird is. What
else a photograph shows outside its box, such as a second bird without one, nobody knows.
"""

import argparse
import functools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SHARES = (0.005, 0.02)
"""Least and most of a picture that the bird's box covers."""

MARGIN = 0.05
"""Kept away from a bird's box when background is cut, as a share of its sides."""

ASPECTS = (0.7, 1.6)
"""Widths of tiles, in heights of their row."""

TRIES = 30
"""Photographs among which background is looked for that need not be enlarged; else the best counts."""

Box = tuple[float, float, float, float]


class Photograph(NamedTuple):
    """A photograph: its file, and the box of its bird, `(x0, y0, x1, y1)` in pixels."""

    path: Path
    box: Box


class Placement(NamedTuple):
    """Where a photograph lies in a picture: its corner in pixels, and its scale across and down."""

    corner: tuple[int, int]
    scale: tuple[float, float]

    def box(self, box: Box) -> Box:
        """A box of the photograph, in pixels of the picture."""
        (x0, y0), (x1, y1) = self.point(box[:2]), self.point(box[2:])
        return x0, y0, x1, y1

    def point(self, point: Sequence[float]) -> tuple[float, float]:
        """A point of the photograph, in pixels of the picture."""
        return self.corner[0] + point[0] * self.scale[0], self.corner[1] + point[1] * self.scale[1]


@functools.lru_cache(maxsize=400)
def read(path: Path) -> Image.Image:
    """The pixels of a photograph."""
    with Image.open(path) as image:
        return image.convert("RGB")


def inside(box: Box, size: tuple[int, int]) -> Box:
    """The part of a box that lies in an image of `(width, height)`."""
    x0, y0, x1, y1 = box
    return max(x0, 0.0), max(y0, 0.0), min(x1, size[0]), min(y1, size[1])


def tile_size(photograph: Photograph, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """`(width, height)` that a photograph is shrunk to, so that its bird's box covers one of `SHARES`."""
    width, height = read(photograph.path).size
    x0, y0, x1, y1 = inside(photograph.box, (width, height))
    share = rng.uniform(*SHARES) * side**2 / ((x1 - x0) * (y1 - y0))
    factor = min(share**0.5, 1.0, side / 2 / max(width, height))
    return max(round(width * factor), 1), max(round(height * factor), 1)


def parts_of(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """A length in so many parts of similar size, in whole pixels."""
    weights = rng.uniform(0.7, 1.3, count)
    ends = np.rint(total * weights.cumsum() / weights.sum()).astype(int)
    return np.diff([0, *ends]).tolist()


def layout(
    size: tuple[int, int], side: int, rng: np.random.Generator
) -> tuple[tuple[int, int], list[tuple[int, int, int, int]]]:
    """The corner of a tile of a size in a square, and `(x, y, width, height)` of the tiles around it."""
    width, height = size
    rows = parts_of(side - height, max(round((side - height) / height), 1), rng)
    own = int(rng.integers(len(rows) + 1))
    corner, tiles, y = (0, 0), [], 0
    for number, row in enumerate([*rows[:own], height, *rows[own:]]):
        left = side - width if number == own else side
        columns = parts_of(left, max(round(left / row / rng.uniform(*ASPECTS)), 1), rng)
        place = int(rng.integers(len(columns) + 1)) if number == own else len(columns)
        x = 0
        for index, column in enumerate([*columns, 0]):
            if number == own and index == place:
                corner, x = (x, y), x + width
            if column and row:
                tiles.append((x, y, column, row))
            x += column
        y += row
    return corner, tiles


def strips(photograph: Photograph) -> Iterator[tuple[int, int, int, int]]:
    """The four largest rectangles beside a bird's box, `(x0, y0, x1, y1)` in whole pixels."""
    width, height = read(photograph.path).size
    x0, y0, x1, y1 = photograph.box
    across, down = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
    left, right = max(int(x0 - across), 0), min(int(np.ceil(x1 + across)), width)
    top, bottom = max(int(y0 - down), 0), min(int(np.ceil(y1 + down)), height)
    yield from (
        (0, 0, left, height),
        (right, 0, width, height),
        (0, 0, width, top),
        (0, bottom, width, height),
    )


def background(
    others: Sequence[Photograph], size: tuple[int, int], zoom: float, rng: np.random.Generator
) -> Image.Image:
    """A tile of a size, cut beside the bird of another photograph.

    Args:
        others: The photographs.
        size: `(width, height)` in pixels.
        zoom: Pixels of a photograph per pixel of the tile, where there are as many.
        rng: The source of randomness.
    """
    best: tuple[float, Photograph, tuple[int, int, int, int]] | None = None
    for _ in range(TRIES):
        other = others[int(rng.integers(len(others)))]
        for strip in strips(other):
            room = min((strip[2] - strip[0]) / size[0], (strip[3] - strip[1]) / size[1])
            if best is None or room > best[0]:
                best = room, other, strip
        if best is not None and best[0] >= 1:
            break
    assert best is not None, "TRIES is at least 1"
    room, other, (x0, y0, x1, y1) = best
    if min(x1 - x0, y1 - y0) < 1:
        raise SystemExit(f"the birds of {TRIES} photographs leave no background; give more photographs")
    strip = read(other.path).crop((x0, y0, x1, y1))  # resizing reads beside its box, where the bird is
    width, height = (max(min(room, zoom) * length, 1.0) for length in size)
    left, top = rng.uniform(0, max(x1 - x0 - width, 0)), rng.uniform(0, max(y1 - y0 - height, 0))
    cut = (left, top, min(left + width, x1 - x0), min(top + height, y1 - y0))
    return strip.resize(size, Image.Resampling.BICUBIC, box=cut)


def compose(
    photograph: Photograph, others: Sequence[Photograph], side: int, rng: np.random.Generator
) -> tuple[Image.Image, Placement]:
    """A picture of `side` pixels with a photograph in it, and where it lies."""
    image = read(photograph.path)
    size = tile_size(photograph, side, rng)
    corner, tiles = layout(size, side, rng)
    picture = Image.new("RGB", (side, side))
    for x, y, width, height in tiles:
        picture.paste(background(others, (width, height), image.width / size[0], rng), (x, y))
    picture.paste(image.resize(size, Image.Resampling.LANCZOS), corner)
    return picture, Placement(corner, (size[0] / image.width, size[1] / image.height))


def table(path: Path) -> dict[str, list[str]]:
    """The words of each line of a file, by the first one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {number: words for number, *words in map(str.split, lines)}


def make(root: Path, output: Path, *, num_classes: int, side: int, seed: int) -> None:
    """Write the data set; the same arguments give the same pictures."""
    names, labels, splits, boxes = (
        table(root / f"{name}.txt")
        for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")
    )
    photographs = {}
    for number, (name,) in names.items():
        x, y, width, height = map(float, boxes[number])
        if int(labels[number][0]) <= num_classes:
            photographs[number] = Photograph(root / "images" / name, (x, y, x + width, y + height))
    placements = {}
    for number, photograph in photographs.items():
        others = [one for key, one in photographs.items() if splits[key] == splits[number] and key != number]
        picture, placements[number] = compose(
            photograph, others, side, np.random.default_rng([seed, int(number)])
        )
        path = output / "images" / names[number][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=92)
    write_lists(root, output, photographs, placements)


def write_lists(
    root: Path, output: Path, photographs: dict[str, Photograph], placements: dict[str, Placement]
) -> None:
    """Write the lists of the pictures: those of the photographs, with boxes and parts where they lie now."""
    for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
        lines = (root / name).read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.split()[0] in photographs]
        (output / name).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    used = {words[0] for number, words in table(output / "image_class_labels.txt").items()}
    classes = [
        line
        for line in (root / "classes.txt").read_text(encoding="utf-8").splitlines()
        if line.split()[0] in used
    ]
    (output / "classes.txt").write_text("".join(f"{line}\n" for line in classes), encoding="utf-8")
    lines = []
    for number, photograph in photographs.items():
        x0, y0, x1, y1 = placements[number].box(inside(photograph.box, read(photograph.path).size))
        lines.append(f"{number} {x0:.2f} {y0:.2f} {x1 - x0:.2f} {y1 - y0:.2f}\n")
    (output / "bounding_boxes.txt").write_text("".join(lines), encoding="utf-8")
    if (root / "parts").is_dir():
        (output / "parts").mkdir(exist_ok=True)
        shutil.copyfile(root / "parts" / "parts.txt", output / "parts" / "parts.txt")
        lines = []
        for line in (root / "parts" / "part_locs.txt").read_text(encoding="utf-8").splitlines():
            number, part, x, y, is_visible = line.split()
            if number in placements:
                far_x, far_y = placements[number].point((float(x), float(y)))
                lines.append(f"{number} {part} {far_x:.2f} {far_y:.2f} {is_visible}\n")
        (output / "parts" / "part_locs.txt").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Read the arguments and write the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--classes", type=int, default=50, help="the first classes")
    parser.add_argument("--size", type=int, default=1024, help="side of the pictures in pixels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{options.output} exists; give a new folder")
    make(options.root, options.output, num_classes=options.classes, side=options.size, seed=options.seed)


if __name__ == "__main__":
    main()
