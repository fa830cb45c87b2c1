"""How an image becomes the tensor that a model sees; saved with the model."""

import math
from dataclasses import dataclass

from ramstrans.errors import ConfigError

Size = tuple[int, int]
"""`(height, width)` in pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize, cut out the centre, normalise: `(pixel / 255 - mean) / std`.

    >>> Preprocessing(256, (224, 224)).crop
    (224, 224)

    Attributes:
        resize: Shorter side in pixels after resizing, or exact `(height, width)`; at least the crop.
        crop: `(height, width)` in pixels, cut from the resized photograph.
        mean: Mean of red, green and blue, for pixels in [0, 1]; ImageNet's by default.
        std: Standard deviation of red, green and blue, for pixels in [0, 1]; ImageNet's by default.
    """

    resize: int | Size
    crop: Size
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or min(self.crop) < 1:
            raise ConfigError(f"crop is {self.crop}; give (height, width) in pixels, 1 or more each")
        resize = (self.resize,) if isinstance(self.resize, int) else self.resize
        needed = (max(self.crop),) if isinstance(self.resize, int) else self.crop
        if len(resize) != len(needed) or any(got < need for got, need in zip(resize, needed, strict=True)):
            raise ConfigError(
                f"resize is {self.resize}, too small for the crop of {self.crop}; give a shorter side of "
                f"{max(self.crop)} pixels or more, or (height, width) of at least the crop"
            )
        if len(self.mean) != 3 or not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"mean is {self.mean}; give one number each for red, green and blue")
        if len(self.std) != 3 or not all(math.isfinite(std) and std > 0 for std in self.std):
            raise ConfigError(f"std is {self.std}; give one number above 0 each for red, green and blue")
