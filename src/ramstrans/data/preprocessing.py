"""How an image becomes the tensor that a model sees; saved with the model."""

from dataclasses import dataclass

from ramstrans.errors import ConfigError

Size = tuple[int, int]
"""`(height, width)` in pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize, then cut out the centre; the model normalises.

    >>> Preprocessing(256, (224, 224)).crop
    (224, 224)

    Attributes:
        resize: Shorter side in pixels after resizing, or exact `(height, width)`; at least the crop.
        crop: `(height, width)` in pixels, cut from the resized image.
    """

    resize: int | Size
    crop: Size

    def __post_init__(self) -> None:
        if min(self.crop) < 1:
            raise ConfigError(f"crop is {self.crop}; give (height, width) in pixels, 1 or more each")
        height, width = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if height < self.crop[0] or width < self.crop[1]:
            raise ConfigError(
                f"resize is {self.resize}, too small for the crop of {self.crop}; give a shorter side of "
                f"{max(self.crop)} pixels or more, or (height, width) of at least the crop"
            )
