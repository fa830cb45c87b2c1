"""Small pictures for a page of limited size: photographs, what each scale saw, saliency."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageOps

from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.reading.decode import decode_reduced
from ramstrans.evaluation.report.gallery import gallery_views
from ramstrans.evaluation.report.html import data_uri
from ramstrans.evaluation.views import ScaleViews
from ramstrans.models.methods.method import Method
from ramstrans.saved.metadata import ModelMetadata

STEPS = ((256, 72), (224, 60), (192, 50), (160, 42), (128, 36), (96, 32))
"""Longer side in pixels and WebP quality of a photograph; the first that is small enough is taken."""
THUMB_STEPS = ((112, 65), (96, 55), (80, 45), (64, 40), (48, 35), (40, 25))
"""The same of the square photographs of classes."""

SMALLEST, COMFORTABLE = 700, 2600
"""Bytes, as a data URI, below which a photograph of a class shows nothing, and from which it is clear."""

MARKUP, THUMB_MARKUP = 420, 220
"""Bytes of the page around a picture, and around a photograph of a class."""

BATCH = 8
"""Images whose views are computed at once, and kept in memory."""


class Seen(NamedTuple):
    """Pictures of one image, as data URIs.

    Attributes:
        photograph: The whole image.
        saliency: What scale 1 saw, under its saliency; None for a photograph only.
        crops: What each further scale saw, and the same under its saliency.
    """

    photograph: str
    saliency: str | None = None
    crops: tuple[tuple[str, str], ...] = ()


class Source(NamedTuple):
    """Where pictures come from: a data set, and the model that looks at it."""

    model: Method
    metadata: ModelMetadata
    dataset: ImageDataset
    precision: str

    def photograph(self, index: int, side: int) -> Image.Image:
        """An upright image whose shorter side has at least `side` pixels, if it has so many."""
        path = self.dataset.records[index].path
        return decode_reduced(path, (side, side), max_pixels=self.dataset.max_pixels).image

    def views(self, indices: Sequence[int]) -> Iterator[tuple[int, ScaleViews]]:
        """What the scales saw in some images, a few at a time."""
        for start in range(0, len(indices), BATCH):
            part = indices[start : start + BATCH]
            views = gallery_views(self.model, self.metadata, self.dataset, part, self.precision)
            yield from zip(part, views, strict=True)


def thumbnails(
    source: Source, chosen: Mapping[int, Sequence[int]], max_bytes: int
) -> dict[int, list[tuple[int, str]]]:
    """Square photographs of classes, within so many bytes of a page.

    As many of each class as can be clear, at least one; where even those are too many for the page, only the
    first classes have one.

    Args:
        source: The data set.
        chosen: For each class, in order of importance, indices of images, the most important first.
        max_bytes: Of data URIs and what is around them.

    Returns:
        For each class that has some, index and data URI of its photographs.
    """
    most = max(map(len, chosen.values()), default=0)
    count, each = most, 0
    for count in range(most, 0, -1):
        number = sum(min(count, len(indices)) for indices in chosen.values())
        each = max_bytes // number - THUMB_MARKUP
        if each >= COMFORTABLE:
            break
    labels = list(chosen)
    if each < SMALLEST:
        labels, each = labels[: max_bytes // (SMALLEST + THUMB_MARKUP)], SMALLEST
    found = {}
    for label in labels:
        pictures = [
            (index, encoded(ImageOps.fit(source.photograph(index, 112), (112, 112)), each, THUMB_STEPS))
            for index in chosen[label][:count]
        ]
        if kept := [(index, uri) for index, uri in pictures if uri]:
            found[label] = kept
    return found


def seen_pictures(
    source: Source, looked_at: Sequence[int], photographed: Iterable[int], max_bytes: int
) -> dict[int, Seen]:
    """Pictures of some images with what all scales saw, and of others the photograph only, within a limit.

    An image of which no picture is small enough is left out.
    """
    others = [index for index in dict.fromkeys(photographed) if index not in set(looked_at)]
    num_pictures = len(looked_at) * 2 * source.model.num_looks + len(others)
    each = max_bytes // max(num_pictures, 1) - MARKUP
    found: dict[int, Seen | None] = {
        index: picture_of(views, each) for index, views in source.views(looked_at)
    }
    for index in others:
        uri = encoded(source.photograph(index, STEPS[0][0]), each)
        found[index] = Seen(uri) if uri else None
    return {index: seen for index, seen in found.items() if seen is not None}


def picture_of(views: ScaleViews, max_bytes: int) -> Seen | None:
    """Pictures of what the scales saw in one image; None unless each fits into so many bytes."""
    size = fitted(views.size, STEPS[0][0])
    whole = views.image.resize(size, Image.Resampling.LANCZOS)
    x0, y0, x1, y1 = views.crop_boxes[0]
    first = views.crops[0].resize(fitted((x1 - x0, y1 - y0), STEPS[0][0]), Image.Resampling.LANCZOS)
    pairs = list(zip(views.crops[1:], views.saliencies[1:], strict=False))
    images = [whole, with_saliency(first, views.saliencies[0])]
    images += [image for crop, saliency in pairs for image in (crop, with_saliency(crop, saliency))]
    uris = [encoded(image, max_bytes) for image in images]
    if not all(uris):
        return None
    photograph, saliency, *rest = map(str, uris)
    return Seen(photograph, saliency, tuple(zip(rest[::2], rest[1::2], strict=True)))


def with_saliency(image: Image.Image, saliency: np.ndarray) -> Image.Image:
    """Lay the colours of a saliency (h, w) over an image in grey; only grey if it is not finite."""
    grey = image.convert("L").convert("RGB")
    if not np.isfinite(saliency).all():
        return grey
    top = max(float(np.quantile(saliency, 0.98)), np.finfo(np.float32).tiny)  # one hot patch is not all
    smooth = Image.fromarray(saliency.astype(np.float32)).resize(grey.size, Image.Resampling.BILINEAR)
    colors = mpl.colormaps["inferno"](np.clip(np.asarray(smooth) / top, 0, 1), bytes=True)[..., :3]
    return Image.blend(grey, Image.fromarray(colors), 0.6)


def encoded(image: Image.Image, max_bytes: int, steps: Sequence[tuple[int, int]] = STEPS) -> str | None:
    """An image as a data URI of at most so many bytes, as large and clear as can be; None if not at all."""
    for side, quality in steps:
        small = image
        if max(image.size) > side:
            small = image.resize(fitted(image.size, side), Image.Resampling.LANCZOS, reducing_gap=3)
        stream = io.BytesIO()
        small.save(stream, "webp", quality=quality, method=4)
        uri = data_uri(stream.getvalue())
        if len(uri) <= max_bytes:
            return uri
    return None


def fitted(size: tuple[float, float], side: int) -> tuple[int, int]:
    """Width and height of the same shape whose longer one is `side`.

    >>> fitted((1000, 500), 112)
    (112, 56)
    """
    longer = max(size)
    return max(round(side * size[0] / longer), 1), max(round(side * size[1] / longer), 1)
