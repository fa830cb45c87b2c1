"""From a resized image to the views that a model sees, and from their pixels back to the original's."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from ramstrans.data.config import DataConfig
from ramstrans.data.geometry import FILL, Geometry, frame_size, rescale_span
from ramstrans.data.preprocessing import Preprocessing, Size, resized_size


class View(NamedTuple):
    """One view of an image.

    Attributes:
        image: (3, H, W) uint8, the model's input before normalisation.
        high_res: (3, H', W') uint8, the same view at the crop's resolution, or at the photograph's own if
            `is_native`; may share memory with the resized image and with `image`, so that nothing is copied
            needlessly.
        geometry: Where `image` lies in the original image.
        is_native: Whether the size of `high_res` differs between images.
    """

    image: Tensor
    high_res: Tensor
    geometry: Geometry
    is_native: bool = False


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training views: always the crop's position, the others in the order of the fields.

    All are made at the resolution of `View.high_res`, before the model's input is derived from it, so that
    every scale sees the same change.

    Attributes:
        flip: Mirror half of the views.
        color_jitter: Strength of changes of brightness, contrast and saturation; 0 is off.
        rand_augment: Operations of RandAugment per view; 0 is off.
        rand_magnitude: Their strength, 0 to 30.
        random_erasing: Probability that a rectangle is erased; 0 is off.
    """

    flip: bool = DataConfig.flip
    color_jitter: float = DataConfig.color_jitter
    rand_augment: int = DataConfig.rand_augment
    rand_magnitude: int = DataConfig.rand_magnitude
    random_erasing: float = DataConfig.random_erasing


def make_view(
    resized: Tensor,
    original_size: Size,
    preprocessing: Preprocessing,
    image_size: Size,
    *,
    augmentation: Augmentation | None = None,
    generator: np.random.Generator | None = None,
) -> View:
    """Cut a view out of a resized image, a random one if an augmentation is given.

    With `fit` "crop" it has the crop's size and lies in the centre, or anywhere. Otherwise it is the whole
    image, or any part of its shape from the crop's size on, resized to the crop. With `zoom_pixels` it is the
    same part of the image, but keeps the image's own resolution.

    Args:
        resized: (3, h, w) uint8, read as `preprocessing` says.
        original_size: `(height, width)` of the image before resizing.
        preprocessing: Sizes and `fit`.
        image_size: `(height, width)` of the model's input, to which the view is resized.
        augmentation: Random changes; None: none. The view's geometry describes crop and
            mirroring, not RandAugment's shears, shifts and rotations within the crop.
        generator: Source of randomness; needed with an augmentation.
    """
    scale = resized.shape[2] / original_size[1], resized.shape[1] / original_size[0]
    pixels, (padded_x, padded_y) = pad_to(resized, original_size, preprocessing)
    is_native = preprocessing.zoom_pixels is not None
    height, width = pixels.shape[1:]
    frame = frame_size(original_size, preprocessing) if is_native else (height, width)
    rows, columns, flip = _draw_cut(frame, preprocessing, augmentation, generator)
    top, bottom = rescale_span(rows, frame[0], height)
    left, right = rescale_span(columns, frame[1], width)
    high_res = pixels[:, top:bottom, left:right]
    ratio_y, ratio_x = image_size[0] / high_res.shape[1], image_size[1] / high_res.shape[2]
    if flip:
        high_res = high_res.flip(-1)
    if augmentation is not None and generator is not None:
        if not is_native:
            high_res = resized_to(high_res, preprocessing.crop)  # of one size in a batch
        high_res = change_pixels(high_res, augmentation, generator)
    geometry = Geometry(
        (scale[0] * ratio_x, scale[1] * ratio_y),
        ((left - padded_x) * ratio_x, (top - padded_y) * ratio_y),
        float(image_size[1]),
        flip,
    )
    return View(resized_to(high_res, image_size), high_res, geometry, is_native)


