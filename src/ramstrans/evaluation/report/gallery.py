"""The gallery of the report: photograph, saliency, region and crop, of right answers and of wrong ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ramstrans.evaluation.report.style import RIGHT_COLOR, WRONG_COLOR, draw_box, label_text, save_figure

Box = tuple[float, float, float, float]

CELL_WIDTH, CELL_HEIGHT, GAP = 2.4, 1.8, 0.08  # inches
TITLE_HEIGHT, HEADER_HEIGHT = 0.36, 0.62
THUMBNAIL_SIDE = 480  # pixels; more is never seen
REGION_COLOR, TRUE_COLOR = "#FFD400", "#FFFFFF"
HEADERS = ("photograph", "saliency", "region (yellow), true box (dashed)", "what the next scale saw")


class GalleryItem(NamedTuple):
    """One image of the gallery; boxes are half-open `(x0, y0, x1, y1)` in pixels of the original image.

    Attributes:
        image: The original photograph.
        saliency: (h, w) saliency of the patches, or None.
        saliency_frame: Box of the original over which the saliency is stretched: what scale 1 saw.
        box: The region, or None.
        true_box: The data set's box, or None.
        crop: What the next scale saw.
        true_name: The true class.
        predicted_name: The fused answer.
        probability: Of that answer, in [0, 1].
        scale_predictions: What each scale said, e.g. `"Crow 87 %"`.
    """

    image: Image.Image
    saliency: np.ndarray | None
    saliency_frame: Box | None
    box: Box | None
    true_box: Box | None
    crop: Image.Image
    true_name: str
    predicted_name: str
    probability: float
    scale_predictions: Sequence[str]

    @property
    def is_right(self) -> bool:
        """Whether the fused answer is the true class."""
        return self.true_name == self.predicted_name


def plot_gallery(items: Sequence[GalleryItem], path: Path) -> None:
    """Draw a row of four pictures for each item: first a block of the right ones, then of the wrong ones.

    Args:
        items: In the order to be drawn within their block.
        path: The PNG file.
    """
    blocks = [[item for item in items if item.is_right], [item for item in items if not item.is_right]]
    row_height = TITLE_HEIGHT + CELL_HEIGHT + GAP
    height = sum(HEADER_HEIGHT + row_height * len(block) for block in blocks) + GAP
    figure = Figure(figsize=(4 * (CELL_WIDTH + GAP) + GAP, height))
    top = height  # inches above the lower edge
    for block, name, color in zip(blocks, ("Right", "Wrong"), (RIGHT_COLOR, WRONG_COLOR), strict=True):
        _header(figure, top, f"{name}: {len(block) or 'none'}", color, with_columns=bool(block))
        top -= HEADER_HEIGHT
        for item in block:
            _item(figure, top, item, color)
            top -= row_height
    save_figure(figure, path)


def _header(figure: Figure, top: float, text: str, color: str, *, with_columns: bool) -> None:
    width, height = figure.get_size_inches()
    figure.text(GAP / width, (top - 0.1) / height, text, color=color, fontsize=13, weight="bold", va="top")
    for column, name in enumerate(HEADERS if with_columns else ()):
        x = GAP + column * (CELL_WIDTH + GAP)
        figure.text(x / width, (top - 0.38) / height, name, color="#555555", fontsize=8, va="top")


def _item(figure: Figure, top: float, item: GalleryItem, color: str) -> None:
    """One row: two lines of words, and four pictures."""
    width, height = figure.get_size_inches()
    answer = f"{label_text(item.predicted_name, 40)} {100 * item.probability:.0f} %"
    title = answer if item.is_right else f"{answer}, in truth {label_text(item.true_name, 40)}"
    figure.text(GAP / width, (top - 0.02) / height, title, color=color, fontsize=9, weight="bold", va="top")
    said = [f"scale {index}: {label_text(text, 40)}" for index, text in enumerate(item.scale_predictions, 1)]
    figure.text(GAP / width, (top - 0.19) / height, "   ".join(said), color="#555555", fontsize=7.5, va="top")
    bottom = top - TITLE_HEIGHT - CELL_HEIGHT
    cells = [
        figure.add_axes(
            (
                (GAP + column * (CELL_WIDTH + GAP)) / width,
                bottom / height,
                CELL_WIDTH / width,
                CELL_HEIGHT / height,
            )
        )
        for column in range(4)
    ]
    for axes in cells:
        axes.set_axis_off()
        axes.set_anchor("W")
    for axes in cells[:3]:
        _photograph(axes, item.image)
    _saliency(cells[1], item)
    _boxes(cells[2], item)
    cells[3].imshow(_thumbnail(item.crop))


def _photograph(axes: Axes, image: Image.Image) -> None:
    """The image, small, in axes whose unit is a pixel of the original."""
    axes.imshow(_thumbnail(image), extent=(0, image.width, image.height, 0), aspect="equal")


def _saliency(axes: Axes, item: GalleryItem) -> None:
    """Saliency over the photograph; what scale 1 did not see is left dark."""
    if item.saliency is None or item.saliency_frame is None:
        return
    width, height = item.image.size
    x0, y0, x1, y1 = item.saliency_frame
    axes.add_patch(Rectangle((0, 0), width, height, color="black", alpha=0.55, linewidth=0))
    seen = item.image.crop((round(x0), round(y0), round(x1), round(y1)))
    axes.imshow(_thumbnail(seen.convert("L")), cmap="gray", extent=(x0, x1, y1, y0), zorder=2)
    axes.imshow(
        item.saliency, cmap="inferno", alpha=0.6, extent=(x0, x1, y1, y0), zorder=3, interpolation="bilinear"
    )
    axes.set(xlim=(0, width), ylim=(height, 0))


def _boxes(axes: Axes, item: GalleryItem) -> None:
    if item.true_box is not None:
        draw_box(axes, item.true_box, TRUE_COLOR, rim="black", dashed=True)
    if item.box is not None:
        draw_box(axes, item.box, REGION_COLOR, rim="black")
    axes.set(xlim=(0, item.image.width), ylim=(item.image.height, 0))


def _thumbnail(image: Image.Image) -> np.ndarray:
    """(h, w, 3) or (h, w) uint8, at most `THUMBNAIL_SIDE` pixels a side."""
    small = image if image.mode == "L" else image.convert("RGB")
    if max(small.size) > THUMBNAIL_SIDE:
        small = small.copy()
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small)
