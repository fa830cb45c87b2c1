"""What all figures share: colours, labels, boxes, PNG files.

Only matplotlib's objects are used, never pyplot: no global state, so that several threads may draw at once.
"""

import io
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from PIL import Image

from ramstrans.data.records import Box
from ramstrans.evaluation.report.fonts import use_installed_fonts
from ramstrans.evaluation.views import ScaleViews
from ramstrans.files import write_file

SCALE_COLORS = ("#4477AA", "#EE7733", "#228833", "#AA3377", "#66CCEE", "#CCBB44")
"""Colours of scale 1, 2, ..., also for colour-blind readers (https://personal.sron.nl/~pault)."""
FUSED_COLOR = "#222222"
RIGHT_COLOR = "#1A7F37"
WRONG_COLOR = "#C62828"
MUTED_COLOR = "#555555"
FOR_COLOR, AGAINST_COLOR = _CONTRAST_COLORS = "#0072B2", "#E66100"
"""Of what speaks for an answer, and for the class that it is compared with."""
DPI = 110
MAX_SIDE = 640  # pixels of an image in a figure

_LEFT_TO_RIGHT = "\u200e"  # keeps the percentage after an Arabic or Hebrew name where it is


def scale_color(index: int) -> str:
    """Colour of scale `index`, from 0; colours repeat when there are many scales.

    >>> scale_color(0), scale_color(6)
    ('#4477AA', '#4477AA')
    """
    return SCALE_COLORS[index % len(SCALE_COLORS)]


def label_text(text: str, max_length: int = 30) -> str:
    r"""Prepare text for matplotlib: on one line, without formulas, shortened in the middle.

    Bytes that are not UTF-8 become escapes.

    >>> label_text("Crow\n($5 each)"), label_text("Black footed Albatross", 12)
    ('Crow (\\$5 each)', 'Black …tross')
    >>> label_text("b\udce9d")
    'b\\udce9d'
    """
    line = "".join(map(_drawable, " ".join(text.split())))
    short = shortened(line, max_length).replace("$", r"\$")
    is_right_to_left = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in short)
    return f"{_LEFT_TO_RIGHT}{short}{_LEFT_TO_RIGHT}" if is_right_to_left else short


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


def _drawable(letter: str) -> str:
    """Return a letter itself, nothing for an invisible one, and an escape for a byte that is no text."""
    if letter.isprintable():
        return letter
    is_invisible = unicodedata.category(letter) == "Cf"
    return "" if is_invisible else letter.encode("unicode_escape").decode()


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


def draw_saliency(axes: Axes, views: ScaleViews, index: int) -> None:
    """Draw saliency over the grey crop that a scale saw; only the crop if it is not finite.

    The first scale's lies over the whole image, which is dark where the model did not see it. The unit of the
    axes is a pixel of the original image.
    """
    saliency = views.saliencies[index]
    with _over_grey(axes, views, index) as extent:
        if np.isfinite(saliency).all():
            top = float(np.quantile(saliency, 0.98))  # single hot patches would leave the rest dark
            axes.imshow(
                saliency, cmap="inferno", alpha=0.6, vmax=top, extent=extent, interpolation="bilinear"
            )


def draw_contrast(axes: Axes, views: ScaleViews, index: int, contrast: np.ndarray) -> None:
    """Draw a signed map (h, w) over the grey crop that a scale saw, the stronger the less transparent.

    Positive values are `FOR_COLOR`, negative ones `AGAINST_COLOR`. The unit of the axes is a pixel of the
    original image.
    """
    with _over_grey(axes, views, index) as extent:
        if np.isfinite(contrast).all():
            top = max(float(np.quantile(np.abs(contrast), 0.98)), np.finfo(np.float32).tiny)
            smooth = Image.fromarray((contrast / top).astype(np.float32)).resize(
                (16 * contrast.shape[1], 16 * contrast.shape[0]), Image.Resampling.BILINEAR
            )
            axes.imshow(contrast_colors(np.asarray(smooth)), extent=extent)


def contrast_colors(values: np.ndarray) -> np.ndarray:
    """(h, w, 4) float32 colours with opacities of values (h, w), which are cut to -1 .. 1."""
    values = np.clip(values, -1, 1)
    ends = np.array([[int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for color in _CONTRAST_COLORS])
    colors = ends[(values < 0).astype(int)]
    return np.concatenate([colors, 0.75 * np.abs(values)[..., None]], axis=-1).astype(np.float32)


@contextmanager
def _over_grey(axes: Axes, views: ScaleViews, index: int) -> Iterator[tuple[float, float, float, float]]:
    """Draw what a scale saw in grey, and what follows over it; gives matplotlib's extent of the crop."""
    crop_box, (width, height) = views.crop_boxes[index], views.size
    if index == 0:
        dark = views.image.convert("L").point([value // 3 for value in range(256)])
        draw_image(axes, dark, (0, 0, width, height))
    draw_image(axes, views.crops[index].convert("L"), crop_box)
    x0, y0, x1, y1 = crop_box
    yield x0, x1, y1, y0
    if index == 0:
        axes.set(xlim=(0, width), ylim=(height, 0))


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Ignore matplotlib's warnings of letters that it draws as boxes: `fonts` reports them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def fit_text(text: Text, compose: Callable[[int], str], max_length: int, max_inches: float) -> None:
    """Set a text to `compose(max_length)`, or to the longest `compose(n)`, n >= 6, that is narrow enough."""
    figure = text.get_figure(root=True)
    assert figure is not None
    with without_glyph_warnings():
        for length in range(max_length, 5, -1):
            text.set_text(compose(length))
            if text.get_window_extent().width <= max_inches * figure.dpi:
                return


def finish_axes(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Label axes, draw a light grid and no frame on top and right, and a legend if curves have names."""
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all, with the machine's fonts if necessary."""
    use_installed_fonts(figure)
    drawn = io.BytesIO()
    with without_glyph_warnings():
        figure.savefig(drawn, format="png", dpi=DPI)
    write_file(path, drawn.getvalue())
