"""The explanation of an answer as a picture, by Pillow alone: saliency, region, and what it shows."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ramstrans.data.reading.decode import decode_reduced
from ramstrans.data.records import Box
from ramstrans.serve.engine import IN_MEMORY, Answer

SIDE = 512
"""Longer side of the photograph in pixels."""

_HEAT = np.array([[0, 0, 30], [90, 15, 110], [200, 50, 60], [250, 150, 20], [255, 250, 160]], np.float32)
_BOX_COLOR, _RIM_COLOR = "#EE7733", "white"
_OPACITY = 0.55


def draw(content: bytes, answer: Answer, max_pixels: int) -> bytes:
    """A PNG: the photograph under the first scale's saliency with its region; beside it the region enlarged.

    Without a saliency the photograph is plain, without a region nothing is beside it.

    Args:
        content: The bytes of an image file that was read before.
        answer: The answer for it.
        max_pixels: As in `decode_reduced`.
    """
    decoded = decode_reduced(IN_MEMORY, (SIDE, SIDE), max_pixels=max_pixels, content=content)
    photograph, (height, width) = decoded.image, decoded.original_size
    share = SIDE / max(width, height)
    size = max(round(width * share), 1), max(round(height * share), 1)
    left = photograph.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    scales = answer.prediction.scales
    box = scales[0].box if scales else None
    if answer.saliency is not None and np.isfinite(answer.saliency).all():
        left = overlaid(left, answer.saliency, _scaled(answer.view, share))
    if box is None:
        return _png(left)
    _outline(left, _scaled(box, share))
    right = _region(photograph, _scaled(box, photograph.width / width), left.height)
    canvas = Image.new("RGB", (left.width + 8 + right.width, left.height), "white")
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + 8, 0))
    return _png(canvas)


def overlaid(image: Image.Image, saliency: NDArray[np.float32], view: Box) -> Image.Image:
    """Lay the colours of a saliency (h, w) over the part of an image under it; the rest is darkened.

    `view` is that part in pixels of the image; it may extend beyond its edges.
    """
    x0, y0, x1, y1 = (round(side) for side in view)
    heat = Image.fromarray(to_unit(saliency)).resize((max(x1 - x0, 1), max(y1 - y0, 1)))
    levels = np.asarray(heat).clip(0, 1) * (len(_HEAT) - 1)
    steps = np.arange(len(_HEAT))
    colours = np.stack([np.interp(levels, steps, _HEAT[:, channel]) for channel in range(3)], axis=-1)
    layer = Image.new("RGB", image.size)
    layer.paste(Image.fromarray(colours.astype(np.uint8)), (x0, y0))
    return Image.blend(image, layer, _OPACITY)


def to_unit(saliency: NDArray[np.float32]) -> NDArray[np.float32]:
    """A saliency divided by its maximum; zeros stay zeros.

    >>> to_unit(np.array([[1.0, 4.0]], np.float32)).tolist()
    [[0.25, 1.0]]
    """
    top = float(saliency.max())
    return (saliency / top if top > 0 else saliency).astype(np.float32)


def _region(photograph: Image.Image, box: Box, height: int) -> Image.Image:
    """A region at the height of the picture beside it."""
    x0, y0, x1, y1 = box
    inside = max(x0, 0), max(y0, 0), min(x1, photograph.width), min(y1, photograph.height)
    width = round(height * (inside[2] - inside[0]) / max(inside[3] - inside[1], 1e-6))
    size = (min(max(width, 1), 4 * SIDE), height)
    return photograph.resize(size, Image.Resampling.BICUBIC, box=inside)


def _outline(image: Image.Image, box: Box) -> None:
    pen = ImageDraw.Draw(image)
    for width, color in ((5, _RIM_COLOR), (3, _BOX_COLOR)):
        pen.rectangle(box, outline=color, width=width)


def _scaled(box: Box, factor: float) -> Box:
    x0, y0, x1, y1 = (side * factor for side in box)
    return x0, y0, x1, y1


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
