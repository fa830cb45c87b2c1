"""RAMS-Trans: the recurrent loop over scales (https://arxiv.org/abs/2107.08192).

The whole method:

    for scale in range(num_scales):
        features = backbone(images, scale)              # class token, queries, keys
        saliency = rollout(features)                    # (B, h, w)
        boxes = propose_regions(saliency, image_size)   # (B, 4)
        scales.append(ScaleOutput(head(features), saliency, boxes))
        images = zoom(source, boxes, image_size)        # or another region_size
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from ramstrans.errors import ConfigError, UsageError
from ramstrans.models.config import ModelConfig
from ramstrans.models.encoder import Backbone, Features, build_vit
from ramstrans.models.pretrained import load_pretrained
from ramstrans.models.regions import Regions, propose_regions
from ramstrans.models.saliency.rollout import rollout
from ramstrans.models.zoom import zoom

MIN_CHUNK_TOKENS = 512
"""Of a pass without gradients that goes in parts; on fewer, matrix products lose speed."""


class ScaleOutput(NamedTuple):
    """What one look gives.

    Attributes:
        logits: (B, num_classes).
        saliency: (B, h, w) float32, non-negative, of the patches of what this scale looked at.
            None for the last scale in training, and where it was not asked for.
        boxes: (B, 4) float32, the region proposed for the next look, half-open `(x0, y0, x1, y1)` in
            pixels of the original input, whatever the scale. None where `saliency` is.
        has_region: (B,) bool, False where nothing stood out and the box is all that this scale saw.
            None where `saliency` is.
    """

    logits: Tensor
    saliency: Tensor | None
    boxes: Tensor | None
    has_region: Tensor | None


class RamsOutput(NamedTuple):
    """What all looks give, first scale first."""

    scales: tuple[ScaleOutput, ...]

    @property
    def probabilities(self) -> Tensor:
        """(S, B, num_classes) float32, softmax of each scale's logits."""
        return torch.stack([scale.logits.float().softmax(dim=-1) for scale in self.scales])

    @property
    def fused(self) -> Tensor:
        """(B, num_classes) float32, mean of the scales' probabilities."""
        return self.probabilities.mean(dim=0)


