"""Draw one toy bird: a scene of filled polygons, painted at twice its size and then halved.

The bird is a list of shapes in its own frame: x points to its beak, y down to its feet, and it is about
1.9 units long. A random affine map (flip, rotation, size, position) puts it on the canvas, over the clutter.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = NDArray[np.float64]
PartPoints = dict[str, Points]

PALETTE: dict[str, Colour] = {"Red": (222, 32, 38), "Yellow": (255, 214, 20), "Blue": (38, 84, 232)}
"""Colours of parts; berries and petals of the clutter have the same ones."""

CODED_PARTS = ("crown", "beak", "wing", "tail")
"""Parts whose colours determine the class, in the order of its code."""

PARTS = (*CODED_PARTS, "eye", "leg")
"""All parts; eye and leg are the same in every class."""

NEAR, FAR = (0.36, 0.50), (0.09, 0.14)
"""Shortest and longest bird, by the longer side of its box as a share of the image's: far below 2 % of it."""

_FAR_CLUTTER = 12
"""How much more clutter there is around a far bird, of its size: (0.43 / 0.115)^2 would be 14."""

_SUPERSAMPLING = 2
_INK, _WHITE = (24, 22, 26), (235, 235, 235)
_LEAF, _BARK = (86, 130, 64), (110, 84, 60)


class _Shape(NamedTuple):
    """A filled polygon: its corners (n, 2) as `(x, y)`, and its colour."""

    points: Points
    colour: Colour


class Drawing(NamedTuple):
    """One finished image.

    Attributes:
        image: RGB, square.
        box: `(x0, y0, x1, y1)` around the bird, half-open float pixels of the image.
        parts: `(x, y)` of each of `PARTS`, in pixels of the image; all are visible.
    """

    image: Image.Image
    box: tuple[float, float, float, float]
    parts: dict[str, tuple[float, float]]


def draw_bird(
    code: Sequence[int], image_size: int, rng: np.random.Generator, *, far: bool = False
) -> Drawing:
    """Draw one bird on a cluttered background.

    Args:
        code: Index into `PALETTE` of the colour of each of `CODED_PARTS`.
        image_size: Side of the image, in pixels.
        rng: The only source of randomness.
        far: Whether the bird is small in a wide scene: its box is below 2 % of the image.

    >>> drawing = draw_bird((0, 1, 2, 0), 96, np.random.default_rng(3))
    >>> drawing.image.size, sorted(drawing.parts)
    ((96, 96), ['beak', 'crown', 'eye', 'leg', 'tail', 'wing'])
    """
    canvas_size = _SUPERSAMPLING * image_size
    bird, part_points = _bird([list(PALETTE.values())[digit] for digit in code], rng)
    outline = np.concatenate([shape.points for shape in bird])
    matrix, offset = _placement(outline, canvas_size, rng, FAR if far else NEAR)
    bird = [_Shape(shape.points @ matrix + offset, shape.colour) for shape in bird]
    part_points = {name: point @ matrix + offset for name, point in part_points.items()}
    unit = float(np.linalg.norm(matrix[0]))

    image = _backdrop(canvas_size, rng)
    draw = ImageDraw.Draw(image)
    clutter = _clutter(canvas_size, unit, part_points["leg"], rng, _FAR_CLUTTER if far else 1)
    for points, colour in clutter + bird:
        draw.polygon([(x, y) for x, y in points.tolist()], fill=colour)
    image = _relit(image.reduce(_SUPERSAMPLING), rng)

    outline = np.concatenate([shape.points for shape in bird]) / _SUPERSAMPLING
    (x0, y0), (x1, y1) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
    parts = {name: (point / _SUPERSAMPLING).tolist() for name, point in part_points.items()}
    return Drawing(image, (x0, y0, x1, y1), {name: (x, y) for name, (x, y) in parts.items()})


# ---- the bird, in its own frame ----