def _draw_cut(
    frame: Size,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    generator: np.random.Generator | None,
) -> tuple[tuple[int, int], tuple[int, int], bool]:
    """Rows and columns `(first, past the last)` of a view in an image, and whether it is mirrored."""
    (height, width), crop = frame, preprocessing.crop
    assert min(height - crop[0], width - crop[1]) >= 0, "the resized image is smaller than the crop"
    cut = crop if preprocessing.fit == "crop" else frame
    if augmentation is None:
        top, left, flip = (height - cut[0]) // 2, (width - cut[1]) // 2, False
    else:
        assert generator is not None, "an augmentation needs a generator"
        if preprocessing.fit != "crop":
            share = generator.random()
            cut = (round(crop[0] + share * (height - crop[0])), round(crop[1] + share * (width - crop[1])))
        top, left = (
            int(generator.integers(whole - part + 1)) for whole, part in zip(frame, cut, strict=True)
        )
        flip = augmentation.flip and bool(generator.random() < 0.5)
    return (top, top + cut[0]), (left, left + cut[1]), flip


def pad_to(
    resized: Tensor, original_size: Size, preprocessing: Preprocessing
) -> tuple[Tensor, tuple[int, int]]:
    """Pad an image (3, h, w) evenly to the shape of `resize` with `FILL` if `fit` is "pad".

    Returns:
        The padded image, and the pixels added `(left, above)`.
    """
    if preprocessing.fit != "pad":
        return resized, (0, 0)
    height, width = resized.shape[1:]
    inside = resized_size(original_size, preprocessing.resize, "pad")
    whole_y, whole_x = frame_size(original_size, preprocessing)
    if preprocessing.zoom_pixels is not None:
        whole_y, whole_x = round(whole_y * height / inside[0]), round(whole_x * width / inside[1])
    top, left = (whole_y - height) // 2, (whole_x - width) // 2
    canvas = torch.tensor(FILL, dtype=torch.uint8).expand(whole_y, whole_x, 3).clone().permute(2, 0, 1)
    canvas[:, top : top + height, left : left + width] = resized
    return canvas, (left, top)


def resized_to(image: Tensor, size: Size) -> Tensor:
    """Resize an image (3, h, w) to a size `(height, width)`; one of that size is returned as it is."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    resized: Tensor = F.resize(image, list(size), antialias=True)
    return resized


def change_pixels(high_res: Tensor, augmentation: Augmentation, generator: np.random.Generator) -> Tensor:
    """Apply an augmentation's changes of pixels; returns `high_res` itself if there are none."""
    if augmentation.color_jitter:
        # Channels first in memory, which takes two thirds of the time.
        high_res = jitter_color(high_res.contiguous(), augmentation.color_jitter, generator)
    if augmentation.rand_augment:
        high_res = rand_augment(high_res, augmentation.rand_augment, augmentation.rand_magnitude, generator)
    if augmentation.random_erasing:
        high_res = erase(high_res, augmentation.random_erasing, generator)
    return high_res


def rand_augment(image: Tensor, num_ops: int, magnitude: int, generator: np.random.Generator) -> Tensor:
    """RandAugment (https://arxiv.org/abs/1909.13719), torchvision's: operations drawn from 14.

    `image` is (3, H, W) uint8; `magnitude`, the strength of the `num_ops` operations, is 0 to 30.
    """
    transform = v2.RandAugment(num_ops, magnitude, interpolation=InterpolationMode.BILINEAR, fill=list(FILL))
    with _seeded_by(generator):
        # Operations on Pillow images take a third of the time of those on tensors.
        augmented: Tensor = F.pil_to_tensor(transform(F.to_pil_image(image)))
    return augmented


def erase(image: Tensor, probability: float, generator: np.random.Generator) -> Tensor:
    """Random erasing (https://arxiv.org/abs/1708.04896), torchvision's: 2 to 33 % of the pixels get `FILL`.

    `image` is (3, H, W) uint8, not changed in place; `probability` that anything is erased.
    """
    with _seeded_by(generator):
        erased: Tensor = v2.RandomErasing(probability, value=list(FILL))(image)
    return erased


@contextmanager
def _seeded_by(generator: np.random.Generator) -> Iterator[None]:
    """Let a transform of torchvision draw from a NumPy generator; not safe with threads.

    PyTorch's CPU generator, which the whole process shares, is restored.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the GPUs, whose state is not restored
        torch.default_generator.manual_seed(int(generator.integers(2**63)))
        yield


def jitter_color(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Random brightness, contrast and saturation, each by a factor in [1 - strength, 1 + strength]."""
    factors = generator.uniform(max(0.0, 1 - strength), 1 + strength, size=3)
    image = F.adjust_brightness(image, float(factors[0]))
    image = F.adjust_contrast(image, float(factors[1]))
    jittered: Tensor = F.adjust_saturation(image, float(factors[2]))
    return jittered
