"""How an image becomes the tensor that a model sees; saved with the model."""

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
