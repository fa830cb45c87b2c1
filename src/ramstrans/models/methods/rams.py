"""RAMS-Trans: the recurrent loop over scales (https://arxiv.org/abs/2107.08192).

The whole method:

    for scale in range(num_scales):
        features = encoder(images, scale)               # pooled vector, feature map, queries and keys
        saliency = SALIENCIES[name](features)           # (B, h, w), e.g. the rollout of attention
        boxes = propose_regions(saliency, image_size)   # (B, 4)
        yield Stage(head(features), saliency, boxes)    # train on it, stop early or go on
        images = zoom(high_res, boxes, image_size)      # or another region_size
"""

import logging
import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from ramstrans.errors import ConfigError, UsageError
from ramstrans.models.backbones import build_backbone, current_name
from ramstrans.models.config import Component, ModelConfig, Placement, ZoomSource
from ramstrans.models.encoder import Encoder, Features
from ramstrans.models.methods.base import ForwardScale, HighRes, Output, Stage, Stages
from ramstrans.models.pretrained import load_pretrained
from ramstrans.models.regions import Regions, grow_boxes, place_boxes, propose_regions
from ramstrans.models.saliency import SALIENCIES, Rows, choose_saliency
from ramstrans.models.zoom import zoom, zoom_each

MIN_CHUNK_TOKENS = 512
"""Minimum tokens per chunk of a pass without gradients; smaller chunks make matrix products slow."""

logger = logging.getLogger(__name__)


