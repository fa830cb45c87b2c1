"""What all pictures share: colours, safe labels, and PNG files that stay small.

Only matplotlib's objects are used, never pyplot: no global state, so that threads may draw at once.
"""

import io
from functools import cache
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle
from PIL import Image

from ramstrans.data.records import Box
from ramstrans.files import write_file

SCALE_COLORS = ("#4477AA", "#EE7733", "#228833", "#AA3377", "#66CCEE", "#CCBB44")
"""Of scale 1, 2, ...; told apart by colour-blind readers too (https://personal.sron.nl/~pault)."""
FUSED_COLOR = "#222222"
RIGHT_COLOR = "#1A7F37"
WRONG_COLOR = "#C62828"
MAX_BYTES = 1_000_000
DPIS = (140, 110, 85, 65, 50)


def scale_color(index: int) -> str:
    """Colour of scale `index`, from 0; it repeats when there are many.

    >>> scale_color(0), scale_color(6)
    ('#4477AA', '#4477AA')
    """
    return SCALE_COLORS[index % len(SCALE_COLORS)]


def label_text(text: str, max_length: int = 30) -> str:
    r"""Text that matplotlib draws as it is: on one line, no formulas, no glyphs its font lacks, not too long.

    >>> label_text("Crow\n($5 each)"), label_text("Black footed Albatross", 12)
    ('Crow (\\$5 each)', 'Black foote…')
    """
    line = " ".join(text.split())
    short = line if len(line) <= max_length else line[: max_length - 1] + "…"
    return "".join(letter if ord(letter) in _glyphs() else "?" for letter in short).replace("$", r"\$")


def draw_box(axes: Axes, box: Box, color: str, *, rim: str = "white", dashed: bool = False) -> None:
    """A box with a rim, to be seen on any photograph.

    Args:
        axes: Whose unit is a pixel of the photograph.
        box: Half-open `(x0, y0, x1, y1)` in pixels of the photograph.
        color: Of the line within the rim.
        rim: Its color, another one.
        dashed: Whether the line is.
    """
    assert rim != color, "dashes could not be seen"
    x0, y0, x1, y1 = box
    for edge, width in ((rim, 3.6), (color, 2.0)):
        style = "--" if dashed and edge == color else "-"
        axes.add_patch(
            Rectangle(
                (x0, y0),
                x1 - x0,
                y1 - y0,
                fill=False,
                edgecolor=edge,
                linewidth=width,
                linestyle=style,
                clip_on=False,
            )
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file of at most `MAX_BYTES`, whole or not at all.

    One that is too large is reduced to 256 colours, then to fewer pixels.
    """
    for dpi in DPIS:
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        if drawn.tell() > MAX_BYTES:
            drawn = _reduced(drawn)
        if drawn.tell() <= MAX_BYTES:
            break
    write_file(path, drawn.getvalue())


def _reduced(drawn: io.BytesIO) -> io.BytesIO:
    """The same PNG in 256 colours, dithered: photographs stay smooth."""
    reduced = io.BytesIO()
    with Image.open(drawn) as image:
        colors = image.convert("RGB")
        palette = colors.quantize(256, method=Image.Quantize.FASTOCTREE)
        dithered = colors.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        dithered.save(reduced, "PNG", optimize=True)
    return reduced


@cache
def _glyphs() -> frozenset[int]:
    """Code points that matplotlib's default font can draw."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