def _bird(colours: Sequence[Colour], rng: np.random.Generator) -> tuple[list[_Shape], PartPoints]:
    """The shapes of a bird, from back to front, and the positions of its parts."""
    crown, beak, wing, tail = colours
    body = _muted(50, 130, rng)
    wing_bars = (_stroke((-0.02, -0.10), (-0.08, 0.21), 0.10), _stroke((-0.24, -0.03), (-0.28, 0.20), 0.08))
    tail_shapes, tail_points = _tail(_shade(body, 0.6), tail, rng)
    head_shapes, head_points = _head(body, crown, beak, rng)
    shapes = [
        _Shape(_stroke((0.02, 0.36), (0.06, 0.66), 0.05), _INK),
        _Shape(_stroke((0.16, 0.34), (0.20, 0.66), 0.05), _INK),
        *tail_shapes,
        _Shape(_ellipse((0.02, 0.06), (0.54, 0.36), turn=-0.30), body),
        _Shape(_ellipse((0.14, 0.20), (0.36, 0.20), turn=-0.35), _shade(body, 1.3)),
        *head_shapes,
        _Shape(_folded_wing(), _shade(body, 0.6)),
        *(_Shape(bar, wing) for bar in wing_bars),
    ]
    middle = {"wing": np.array((-0.15, 0.06)), "leg": np.array((0.12, 0.63))}
    return shapes, {**head_points, **middle, **tail_points}


def _tail(feathers: Colour, tip: Colour, rng: np.random.Generator) -> tuple[list[_Shape], PartPoints]:
    """A slightly raised or lowered tail with a coloured tip."""
    root, end = np.array((-0.38, 0.12)), np.array((-1.05, 0.11 + rng.uniform(-0.11, 0.11)))
    band = root + 0.73 * (end - root)
    shapes = [_Shape(_stroke(root, end, 0.21, 0.26), feathers), _Shape(_stroke(band, end, 0.25, 0.26), tip)]
    return shapes, {"tail": (band + end) / 2}


def _head(
    body: Colour, crown: Colour, beak: Colour, rng: np.random.Generator
) -> tuple[list[_Shape], PartPoints]:
    """A round head at a random height, with a beak, a coloured crown and a ringed eye."""
    neck = np.array((0.47, -0.30)) + rng.uniform(-0.045, 0.045, 2)
    eye = neck + np.array((0.12, 0.0))
    shapes = [
        _Shape(neck + np.array(((0.20, -0.08), (0.20, 0.12), (0.50, 0.05))), beak),
        _Shape(_ellipse(neck, (0.26, 0.25)), body),
        _Shape(_ellipse(neck, (0.27, 0.26), arc=(-3.3, 0.16)), crown),
        _Shape(_ellipse(eye, (0.08, 0.08)), _WHITE),
        _Shape(_ellipse(eye, (0.05, 0.05)), _INK),
    ]
    points = {"crown": neck + np.array((-0.02, -0.15)), "eye": eye, "beak": neck + np.array((0.33, 0.035))}
    return shapes, points


def _folded_wing() -> Points:
    """A drop shape: round at the shoulder, pointed over the tail."""
    return np.concatenate([_ellipse((0.02, 0.05), (0.22, 0.19), arc=(-1.5, 1.4)), [(-0.52, 0.19)]])


# ---- polygons, as corners (n, 2) ----


def _ellipse(
    centre: ArrayLike, radii: ArrayLike, turn: float = 0.0, arc: tuple[float, float] = (0.0, 2 * np.pi)
) -> Points:
    """An ellipse, or the segment of it between the ends of an arc; angles in radians."""
    angles = np.linspace(*arc, 25)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(circle * np.asarray(radii, float) @ _rotation(turn) + np.asarray(centre, float))


def _stroke(start: ArrayLike, end: ArrayLike, *widths: float) -> Points:
    """A straight stroke; the last width is that of its end."""
    start, end = np.asarray(start), np.asarray(end)
    along = (end - start) / np.linalg.norm(end - start)
    across = np.array((-along[1], along[0])) / 2
    at_start, at_end = across * widths[0], across * widths[-1]
    return np.stack([start + at_start, end + at_end, end - at_end, start - at_start])


def _rotation(angle: float) -> Points:
    """Matrix that rotates row vectors by an angle in radians, clockwise on the screen."""
    return np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))


# ---- the scene, in pixels of the canvas ----