class RamsTrans(nn.Module):
    """An image classifier that looks, zooms into what caught its attention, and looks again.

    All weights are shared between scales but the class tokens, where there are some. No gradient flows
    through the choice of the region or the crop.

    Args:
        encoder: The backbone, with its own head.
        thresholds: eta of each scale's region.
        scale_sizes: `(height, width)` in pixels of each scale's input: the image, then enlarged regions.
        saliency: What regions are proposed from: a name in `SALIENCIES`, or `auto`.
        saliency_layers: Of how many of the last layers attention is rolled out; None: of all.
        saliency_rows: `all` or `class`, see `rollout`.
        component: `count` or `saliency`, see `propose_regions`.
        min_region: Least side of a region as a share of what its scale saw, see `grow_boxes`.
        max_aspect: Largest aspect ratio of a region, see `grow_boxes`.
        region_placement: `found`, `centre` or `whole`, see `place_boxes`.
        zoom_source: `input`: regions are cut from the input; `full`, `native`: from `high_res`, given to
            `forward`.
        zoom_margin: Share of a box's sides added around it before it grows and is cut out.
    """

    def __init__(
        self,
        encoder: Encoder,
        thresholds: tuple[float, ...],
        scale_sizes: tuple[tuple[int, int], ...],
        *,
        saliency: str = "auto",
        saliency_layers: int | None = None,
        saliency_rows: Rows = "all",
        component: Component = "count",
        min_region: float = 0.0,
        max_aspect: float | None = None,
        region_placement: Placement = "found",
        zoom_source: ZoomSource = "input",
        zoom_margin: float = 0.0,
    ) -> None:
        super().__init__()
        assert len(thresholds) == len(scale_sizes) == encoder.num_scales, "one threshold and size per scale"
        self.encoder = encoder
        self.thresholds = thresholds
        self.scale_sizes = scale_sizes
        self.saliency_layers = saliency_layers
        self.saliency_rows: Rows = saliency_rows
        self.set_saliency(saliency)
        self.component: Component = component
        self.min_region = min_region
        self.max_aspect = max_aspect
        self.region_placement: Placement = region_placement
        self.zoom_source = zoom_source
        self.zoom_margin = zoom_margin

    def set_saliency(self, name: str) -> None:
        """Propose regions from another saliency.

        Raises:
            ConfigError: The name is unknown, or the backbone cannot have it.
        """
        self.saliency_name, self.saliency_reason = choose_saliency(self.encoder, name, self.saliency_rows)

    def describe(self) -> list[str]:
        """What the backbone decided, and why, in a line each: what is pooled, and what regions come from."""
        encoder = self.encoder
        tokens = {
            "joint": f"{self.num_scales} class tokens, all in every pass",
            "separate": f"{self.num_scales} class tokens, one per pass",
            "shared": "the same for all scales",
        }
        lines = [f"the head reads {encoder.pooling}; {tokens[encoder.class_tokens]}"]
        if self.num_scales > 1:
            rows, columns = encoder.anatomy.grid
            lines.append(
                f"regions by {self.saliency_name} of {rows}x{columns} locations: {self.saliency_reason}"
            )
        return lines

    @property
    def num_recorded(self) -> int:
        """Layers whose queries and keys a pass that proposes a region has to keep."""
        return SALIENCIES[self.saliency_name].num_layers(self.encoder, self.saliency_layers)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @property
    def num_scales(self) -> int:
        """S, the number of scales."""
        return self.encoder.num_scales

    @property
    def image_size(self) -> tuple[int, int]:
        """`(height, width)` of the input in pixels."""
        return self.scale_sizes[0]

    def forward(self, images: Tensor, high_res: HighRes | None = None, *, last_region: bool = True) -> Output:
        """Compute all scales.

        Args:
            images: (B, 3, H, W), normalised as the encoder expects.
            high_res: The same views at a higher resolution; needed with `zoom_source` "full" and "native"
                only. (B, 3, H', W'), normalised alike; or B tensors (3, H_i, W_i) uint8 of any sizes on the
                CPU, as `native` has them: their regions are resized with antialiasing, one by one, which
                waits for the boxes.
            last_region: Whether the last scale proposes a region too, though no scale follows. In training
                it never does.

        Raises:
            UsageError: `high_res` is missing where it is needed, or given with `zoom_source="input"`.
        """
        return Output(tuple(self.stages(images, high_res, last_region=last_region)))

    def stages(
        self,
        images: Tensor,
        high_res: HighRes | None = None,
        *,
        last_region: bool = True,
        forward_scale: ForwardScale | None = None,
    ) -> Stages:
        """Yield one scale after the other.

        Each waits until it is asked for: training descends a scale's loss first, so that the activations of
        one scale are held at a time; early exit sends the indices of the images that go on.

        Args:
            images: As in `forward`.
            high_res: As in `forward`.
            last_region: As in `forward`.
            forward_scale: A wrapper around the method of that name, e.g. DistributedDataParallel's.
        """
        zoom_image = self.zoom_image(images, high_res)
        if forward_scale is None:
            forward_scale = self.forward_scale
        crop_box = whole_image(images)
        for scale in range(self.num_scales):
            is_last = scale == self.num_scales - 1
            with_region = not is_last or (last_region and not self.training)
            stage = forward_scale(images, scale, crop_box, with_region=with_region)
            kept = yield stage
            if is_last:
                return
            crop_box = cast(Tensor, stage.boxes)
            if kept is not None:
                zoom_image, crop_box = chosen(zoom_image, kept), crop_box[kept]
            images = self.crop_regions(zoom_image, crop_box, scale + 1)

    def normalize(self, images: Tensor, high_res: HighRes | None = None) -> tuple[Tensor, HighRes | None]:
        """Pixels (B, 3, H, W) in 0..255 -> what `forward` takes, float32 on the model's device.

        Images of several sizes are returned as they are: only their regions are normalised, once cut.
        """
        if isinstance(high_res, Tensor):
            high_res = self.encoder.normalize(high_res)
        return self.encoder.normalize(images), high_res

    def zoom_image(self, images: Tensor, high_res: HighRes | None) -> HighRes:
        """Check both, and return the one that regions are cut from, as `zoom_source` says."""
        if tuple(images.shape[2:]) != self.image_size:
            height, width = self.image_size
            raise UsageError(
                f"images are {images.shape[2]}x{images.shape[3]} pixels; this model takes {height}x{width}: "
                "resize them, or build it with another model.image_size"
            )
        if (high_res is not None) != (self.zoom_source != "input") and self.num_scales > 1:
            raise UsageError(
                f"zoom_source is '{self.zoom_source}' and high_res was "
                f"{'not ' if high_res is None else ''}given; "
                "pass higher-resolution images with 'full' or 'native', and only then"
            )
        if torch.compiler.is_compiling() and not isinstance(high_res, Tensor | None):
            raise UsageError(
                "a model cannot be compiled or exported with images of several sizes; "
                "pass high_res as one tensor (B, 3, H, W), as zoom_source 'full' has it"
            )
        return images if high_res is None else high_res

    def forward_scale(
        self,
        images: Tensor,
        scale: int,
        crop_box: Tensor,
        *,
        with_region: bool = True,
        explicit_attention: bool | None = None,
    ) -> Stage:
        """Compute one scale.

        Without gradients a large batch is split into chunks, so that queries and keys of few images are held
        at a time: those of all layers outweigh everything else that a pass keeps.

        Args:
            images: (B, 3, H, W), what this scale sees.
            scale: Index of the scale, from 0.
            crop_box: (B, 4), where `images` lie, in pixels of the input.
            with_region: Whether to propose a region.
            explicit_attention: Whether attention is computed by matrix products; None: where that is faster.
        """
        is_whole = torch.is_grad_enabled() or torch.compiler.is_compiling() or not with_region
        chunks = [images] if is_whole else torch.split(images, self.chunk_size(images))
        encoded = [
            self._encode(chunk, scale, with_region=with_region, explicit_attention=explicit_attention)
            for chunk in chunks
        ]
        feature = torch.cat([feature for feature, _ in encoded])
        logits = self.encoder.forward_head(feature)
        if not with_region:
            return Stage(logits, feature, crop_box, None, None, None)
        saliency = torch.cat([saliency for _, saliency in encoded if saliency is not None])
        return Stage(logits, feature, crop_box, saliency, *self.region(saliency, scale, crop_box))

    def _encode(
        self, images: Tensor, scale: int, *, with_region: bool, explicit_attention: bool | None
    ) -> tuple[Tensor, Tensor | None]:
        num_layers = self.num_recorded if with_region else 0
        if explicit_attention is None:
            explicit_attention = self.encoder.is_explicit(images, num_layers)
        features = self.encoder(images, scale, num_layers=num_layers, explicit_attention=explicit_attention)
        pooled = features.pooled.clone()  # a view would keep all tokens of the chunk
        return pooled, self.saliency(features) if with_region else None

    def chunk_size(self, images: Tensor) -> int:
        """Images per chunk of a pass without gradients.

        As many as need about the memory of a plain pass of the whole batch, but at least `MIN_CHUNK_TOKENS`.
        With D numbers per token, a plain pass peaks in an MLP: input, normalised input, and the hidden
        layer before and after its activation, 10 D; queries and keys of L layers are 2 L D, or their weights
        over N tokens L N.
        """
        batch, kept = len(images), self.encoder.numbers_kept(images, self.num_recorded)
        if kept <= 2:
            return max(batch, 1)
        return max(
            int(batch * 10 / (10 + kept)), math.ceil(MIN_CHUNK_TOKENS / self.encoder.num_tokens(images))
        )

    def saliency(self, features: Features) -> Tensor:
        """(B, h, w) saliency of one scale's locations."""
        return SALIENCIES[self.saliency_name].compute(features, self.encoder, self.saliency_rows)

    def region(self, saliency: Tensor, scale: int, crop_box: Tensor) -> Regions:
        """The region of one scale, margin included, in pixels of the input, as is `crop_box` (B, 4)."""
        height, width = size = self.scale_sizes[scale]
        boxes, has_region = propose_regions(
            saliency,
            size,
            self.thresholds[scale],
            patch_size=self.encoder.patch_size,
            patch_stride=self.encoder.patch_stride,
            component=self.component,
        )
        boxes = scaled(boxes, 1 / width, 1 / height)
        margin = self.zoom_margin * (boxes[:, 2:] - boxes[:, :2]) / 2
        low, high = (boxes[:, :2] - margin).clamp(min=0), (boxes[:, 2:] + margin).clamp(max=1)
        boxes = torch.cat([low, high], dim=1)
        if self.min_region or self.max_aspect is not None:
            boxes = grow_boxes(
                boxes,
                min_side=self.min_region,
                max_aspect=self.max_aspect,
                width_by_height=width / height,
            )
        boxes = place_boxes(boxes, self.region_placement)
        low, high = boxes[:, :2], boxes[:, 2:]
        corner, sides = crop_box[:, :2], crop_box[:, 2:] - crop_box[:, :2]
        return Regions(torch.cat([corner + low * sides, corner + high * sides], dim=1), has_region)

    def crop_regions(self, zoom_image: HighRes, boxes: Tensor, scale: int) -> Tensor:
        """(B, 3, h, w) input of a scale: regions, in pixels of the input, cut from `zoom_image`."""
        height, width = self.image_size
        if not isinstance(zoom_image, Tensor):
            shares = scaled(boxes, 1 / width, 1 / height)
            return self.encoder.normalize(zoom_each(zoom_image, shares, self.scale_sizes[scale]))
        boxes = scaled(boxes, zoom_image.shape[3] / width, zoom_image.shape[2] / height)
        return zoom(zoom_image, boxes, self.scale_sizes[scale])

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are not decayed, as timm's optimisers ask for them."""
        names: set[str] = getattr(self.encoder.model, "no_weight_decay", set)()
        return {f"encoder.model.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> Any:  # noqa: ANN401
        """Patterns of parameter names by layer, or a function of them, as timm's layer-wise rates ask for.

        Raises:
            ConfigError: timm does not know the layers of this model.
        """
        if not hasattr(self.encoder.model, "group_matcher"):
            name = type(self.encoder.model).__name__
            raise ConfigError(f"training.layer_decay: timm does not know the layers of a {name}; set it to 1")
        matcher = self.encoder.model.group_matcher(coarse)
        if callable(matcher):
            return lambda name: matcher(name.removeprefix("encoder.model."))
        return {name: _in_encoder(group) for name, group in matcher.items()}


def _in_encoder(group: Any) -> Any:  # noqa: ANN401
    """Patterns for names below `encoder.model`: of one pattern, or of pairs of a pattern and an order.

    >>> _in_encoder("^cls_token|pos_embed"), _in_encoder([(r"^blocks.([0-9]+)", None)])
    ('^encoder.model.(?:cls_token|pos_embed)', [('^encoder.model.(?:blocks.([0-9]+))', None)])
    """
    if isinstance(group, str):
        return f"^encoder.model.(?:{group.replace('^', '')})"
    return [(_in_encoder(pattern), order) for pattern, order in group]


def whole_image(images: Tensor) -> Tensor:
    """(B, 4) float32 boxes that cover images (B, C, H, W).

    >>> whole_image(torch.zeros(1, 3, 5, 7))
    tensor([[0., 0., 7., 5.]])
    """
    boxes = images.new_zeros((images.shape[0], 4), dtype=torch.float32)  # len() would fix an exported batch
    boxes[:, 2], boxes[:, 3] = images.shape[3], images.shape[2]
    return boxes


def chosen(images: HighRes, indices: Tensor) -> HighRes:
    """The images at some indices (K,), in a tensor or one by one.

    >>> chosen((torch.zeros(3, 5, 7), torch.zeros(3, 2, 2)), torch.tensor([1]))[0].shape
    torch.Size([3, 2, 2])
    """
    if isinstance(images, Tensor):
        return images[indices]
    return tuple(images[index] for index in indices.tolist())


def scaled(boxes: Tensor, x: float, y: float) -> Tensor:
    """Boxes (B, 4) with both x coordinates times `x` and both y coordinates times `y`.

    >>> scaled(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 10, 100)
    tensor([[ 10., 200.,  30., 400.]])
    """
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    return torch.stack([x0 * x, y0 * y, x1 * x, y1 * y], dim=1)


def build_model(config: ModelConfig) -> RamsTrans:
    """Build the model that a config describes, with pretrained weights if it names some.

    Raises:
        ConfigError: The backbone, image size or number of classes cannot work.
        WeightsError: The weights are missing or do not fit.
    """
    if config.num_classes is None:
        raise ConfigError("model.num_classes is not set; give the number of classes, at least 2")
    backbone, name = build_backbone(config), current_name(config.backbone)
    if name != config.backbone:
        logger.info("model.backbone: %s is %s now", config.backbone, name)
    if config.weights is not None:
        logger.info(load_pretrained(backbone, name, config.weights).summary())
    return RamsTrans(
        Encoder(
            backbone,
            config.num_scales,
            config.class_tokens,
            config.mean,
            config.std,
            size=config.input_size,
        ),
        config.region_thresholds,
        config.scale_sizes,
        saliency=config.saliency,
        saliency_layers=config.saliency_layers,
        saliency_rows=config.saliency_rows,
        component=config.component,
        min_region=config.min_region,
        max_aspect=config.max_aspect,
        region_placement=config.region_placement,
        zoom_source=config.zoom_source,
        zoom_margin=config.zoom_margin,
    )
