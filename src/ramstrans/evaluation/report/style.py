"""What all figures share: colours, labels, boxes, PNG files.

Only matplotlib's objects are used, never pyplot: no global state, so that several threads may draw at once.
"""

import functools
import io
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from PIL import Image

from ramstrans.data.records import Box
from ramstrans.files import write_file

SCALE_COLORS = ("#4477AA", "#EE7733", "#228833", "#AA3377", "#66CCEE", "#CCBB44")
"""Colours of scale 1, 2, ..., also for colour-blind readers (https://personal.sron.nl/~pault)."""
FUSED_COLOR = "#222222"
RIGHT_COLOR = "#1A7F37"
WRONG_COLOR = "#C62828"
MUTED_COLOR = "#555555"
OWN_FONT = "DejaVu Sans"  # comes with matplotlib
DPI = 110
MAX_SIDE = 640  # pixels of an image in a figure


def scale_color(index: int) -> str:
    """Colour of scale `index`, from 0; colours repeat when there are many scales.

    >>> scale_color(0), scale_color(6)
    ('#4477AA', '#4477AA')
    """
    return SCALE_COLORS[index % len(SCALE_COLORS)]


def label_text(text: str, max_length: int = 30) -> str:
    r"""Prepare text for matplotlib: on one line, without formulas, shortened in the middle.

    Letters that no installed font has, and bytes that are not UTF-8, become escapes.

    >>> label_text("Crow\n($5 each)"), label_text("Black footed Albatross", 12)
    ('Crow (\\$5 each)', 'Black …tross')
    >>> label_text("b\udce9d")
    'b\\udce9d'
    """
    line = " ".join(text.split())
    shown = (letter for letter in line if unicodedata.category(letter) != "Cf")  # marks without a picture
    drawable = "".join(letter if _font_of(letter) else _escape(letter) for letter in shown)
    return shortened(drawable, max_length).replace("$", r"\$")


def shortened(text: str, max_length: int) -> str:
    """Leave out the middle of a text that is too long; wide letters, such as Chinese ones, count twice.

    >>> shortened("wren", 4), shortened("black-footed albatross", 9), shortened("鳥鳥鳥鳥", 5)
    ('wren', 'blac…ross', '鳥…鳥')
    """
    if _width(text) <= max_length:
        return text
    tail = (max_length - 1) // 2
    return f"{_start(text, max_length - 1 - tail)}…{_start(text[::-1], tail)[::-1]}"


def _start(text: str, max_length: int) -> str:
    while _width(text) > max_length:
        text = text[:max_length] if len(text) > max_length else text[:-1]
    return text


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


@functools.cache
def _font_of(letter: str) -> str | None:
    """Name of an installed font that has a letter, matplotlib's own first; None if none has it."""
    if not letter.isprintable():
        return None
    own = font_manager.findfont(OWN_FONT)
    if font_manager.get_font(own).get_char_index(ord(letter)):
        return OWN_FONT
    return next((name for name, letters in _other_fonts().items() if ord(letter) in letters), None)


@functools.cache
def _other_fonts() -> dict[str, frozenset[int]]:
    """The letters of every other installed font, by the font's name, in alphabetical order."""
    found: dict[str, frozenset[int]] = {}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        if entry.name not in found and not entry.name.startswith(("DejaVu", "Last Resort", "STIX", "cm")):
            try:
                found[entry.name] = frozenset(font_manager.get_font(entry.fname).get_charmap())
            except (OSError, RuntimeError):  # a font that is gone, or damaged
                continue
    return found


def draw_box(axes: Axes, box: Box, color: str, *, rim: str = "white", dashed: bool = False) -> None:
    """Draw a box with a rim, visible on any image; the box is in the unit of the axes."""
    x0, y0, x1, y1 = box
    style = "--" if dashed else "-"
    outline = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=2, linestyle=style)
    outline.set(clip_on=False, path_effects=[withStroke(linewidth=3.6, foreground=rim)])
    axes.add_patch(outline)


def draw_image(axes: Axes, image: Image.Image, box: Box) -> None:
    """Draw an image, downscaled, over a box; the unit of the axes is a pixel of the original image."""
    x0, y0, x1, y1 = box
    small = image.copy()
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    axes.imshow(np.asarray(small), cmap="gray", vmin=0, vmax=255, extent=(x0, x1, y1, y0), aspect="equal")
    axes.set_axis_off()
    axes.set_anchor("W")


def draw_saliency(axes: Axes, saliency: np.ndarray, crop: Image.Image, crop_box: Box) -> None:
    """Draw saliency (h, w) over the grey crop that the scale saw; only the crop if it is not finite.

    The unit of the axes is a pixel of the original image, in which the crop lies at `crop_box`.
    """
    draw_image(axes, crop.convert("L"), crop_box)
    if np.isfinite(saliency).all():
        x0, y0, x1, y1 = crop_box
        extent = (x0, x1, y1, y0)
        top = float(np.quantile(saliency, 0.98))  # single hot patches would leave the rest dark
        axes.imshow(saliency, cmap="inferno", alpha=0.6, vmax=top, extent=extent, interpolation="bilinear")


def darkened(image: Image.Image) -> Image.Image:
    """Convert to a dark grey image, for what the model did not see."""
    return image.convert("L").point([value // 3 for value in range(256)])


def fit_text(text: Text, compose: Callable[[int], str], max_length: int, max_inches: float) -> None:
    """Set a text to `compose(max_length)`, or to the longest `compose(n)`, n >= 6, that is narrow enough."""
    figure = text.get_figure(root=True)
    assert figure is not None
    for length in range(max_length, 5, -1):
        text.set_text(compose(length))
        _choose_fonts(text)
        if text.get_window_extent().width <= max_inches * figure.dpi:
            return


def _choose_fonts(text: Text) -> None:
    """Add fonts that have the letters that matplotlib's own lacks."""
    others = sorted({name for name in map(_font_of, text.get_text()) if name} - {OWN_FONT})
    if others:
        text.set_fontfamily([OWN_FONT, *others])


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all; each letter in a font that has it."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        _choose_fonts(text)
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(drawn, format="png", dpi=DPI)
    write_file(path, drawn.getvalue())