def _placement(
    outline: Points, canvas_size: int, rng: np.random.Generator, lengths: tuple[float, float]
) -> tuple[Points, Points]:
    """A random affine map `points @ matrix + offset` that keeps the whole outline on the canvas."""
    matrix = np.diag((rng.choice((-1.0, 1.0)), 1.0)) @ _rotation(rng.uniform(-0.25, 0.25))
    low, high = (outline @ matrix).min(axis=0), (outline @ matrix).max(axis=0)
    scale = canvas_size * rng.uniform(*lengths) / (high - low).max()
    margin = 0.03 * canvas_size
    corner = rng.uniform(margin, canvas_size - margin - scale * (high - low))
    return scale * matrix, corner - scale * low


def _backdrop(size: int, rng: np.random.Generator) -> Image.Image:
    """Blurred sky and foliage: a grid of 6x6 related colours, enlarged smoothly."""
    top, bottom = np.array(_muted(130, 215, rng)), np.array(_muted(130, 215, rng))
    slope = np.linspace(0, 1, 6)[:, None, None]
    patches = top * (1 - slope) + bottom * slope + rng.normal(0, 16, (6, 6, 1)) + rng.normal(0, 6, (6, 6, 3))
    return Image.fromarray(_as_bytes(patches)).resize((size, size), Image.Resampling.BICUBIC)


def _clutter(size: int, unit: float, feet: Points, rng: np.random.Generator, times: int) -> list[_Shape]:
    """Branches, one of them under the bird's feet, leaves, and berries and petals in the parts' colours.

    There are `times` as many leaves and berries, and so many more branches as the scene is longer.
    """
    palette, num_crossing = list(PALETTE.values()), round(2 * times**0.5)
    crossing = [
        _branch(size, unit, rng.uniform(0, size, 2), rng.uniform(-1.4, 1.4), rng) for _ in range(num_crossing)
    ]
    perch = _branch(size, unit, feet, rng.uniform(-0.3, 0.3), rng)
    leaves = [
        _speck(size, unit * rng.uniform(0.12, 0.30), 0.45, _shade(_LEAF, rng.uniform(0.5, 1.4)), rng)
        for _ in range(times * rng.integers(5, 11))
    ]
    berries = [
        _speck(size, unit * rng.uniform(0.06, 0.12), rng.uniform(0.5, 1.0), palette[rng.integers(3)], rng)
        for _ in range(times * rng.integers(3, 9))
    ]
    return [*crossing, perch, *leaves, *berries]


def _branch(size: int, unit: float, through: Points, angle: float, rng: np.random.Generator) -> _Shape:
    """A branch across the whole canvas, through a point."""
    reach = 1.5 * size * np.array((np.cos(angle), np.sin(angle)))
    widths = unit * rng.uniform(0.06, 0.16, 2)
    return _Shape(_stroke(through - reach, through + reach, *widths), _shade(_BARK, rng.uniform(0.5, 1.3)))


def _speck(size: int, radius: float, flatness: float, colour: Colour, rng: np.random.Generator) -> _Shape:
    """An ellipse at a random position and angle."""
    centre = rng.uniform(0, size, 2)
    return _Shape(_ellipse(centre, (radius, radius * flatness), turn=rng.uniform(0, np.pi)), colour)


def _relit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The image with random brightness, contrast and tint, and some sensor noise."""
    contrast = rng.uniform(0.75, 1.2) * rng.uniform(0.93, 1.07, (3, 1))
    curves = 128 + rng.uniform(-15, 15) + contrast * (np.arange(256) - 128)
    lit = np.asarray(image.point(_as_bytes(curves).ravel().tolist()), dtype=np.int16)
    return Image.fromarray(_as_bytes(lit + rng.integers(-9, 10, lit.shape, dtype=np.int8)))


# ---- colours ----


def _muted(low: int, high: int, rng: np.random.Generator) -> Colour:
    """A greyish colour of random lightness, with a slight hue."""
    red, green, blue = _as_bytes(rng.uniform(low, high) + rng.uniform(-28, 28, 3)).tolist()
    return red, green, blue


def _shade(colour: Colour, factor: float) -> Colour:
    """A darker (factor below 1) or lighter (above 1) colour."""
    red, green, blue = _as_bytes(factor * np.array(colour)).tolist()
    return red, green, blue


def _as_bytes(values: NDArray[np.number]) -> NDArray[np.uint8]:
    """Values rounded down and clipped to 0-255."""
    return np.asarray(values).clip(0, 255).astype(np.uint8)