class RamsTrans(nn.Module):
    """A ViT that looks, zooms into what caught its attention, and looks again.

    Patch projection, layers and head are shared between scales, class tokens are not. No gradient flows
    through the choice of the region or the crop.

    Args:
        backbone: The ViT, with one class token a scale and its own head.
        thresholds: eta of each scale's region.
        scale_sizes: `(height, width)` in pixels of what each scale sees: the input, then enlarged regions.
        saliency_rows: `all` or `class`, see `rollout`.
        zoom_source: `input`: regions are cut from the input; `full`: from `high_res`, handed to `forward`.
        zoom_margin: Share of a box's sides added around it before the crop.
    """

    def __init__(
        self,
        backbone: Backbone,
        thresholds: tuple[float, ...],
        scale_sizes: tuple[tuple[int, int], ...],
        *,
        saliency_rows: Literal["all", "class"] = "all",
        zoom_source: Literal["input", "full"] = "input",
        zoom_margin: float = 0.0,
    ) -> None:
        super().__init__()
        assert len(thresholds) == len(scale_sizes) == backbone.num_scales, "one threshold and size a scale"
        self.backbone = backbone
        self.thresholds = thresholds
        self.scale_sizes = scale_sizes
        self.saliency_rows: Literal["all", "class"] = saliency_rows
        self.zoom_source = zoom_source
        self.zoom_margin = zoom_margin

    @property
    def num_scales(self) -> int:
        """S, the number of looks."""
        return self.backbone.num_scales

    @property
    def image_size(self) -> tuple[int, int]:
        """`(height, width)` of the input in pixels."""
        return self.scale_sizes[0]

    def forward(
        self, images: Tensor, high_res: Tensor | None = None, *, last_region: bool = True
    ) -> RamsOutput:
        """Look `num_scales` times.

        Args:
            images: (B, 3, H, W), normalised as the backbone expects.
            high_res: (B, 3, H', W'), the same views at a higher resolution, normalised alike; needed,
                and used, with `zoom_source="full"` only.
            last_region: Whether the last scale proposes a region too, though no scale looks at it. In
                training it never does.

        Returns:
            RamsOutput, all boxes in the frame of `images`.

        Raises:
            UsageError: `high_res` is missing with `zoom_source="full"`, or given without it.
        """
        high_res = self.zoom_image(images, high_res)
        crop_box = whole_image(images)  # what this scale looks at, in pixels of the input
        scales: list[ScaleOutput] = []
        for scale in range(self.num_scales):
            is_last = scale == self.num_scales - 1
            with_region = not is_last or (last_region and not self.training)
            scales.append(self.look(images, scale, crop_box, with_region=with_region))
            if not is_last:
                crop_box = cast(Tensor, scales[-1].boxes)
                images = self.crop_regions(high_res, crop_box, scale + 1)
        return RamsOutput(tuple(scales))

    def zoom_image(self, images: Tensor, high_res: Tensor | None) -> Tensor:
        """What regions are cut from: `images` or `high_res`, as `zoom_source` says; both are checked."""
        if tuple(images.shape[2:]) != self.image_size:
            height, width = self.image_size
            raise UsageError(
                f"images are {images.shape[2]}x{images.shape[3]} pixels; this model takes {height}x{width}: "
                "resize them, or build it with another model.image_size"
            )
        if (high_res is not None) != (self.zoom_source == "full") and self.num_scales > 1:
            raise UsageError(
                f"zoom_source is '{self.zoom_source}' and source was "
                f"{'not ' if high_res is None else ''}given; "
                "hand a higher-resolution source along with 'full', and only then"
            )
        return images if high_res is None else high_res

    def look(self, images: Tensor, scale: int, crop_box: Tensor, *, with_region: bool = True) -> ScaleOutput:
        """Look once.

        Without gradients a large batch goes in parts, so that the queries and keys of few images are held
        at a time: those of all layers outweigh everything else that a pass keeps.

        Args:
            images: (B, 3, H, W), what this scale sees.
            scale: Which look, from 0.
            crop_box: (B, 4), where `images` lie, in pixels of the original input.
            with_region: Whether to propose a region.
        """
        return self.look_with_token(images, scale, crop_box, with_region=with_region)[0]

    def look_with_token(
        self, images: Tensor, scale: int, crop_box: Tensor, *, with_region: bool
    ) -> tuple[ScaleOutput, Tensor]:
        """Look once; what `look` gives, and the class token (B, D) that the logits are of."""
        whole = torch.is_grad_enabled() or torch.compiler.is_compiling() or not with_region
        parts = [images] if whole else torch.split(images, self.chunk_size(images))
        looks = [self._look_at_part(part, scale, with_region) for part in parts]
        class_token = torch.cat([token for token, _ in looks])
        logits = self.head(class_token)
        if not with_region:
            return ScaleOutput(logits, None, None, None), class_token
        saliency = torch.cat([saliency for _, saliency in looks if saliency is not None])
        return ScaleOutput(logits, saliency, *self.region(saliency, scale, crop_box)), class_token

    def _look_at_part(self, images: Tensor, scale: int, with_region: bool) -> tuple[Tensor, Tensor | None]:
        features = self.backbone(images, scale, with_attention=with_region)
        token = features.class_token.clone()  # a view would keep all tokens of the part
        return token, self.saliency(features) if with_region else None

    def chunk_size(self, images: Tensor) -> int:
        """How many of a batch of images have their queries and keys held at a time without gradients.

        As many as need about the memory of a plain pass of the whole batch, but `LEAST_TOKENS` at least.
        With D numbers a token, a plain pass peaks in an MLP: input, normalised input, and the hidden
        layer before and after its activation, 10 D; queries and keys of L layers are 2 L D.
        """
        batch, _, height, width = images.shape
        share = 10 / (10 + 2 * self.backbone.num_layers)
        return max(
            int(batch * share),
            math.ceil(MIN_CHUNK_TOKENS / math.prod(self.backbone.grid_of((height, width)))),
        )

    def crop_regions(self, high_res: Tensor, boxes: Tensor, scale: int) -> Tensor:
        """(B, 3, h, w) what a scale sees: regions, in pixels of the original input, cut from its source."""
        height, width = self.image_size
        boxes = scaled(boxes, high_res.shape[3] / width, high_res.shape[2] / height)
        return zoom(high_res, boxes, self.scale_sizes[scale])

    def head(self, class_token: Tensor) -> Tensor:
        """(B, num_classes) logits of a look's class token (B, D)."""
        vit = self.backbone.vit
        logits: Tensor = vit.head(vit.head_drop(vit.fc_norm(class_token)))
        return logits

    def saliency(self, features: Features) -> Tensor:
        """(B, h, w) saliency of one look's patches."""
        return rollout(
            features.queries,
            features.keys,
            scale=self.backbone.scale,
            num_prefix=features.num_prefix,
            grid=features.grid,
            rows=self.saliency_rows,
            class_index=features.class_index,
        )

    def region(self, saliency: Tensor, scale: int, crop_box: Tensor) -> Regions:
        """The region of a look at `frame` (B, 4), margin included; both in pixels of the original input."""
        height, width = size = self.scale_sizes[scale]
        boxes, has_region = propose_regions(
            saliency,
            size,
            self.thresholds[scale],
            patch_size=self.backbone.patch_size,
            patch_stride=self.backbone.patch_stride,
        )
        boxes = scaled(boxes, 1 / width, 1 / height)
        margin = self.zoom_margin * (boxes[:, 2:] - boxes[:, :2]) / 2
        low, high = (boxes[:, :2] - margin).clamp(min=0), (boxes[:, 2:] + margin).clamp(max=1)
        corner, sides = crop_box[:, :2], crop_box[:, 2:] - crop_box[:, :2]
        return Regions(torch.cat([corner + low * sides, corner + high * sides], dim=1), has_region)


