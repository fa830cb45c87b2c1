"""The photographs nearest to others in the features of a model, as values and as a picture."""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ramstrans.data.reading.decode import decode_reduced
from ramstrans.errors import UnreadableImageError
from ramstrans.evaluation.report import style
from ramstrans.inference.arguments import name_of
from ramstrans.inference.embeddings import features_of
from ramstrans.inference.predictor import Predictor
from ramstrans.plain import utf8_text
from ramstrans.saved.embeddings import Embeddings, nearest, unit

SIDE = 256
"""Pixels of a photograph in a picture, at most."""

CELL, GAP = 1.7, 0.45
"""Inches of a photograph in a picture, and of the text above it."""


class Neighbor(NamedTuple):
    """One photograph that was found.

    Attributes:
        row: Its index in what was searched.
        path: Its file.
        label: Its class, if it is known.
        cosine: Mean over scales of the cosines of both features, from -1 to 1.
    """

    row: int
    path: str
    label: str | None
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"path": self.path, "label": self.label, "cosine": round(self.cosine, 6)}


class Similar(NamedTuple):
    """What was found for an image.

    Attributes:
        path: The image.
        error: Why it could not be read, or None.
        found: Nearest first.
    """

    path: str
    error: str | None
    found: tuple[Neighbor, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """What was found as plain values."""
        return [one.to_json() for one in self.found]


def find_similar(
    predictor: Predictor,
    embeddings: Embeddings,
    paths: Iterable[str | Path],
    top_k: int,
    batch_size: int = 32,
) -> Iterator[Similar]:
    """The nearest photographs of each image, in order; the image itself is not among them."""
    for path, features, error in features_of(predictor, paths, batch_size):
        assert path is not None, "of a file"
        name = utf8_text(name_of(path))
        if features is None:
            yield Similar(name, utf8_text(str(error)), ())
            continue
        yield Similar(name, None, tuple(neighbors_of(embeddings, features, top_k, path)))


def neighbors_of(
    embeddings: Embeddings,
    features: np.ndarray,
    count: int,
    path: Path | None = None,
    label: str | None = None,
) -> list[Neighbor]:
    """The nearest photographs of features (S * D,), nearest first.

    Args:
        embeddings: What is searched.
        features: Of one image.
        count: How many.
        path: The image's file, which is not among them; None: it is not a file.
        label: Of this class alone; None: of all.
    """
    among = np.arange(len(embeddings.paths)) if label is None else embeddings.of_class(label)
    if len(among) == 0:
        return []
    queries = unit(features[None], embeddings.made.num_scales)
    rows, cosines = nearest(embeddings.units[among], queries, count + 1)
    found = [
        Neighbor(index, embeddings.paths[index], embeddings.labels[index], cosine)
        for index, cosine in zip(among[rows[0]].tolist(), cosines[0].tolist(), strict=True)
    ]
    own = None if path is None else path.absolute()
    return [one for one in found if Path(one.path).absolute() != own][:count]


def plot_similar(rows: Sequence[Similar], embeddings: Embeddings, path: Path) -> None:
    """Draw each image with what was found beside it, as a PNG file."""
    columns = 1 + max(len(row.found) for row in rows)
    figure = Figure(figsize=(CELL * columns, (CELL + GAP) * len(rows)), layout="constrained")
    cells = figure.subplots(len(rows), columns, squeeze=False)
    for row, line in zip(rows, cells, strict=True):
        draw_photograph(line[0], photograph_of(row.path), Path(row.path).name, "image")
        for axes in line[1:]:
            axes.set_axis_off()
        for neighbor, axes in zip(row.found, line[1:], strict=False):
            draw_neighbor(axes, embeddings, neighbor)
    style.save_figure(figure, path)


def draw_neighbor(
    axes: Axes, embeddings: Embeddings, neighbor: Neighbor, color: str = style.MUTED_COLOR
) -> None:
    """Draw a photograph that was found: its thumbnail, else its file; with class and cosine above."""
    title = neighbor.label or Path(neighbor.path).name
    image = neighbor_image(embeddings, neighbor)
    draw_photograph(axes, image, title, f"cosine {neighbor.cosine:.2f}", color)


def neighbor_image(embeddings: Embeddings, neighbor: Neighbor) -> Image.Image | None:
    """Its thumbnail, else its file; None if that is gone."""
    if embeddings.thumbnails is None:
        return photograph_of(neighbor.path)
    return Image.open(BytesIO(embeddings.thumbnails[neighbor.row])).convert("RGB")


def photograph_of(path: str) -> Image.Image | None:
    """A file, smaller; None if it cannot be read any more."""
    try:
        image = decode_reduced(Path(path), (SIDE, SIDE)).image
    except UnreadableImageError:
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def draw_photograph(
    axes: Axes, image: Image.Image | None, title: str, note: str, color: str = style.FUSED_COLOR
) -> None:
    """Draw a photograph with a line and a note above; without one, the words."""
    axes.set_axis_off()
    axes.set_anchor("N")
    if image is None:
        axes.text(0.5, 0.5, "file is gone", ha="center", va="center", fontsize=8, color=style.MUTED_COLOR)
        axes.set(xlim=(0, 1), ylim=(0, 1))
    else:
        axes.imshow(np.asarray(image), aspect="equal")
    axes.set_title(f"{style.label_text(title, 22)}\n{note}", fontsize=8, color=color, loc="left", pad=3)
