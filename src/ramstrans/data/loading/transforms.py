"""From a decoded photograph to the views a model sees, and back from its pixels to the photograph's."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

Size = tuple[int, int]

FILL = (124, 116, 104)
"""What moves or erases pixels leaves this colour, ImageNet's mean: about 0 once normalised."""


class Geometry(NamedTuple):
    """Where a view lies in its photograph: `view = photograph * scale - offset`, mirrored if `flip`.

    Attributes:
        scale: `(x, y)`, view pixels a photograph pixel.
        offset: `(x, y)` in view pixels.
        width: Of the view in pixels; what a mirrored x is counted from.
        flip: Whether the view is mirrored left to right.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    width: float
    flip: bool = False

    def to_original(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) in pixels of the view -> the same in pixels of the photograph.

        >>> view = Geometry((0.5, 0.5), (10.0, 0.0), 64.0)
        >>> view.to_original(np.array([0.0, 0.0, 10.0, 10.0])).tolist()
        [20.0, 0.0, 40.0, 20.0]
        """
        x0, y0, x1, y1 = np.moveaxis(np.asarray(boxes, dtype=np.float64), -1, 0)
        if self.flip:
            x0, x1 = self.width - x1, self.width - x0
        (scale_x, scale_y), (offset_x, offset_y) = self.scale, self.offset
        corners = ((x0 + offset_x) / scale_x, (y0 + offset_y) / scale_y)
        opposite = ((x1 + offset_x) / scale_x, (y1 + offset_y) / scale_y)
        return np.stack([*corners, *opposite], axis=-1)