def whole_image(images: Tensor) -> Tensor:
    """(B, 4) float32 boxes that cover images (B, C, H, W).

    >>> whole_image(torch.zeros(1, 3, 5, 7))
    tensor([[0., 0., 7., 5.]])
    """
    boxes = images.new_zeros((images.shape[0], 4), dtype=torch.float32)  # len() would fix an exported batch
    boxes[:, 2], boxes[:, 3] = images.shape[3], images.shape[2]
    return boxes


def scaled(boxes: Tensor, x: float, y: float) -> Tensor:
    """Boxes (B, 4) with both x coordinates times `x` and both y coordinates times `y`.

    >>> scaled(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 10, 100)
    tensor([[ 10., 200.,  30., 400.]])
    """
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    return torch.stack([x0 * x, y0 * y, x1 * x, y1 * y], dim=1)


def build_model(config: ModelConfig, say: Callable[[str], None] = lambda _: None) -> RamsTrans:
    """Build the model that a config describes, with pretrained weights where it names some.

    Args:
        config: Of the model.
        say: Told which weights were loaded, resized and left out.

    Raises:
        ConfigError: The backbone, image size or number of classes cannot work.
        WeightsError: The weights are missing or do not fit.
    """
    if config.num_classes is None:
        raise ConfigError("model.num_classes is not set; give the number of classes, at least 2")
    vit = build_vit(config)
    if config.weights is not None:
        say(load_pretrained(vit, config.backbone, config.weights).summary())
    return RamsTrans(
        Backbone(vit, config.num_scales, config.class_tokens),
        config.region_thresholds,
        config.scale_sizes,
        saliency_rows=config.saliency_rows,
        zoom_source=config.zoom_source,
        zoom_margin=config.zoom_margin,
    )
