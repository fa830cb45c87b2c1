"""How an image becomes the tensor that a model sees; saved with the model."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ramstrans.errors import ConfigError

Size = tuple[int, int]
"""`(height, width)` in pixels."""

Fit = Literal["crop", "squash", "pad"]
"""How an image of any shape becomes an input of a fixed one."""


class Reading(NamedTuple):
    """All that reading an image depends on; the fields are those of `Preprocessing`."""

    resize: int | Size
    fit: Fit = "crop"
    zoom_pixels: int | None = None


@dataclass(frozen=True)
class Preprocessing:
    """Resize, then cut out a view; the model normalises.

    >>> Preprocessing(256, (224, 224)).crop
    (224, 224)

    Attributes:
        resize: Shorter side in pixels after resizing, or exact `(height, width)`; at least the crop.
        crop: `(height, width)` in pixels of a view of the resized image.
        fit: `crop`: the view is cut from the centre, what lies outside is not seen; `squash`: it is all of
            the image, resized to exactly `resize`; `pad`: it is all of the image, resized to fit into
            `resize` and padded evenly with `transforms.FILL`.
        zoom_pixels: Most pixels of an image that views are cut from at its own resolution, whatever `resize`
            and `crop`, which then only say what part of it a view is. None: views are cut from an image
            resized to `resize`.
    """

    resize: int | Size
    crop: Size
    fit: Fit = "crop"
    zoom_pixels: int | None = None

    @property
    def reading(self) -> Reading:
        """How images are read."""
        return Reading(self.resize, self.fit, self.zoom_pixels)

    def __post_init__(self) -> None:
        if min(self.crop) < 1:
            raise ConfigError(f"crop is {self.crop}; give (height, width) in pixels, 1 or more each")
        if self.zoom_pixels is not None and self.zoom_pixels < 1:
            raise ConfigError(f"zoom_pixels is {self.zoom_pixels}; give 1 or more")
        if self.fit != "crop" and isinstance(self.resize, int):
            raise ConfigError(f"resize is {self.resize}; fit {self.fit} needs (height, width)")
        height, width = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if height < self.crop[0] or width < self.crop[1]:
            raise ConfigError(
                f"resize is {self.resize}, too small for the crop of {self.crop}; give a shorter side of "
                f"{max(self.crop)} pixels or more, or (height, width) of at least the crop"
            )


def resized_size(original_size: Size, resize: int | Size, fit: Fit = "crop") -> Size:
    """`(height, width)` of an image after resizing to a shorter side, to an exact size, or to fit into it.

    >>> resized_size((375, 500), 256), resized_size((500, 375), 256), resized_size((375, 500), (600, 600))
    ((256, 341), (341, 256), (600, 600))
    >>> resized_size((375, 500), (600, 600), "pad")
    (450, 600)
    """
    if not isinstance(resize, int):
        if fit != "pad":
            return resize
        scale = min(side / original for side, original in zip(resize, original_size, strict=True))
        height, width = (max(round(side * scale), 1) for side in original_size)
        return height, width
    height, width = original_size
    longer = int(resize * max(original_size) / min(original_size))
    return (resize, longer) if height <= width else (longer, resize)


def limited_size(original_size: Size, max_pixels: int) -> Size:
    """`(height, width)` of an image that is reduced to at most so many pixels, but never enlarged.

    >>> limited_size((3000, 4000), 3_000_000), limited_size((375, 500), 3_000_000)
    ((1500, 2000), (375, 500))
    """
    height, width = original_size
    scale = math.sqrt(max_pixels / (height * width))
    return original_size if scale >= 1 else (max(int(height * scale), 1), max(int(width * scale), 1))