class View(NamedTuple):
    """One view of a photograph.

    Attributes:
        image: (3, H, W) uint8, the model's input before normalisation.
        high_res: (3, H', W') uint8, the same view at the crop's resolution; may share the memory of the
            resized photograph, and of `image`, so that what nobody asks for is not copied.
        geometry: Where `image` lies in the photograph.
    """

    image: Tensor
    high_res: Tensor
    geometry: Geometry


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training views: crop place always, all else if asked for, in the order of the fields.

    All are made before the model's input is derived from the view's source, so that a later look sees the
    same change as the first.

    Attributes:
        flip: Mirror half of the views.
        color_jitter: Strength of brightness, contrast and saturation; 0 is off.
        rand_augment: Number of operations of RandAugment on each view; 0 is off.
        rand_magnitude: Their strength, 0 to 30.
        random_erasing: Probability that a rectangle is erased; 0 is off.
    """

    flip: bool = True
    color_jitter: float = 0.0
    rand_augment: int = 0
    rand_magnitude: int = 9
    random_erasing: float = 0.0


def resized_size(original_size: Size, resize: int | Size) -> Size:
    """`(height, width)` of a photograph once it is resized.

    Args:
        original_size: `(height, width)`.
        resize: Shorter side in pixels, or exact `(height, width)`.

    >>> resized_size((375, 500), 256), resized_size((500, 375), 256), resized_size((375, 500), (600, 600))
    ((256, 341), (341, 256), (600, 600))
    """
    if not isinstance(resize, int):
        return resize
    height, width = original_size
    longer = int(resize * max(original_size) / min(original_size))
    return (resize, longer) if height <= width else (longer, resize)


def resize_photograph(photograph: Image.Image, size: Size) -> Tensor:
    """Resize an RGB photograph to `(height, width)`; (3, height, width) uint8, channels last in memory."""
    resized: Tensor = F.resize(F.pil_to_tensor(photograph), list(size), antialias=True)
    return resized.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # copies nothing on CPUs with AVX2


def make_view(
    resized: Tensor,
    original_size: Size,
    crop: Size,
    image_size: Size,
    *,
    augmentation: Augmentation | None = None,
    generator: np.random.Generator | None = None,
) -> View:
    """Cut a view out of a resized photograph: its centre, or at random where an augmentation is given.

    Args:
        resized: (3, h, w) uint8, at least `crop` each way.
        original_size: `(height, width)` of the photograph before resizing.
        crop: `(height, width)` of the view's source.
        image_size: `(height, width)` of the model's input, to which the crop is resized.
        augmentation: Random changes; None: the centre, unchanged.
        generator: Where the randomness comes from; needed with an augmentation.

    Returns:
        A view whose geometry tells its crop and mirroring. Shears, shifts and rotations of RandAugment
        within the crop are not in it.
    """
    height, width = resized.shape[-2:]
    spare_y, spare_x = height - crop[0], width - crop[1]
    assert min(spare_y, spare_x) >= 0, "the resized photograph is smaller than the crop"
    top, left, flip = spare_y // 2, spare_x // 2, False
    if augmentation is not None:
        assert generator is not None, "an augmentation needs a generator"
        top, left = int(generator.integers(spare_y + 1)), int(generator.integers(spare_x + 1))
        flip = augmentation.flip and bool(generator.random() < 0.5)
    high_res = resized[:, top : top + crop[0], left : left + crop[1]]
    if flip:
        high_res = high_res.flip(-1)
    if augmentation is not None and generator is not None:
        high_res = change_pixels(high_res, augmentation, generator)
    image = high_res if crop == image_size else F.resize(high_res, list(image_size), antialias=True)
    ratio_y, ratio_x = image_size[0] / crop[0], image_size[1] / crop[1]
    geometry = Geometry(
        (width / original_size[1] * ratio_x, height / original_size[0] * ratio_y),
        (left * ratio_x, top * ratio_y),
        float(image_size[1]),
        flip,
    )
    return View(image, high_res, geometry)


def change_pixels(high_res: Tensor, augmentation: Augmentation, generator: np.random.Generator) -> Tensor:
    """The changes of an augmentation that are not of the frame; `high_res` itself where there are none."""
    if augmentation.color_jitter:
        # One plane a channel, in which it takes two thirds of the time.
        high_res = jitter_color(high_res.contiguous(), augmentation.color_jitter, generator)
    if augmentation.rand_augment:
        high_res = rand_augment(high_res, augmentation.rand_augment, augmentation.rand_magnitude, generator)
    if augmentation.random_erasing:
        high_res = erase(high_res, augmentation.random_erasing, generator)
    return high_res


def rand_augment(image: Tensor, num_ops: int, magnitude: int, generator: np.random.Generator) -> Tensor:
    """RandAugment (https://arxiv.org/abs/1909.13719), torchvision's: operations drawn out of 14.

    Args:
        image: (3, H, W) uint8.
        num_ops: How many, one after the other.
        magnitude: 0 to 30.
        generator: Where the randomness comes from.
    """
    transform = v2.RandAugment(num_ops, magnitude, interpolation=InterpolationMode.BILINEAR, fill=list(FILL))
    with _seeded_by(generator):
        # Pillow's operations take a third of the time of those on tensors.
        augmented: Tensor = F.pil_to_tensor(transform(F.to_pil_image(image)))
    return augmented


def erase(image: Tensor, probability: float, generator: np.random.Generator) -> Tensor:
    """Random erasing (https://arxiv.org/abs/1708.04896), torchvision's: 2 to 33 % of the pixels get `FILL`.

    Args:
        image: (3, H, W) uint8; not changed in place.
        probability: That anything is erased.
        generator: Where the randomness comes from.
    """
    with _seeded_by(generator):
        erased: Tensor = v2.RandomErasing(probability, value=list(FILL))(image)
    return erased


@contextmanager
def _seeded_by(generator: np.random.Generator) -> Iterator[None]:
    """Let a transform of torchvision draw from a NumPy generator; for one thread at a time.

    PyTorch's generator of the CPU, which all of a process draws from, is put back as it was.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs too, which nobody puts back
        torch.default_generator.manual_seed(int(generator.integers(2**63)))
        yield


def jitter_color(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Random brightness, contrast and saturation, each by a factor in [1 - strength, 1 + strength]."""
    factors = generator.uniform(max(0.0, 1 - strength), 1 + strength, size=3)
    image = F.adjust_brightness(image, float(factors[0]))
    image = F.adjust_contrast(image, float(factors[1]))
    jittered: Tensor = F.adjust_saturation(image, float(factors[2]))
    return jittered


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 images (B, 3, H, W) in 0..255 -> float32, `(x / 255 - mean) / std` for each channel."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    return images.to(torch.float32, copy=True).mul_(scale[:, None, None]).sub_(shift[:, None, None])
