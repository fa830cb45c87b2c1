"""Where a method looks next: from a saliency to a box, and from the box to what the next scale sees."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ramstrans.models.config import Component, Placement
from ramstrans.models.methods.base import HighRes, Stage
from ramstrans.models.methods.boxes import draws_of, moved, scaled, within
from ramstrans.models.methods.layers import LayerNames
from ramstrans.models.regions import Regions, grow_boxes, place_boxes, propose_regions, smoothed
from ramstrans.models.zoom import zoom, zoom_each


class Look(LayerNames):
    """The part of `Method` that proposes, places and cuts out regions; its arguments are there."""

    thresholds: tuple[float, ...]
    trained_sizes: tuple[tuple[int, int], ...]
    component: Component
    saliency_blur: float
    min_region: float
    max_aspect: float | None
    region_placement: Placement
    zoom_margin: float
    cut: Callable[[Tensor, Tensor, tuple[int, int]], Tensor] = staticmethod(zoom)
    """How boxes are cut out of images; an export may have `zoom_by_products`."""

    @property
    def image_size(self) -> tuple[int, int]:
        """`(height, width)` of the input in pixels."""
        return self.trained_sizes[0]

    def propose(self, saliency: Tensor, scale: int) -> Regions:
        """The region of one scale, in pixels of what it saw."""
        return propose_regions(
            smoothed(saliency, self.saliency_blur) if self.saliency_blur else saliency,
            self.trained_sizes[scale],
            self.thresholds[scale],
            patch_size=self.encoder.patch_size,
            patch_stride=self.encoder.patch_stride,
            component=self.component,
        )

    def region(self, saliency: Tensor, scale: int, crop_box: Tensor) -> Regions:
        """The region of one scale, margin included, in pixels of the input, as is `crop_box` (B, 4)."""
        height, width = size = self.trained_sizes[scale]
        boxes, has_region = self.propose(saliency, scale)
        boxes = self.enlarged(scaled(boxes, 1 / width, 1 / height), size)
        return Regions(_from_shares(place_boxes(boxes, self.region_placement), crop_box), has_region)

    def enlarged(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes (B, 4) in shares of an image of `(height, width)` with margin, grown to the limits."""
        margin = self.zoom_margin * (boxes[:, 2:] - boxes[:, :2]) / 2
        low, high = (boxes[:, :2] - margin).clamp(min=0), (boxes[:, 2:] + margin).clamp(max=1)
        boxes = torch.cat([low, high], dim=1)
        if self.min_region or self.max_aspect is not None:
            boxes = grow_boxes(
                boxes,
                min_side=self.min_region,
                max_aspect=self.max_aspect,
                width_by_height=size[1] / size[0],
            )
        return boxes

    def placed(self, stage: Stage, images: Tensor, scale: int, given: Tensor | None) -> Stage:
        """The stage with its region elsewhere, as two controls have it.

        `random`: a box of the same sides anywhere in what the scale saw. In training torch's generator draws
        the place in each step; in evaluation a hash of the pixels gives it, see `draws_of`, so that it does
        not depend on the batch. `given`: the true box, with margin and limits as
        for others.
        """
        if stage.boxes is None:
            return stage
        if self.region_placement == "random":
            draws = torch.rand(len(images), 2, device=images.device) if self.training else draws_of(images)
            return stage._replace(boxes=moved(stage.boxes, stage.crop_box, draws))
        if given is None:
            return stage
        shares, is_inside = within(given, stage.crop_box)
        boxes = self.enlarged(shares, self.trained_sizes[scale])
        return stage._replace(boxes=_from_shares(boxes, stage.crop_box), has_region=is_inside)

    @contextmanager
    def placed_at_random(self) -> Iterator[None]:
        """Let scales look at boxes of the same sides anywhere in what they see, as `random` does."""
        before = self.region_placement
        self.region_placement = "random"
        try:
            yield
        finally:
            self.region_placement = before

    def crop_regions(self, zoom_image: HighRes, boxes: Tensor, scale: int) -> Tensor:
        """(B, 3, h, w) input of a scale: regions, in pixels of the input, cut from `zoom_image`."""
        height, width = self.image_size
        if not isinstance(zoom_image, Tensor):
            shares = scaled(boxes, 1 / width, 1 / height)
            return self.encoder.normalize(zoom_each(zoom_image, shares, self.trained_sizes[scale]))
        boxes = scaled(boxes, zoom_image.shape[3] / width, zoom_image.shape[2] / height)
        return self.cut(zoom_image, boxes, self.trained_sizes[scale])


def _from_shares(boxes: Tensor, crop_box: Tensor) -> Tensor:
    """Boxes (B, 4) in shares of crops (B, 4) -> in the pixels of these."""
    low, high = boxes[:, :2], boxes[:, 2:]
    corner, sides = crop_box[:, :2], crop_box[:, 2:] - crop_box[:, :2]
    return torch.cat([corner + low * sides, corner + high * sides], dim=1)
