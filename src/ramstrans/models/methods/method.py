"""What all methods share: a classifier that looks at an image, and perhaps at regions of it again.

The whole loop:

    for scale in range(num_stages):
        pooled, saliency = encode(images, scale)        # by the method: the pooled vector, and (B, h, w)
        boxes = region(saliency, scale, crop_box)       # (B, 4)
        yield Stage(head(pooled), saliency, boxes)      # train on it, stop early or go on
        images = crop_regions(high_res, boxes)          # what the next scale sees
"""

import math
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from ramstrans.errors import ConfigError, UsageError
from ramstrans.models.config import Component, ModelConfig, Placement, ZoomSource
from ramstrans.models.encoder import Encoder
from ramstrans.models.methods.base import ForwardScale, HighRes, Output, Stage, Stages
from ramstrans.models.methods.boxes import chosen, whole_image
from ramstrans.models.methods.look import Look
from ramstrans.models.saliency import Rows

MIN_CHUNK_TOKENS = 512
"""Minimum tokens per chunk of a pass without gradients; smaller chunks make matrix products slow."""


class Method(Look):
    """An image classifier that looks at an image, and perhaps at regions of it again.

    The base of all methods. One that differs in what a pass computes has its own `encode`, one that differs
    in what it proposes its own `propose`, and one that joins several passes its own `forward_scale`. All
    weights are shared between scales but the class tokens, where there are some. No gradient flows through
    the choice of the region or the crop.

    Args:
        encoder: The backbone, with its own head.
        thresholds: eta of each scale's region.
        scale_sizes: `(height, width)` in pixels of each scale's input: the image, then enlarged regions.
        saliency: What regions are proposed from: a name in `SALIENCIES`, or `auto`.
        saliency_layers: Of how many of the last layers attention is rolled out; None: of all.
        saliency_rows: `all` or `class`, see `rollout`.
        saliency_mirrored: Whether saliency is the mean with that of the mirror image.
        saliency_blur: Standard deviation of a Gaussian on saliency, see `smoothed`.
        component: `count`, `saliency` or `soft`, see `propose_regions`.
        min_region: Least side of a region as a share of what its scale saw, see `grow_boxes`.
        max_aspect: Largest aspect ratio of a region, see `grow_boxes`.
        region_placement: Where regions lie, see `placed` and `place_boxes`.
        zoom_source: `input`: regions are cut from the input; `full`, `native`: from `high_res`, given to
            `forward`.
        zoom_margin: Share of a box's sides added around it before it grows and is cut out.
        num_tokens: How many tokens are selected, by a method that selects some; None: as in its paper.
        multi_label: Whether an image may have several classes, or none.

    Attributes:
        num_trained: Number of scales in training.
        num_scales: S, number of scales in evaluation: as many, or fewer.
        saliency_name: What regions come from.
    """

    saliency_name: str
    own_saliency: ClassVar[str | None] = None
    """What regions come from, in a method that leaves no choice."""
    contrastive: ClassVar[float] = 0.0
    """Weight of the contrastive loss that belongs to the method, see `training.contrastive`."""

    def __init__(
        self,
        encoder: Encoder,
        thresholds: tuple[float, ...],
        scale_sizes: tuple[tuple[int, int], ...],
        *,
        saliency: str = "auto",
        saliency_layers: int | None = None,
        saliency_rows: Rows = "all",
        saliency_mirrored: bool = False,
        saliency_blur: float = 0.0,
        component: Component = "count",
        min_region: float = 0.0,
        max_aspect: float | None = None,
        region_placement: Placement = "found",
        zoom_source: ZoomSource = "input",
        zoom_margin: float = 0.0,
        num_tokens: int | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        assert len(thresholds) == len(scale_sizes) == encoder.num_scales, "one threshold and size per scale"
        self.encoder = encoder
        self.thresholds = thresholds
        self.trained_sizes = scale_sizes
        self.num_trained = self.num_scales = len(scale_sizes)
        self.saliency_layers = saliency_layers
        self.saliency_rows: Rows = saliency_rows
        self.saliency_mirrored = saliency_mirrored
        self.saliency_blur = saliency_blur
        self.component: Component = component
        self.min_region = min_region
        self.max_aspect = max_aspect
        self.region_placement: Placement = region_placement
        self.zoom_source = zoom_source
        self.zoom_margin = zoom_margin
        self.num_tokens = num_tokens
        self.multi_label = multi_label
        self.set_saliency(saliency)

    @classmethod
    def of(cls, encoder: Encoder, config: ModelConfig) -> Self:
        """Build the method of a config over its encoder.

        Raises:
            ConfigError: This backbone cannot have the method, or the saliency.
        """
        same = (
            *("saliency", "saliency_layers", "saliency_rows", "saliency_mirrored", "saliency_blur"),
            *("component", "min_region", "max_aspect", "multi_label"),
            *("region_placement", "zoom_source", "zoom_margin", "num_tokens"),
        )
        options = {name: getattr(config, name) for name in same}
        if cls.own_saliency is not None:
            options["saliency"] = "auto"
        return cls(encoder, config.region_thresholds, config.scale_sizes, **options)

    def set_saliency(self, name: str) -> None:
        """Propose regions from another saliency.

        Raises:
            ConfigError: The name is unknown, or the backbone or the method cannot have it.
        """
        assert self.own_saliency is not None, "or the method chooses"
        if name not in ("auto", self.own_saliency):
            raise ConfigError(
                f"saliency is {name}; this method has one of its own, {self.own_saliency}: leave it out"
            )
        self.saliency_name = self.own_saliency

    def encode(
        self, images: Tensor, scale: int, *, with_region: bool, explicit_attention: bool | None
    ) -> tuple[Tensor, Tensor | None]:
        """The pooled vectors (B, D) of a pass and, if a region is wanted, saliency (B, h, w)."""
        raise NotImplementedError

    @property
    def num_recorded(self) -> int:
        """Layers whose queries and keys a pass that proposes a region has to keep."""
        raise NotImplementedError

    def describe(self) -> list[str]:
        """What the backbone decided, and why, in a line each: what is pooled, and what regions come from."""
        encoder = self.encoder
        if self.num_trained == 1:
            return [f"the head reads {encoder.pooling}"]
        tokens = {
            "joint": f"{self.num_trained} class tokens, all in every pass",
            "separate": f"{self.num_trained} class tokens, one per pass",
            "shared": "the same for all scales",
        }
        return [f"the head reads {encoder.pooling}; {tokens[encoder.class_tokens]}"]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @property
    def num_stages(self) -> int:
        """Number of scales in the present mode, training or evaluation."""
        return self.num_trained if self.training else self.num_scales

    def limit_scales(self, num_scales: int) -> None:
        """Let evaluation stop after the first scales; they compute what they did, to the last bit.

        Raises:
            UsageError: Not as many were trained.
        """
        if not 1 <= num_scales <= self.num_trained:
            has = "1 scale" if self.num_trained == 1 else f"{self.num_trained} scales"
            allowed = "leave it out" if self.num_trained == 1 else f"give 1 to {self.num_trained}"
            raise UsageError(f"num_scales is {num_scales}; this model has {has}: {allowed}")
        self.num_scales = num_scales

    @property
    def scale_sizes(self) -> tuple[tuple[int, int], ...]:
        """`(height, width)` in pixels of the input of each scale of an evaluation."""
        return self.trained_sizes[: self.num_scales]

    @property
    def num_looks(self) -> int:
        """How often the present mode looks: at the image, and at a region of it."""
        return self.num_stages

    @property
    def needs_high_res(self) -> bool:
        """Whether the present mode cuts regions from another image than the input."""
        return self.zoom_source != "input" and self.num_looks > 1

    @property
    def needs_boxes(self) -> bool:
        """Whether the present mode looks at the true boxes, which it must be given."""
        return self.region_placement == "given" and self.num_looks > 1

    def forward(
        self,
        images: Tensor,
        high_res: HighRes | None = None,
        *,
        last_region: bool = True,
        boxes: Tensor | None = None,
    ) -> Output:
        """Compute all scales.

        Args:
            images: (B, 3, H, W), normalised as the encoder expects.
            high_res: The same views at a higher resolution; needed with `zoom_source` "full" and "native"
                only. (B, 3, H', W'), normalised alike; or B tensors (3, H_i, W_i) uint8 of any sizes on the
                CPU, as `native` has them: their regions are resized with antialiasing, one by one, which
                waits for the boxes.
            last_region: Whether the last scale proposes a region too, though no scale follows. In training
                it never does.
            boxes: (B, 4), the true boxes, half-open `(x0, y0, x1, y1)` in pixels of `images`; read with
                `region_placement` "given" only. Where one is NaN, or outside, all is looked at again.

        Raises:
            UsageError: `high_res` or `boxes` is missing where it is needed, or `high_res` is given with
                `zoom_source="input"`.
        """
        stages = self.stages(images, high_res, last_region=last_region, boxes=boxes)
        return Output(tuple(stages), self.multi_label)

    def stages(
        self,
        images: Tensor,
        high_res: HighRes | None = None,
        *,
        last_region: bool = True,
        boxes: Tensor | None = None,
        forward_scale: ForwardScale | None = None,
    ) -> Stages:
        """Yield one scale after the other.

        Each waits until it is asked for: training descends a scale's loss first, so that the activations of
        one scale are held at a time; early exit sends the indices of the images that go on.

        Args:
            images: As in `forward`.
            high_res: As in `forward`.
            last_region: As in `forward`.
            boxes: As in `forward`.
            forward_scale: A wrapper around the method of that name, e.g. DistributedDataParallel's.
        """
        zoom_image = self.zoom_image(images, high_res)
        given = self.given_boxes(images, boxes)
        compute: Any = self.forward_scale if forward_scale is None else forward_scale
        crop_box = whole_image(images)
        for scale in range(self.num_stages):
            is_last = scale == self.num_stages - 1
            with_region = not is_last or (last_region and not self.training)
            stage = self.placed(
                compute(images, scale, crop_box, with_region=with_region), images, scale, given
            )
            kept = yield stage
            if is_last:
                return
            crop_box = cast(Tensor, stage.boxes)
            if kept is not None:
                zoom_image, crop_box = chosen(zoom_image, kept), crop_box[kept]
                given = None if given is None else given[kept]
            images = self.crop_regions(zoom_image, crop_box, scale + 1)

    def given_boxes(self, images: Tensor, boxes: Tensor | None) -> Tensor | None:
        """The true boxes on the device of the images; None where none are looked at."""
        if not self.needs_boxes:
            return None
        if boxes is None:
            raise UsageError(
                "model.region_placement is given: this model looks at the true boxes, and there are none; "
                "use a data set that has them"
            )
        return boxes.to(images.device, torch.float32)

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
        if (high_res is not None) != (self.zoom_source != "input") and self.num_looks > 1:
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
            self.encode(chunk, scale, with_region=with_region, explicit_attention=explicit_attention)
            for chunk in chunks
        ]
        feature = torch.cat([feature for feature, _ in encoded])
        logits = self.encoder.forward_head(feature)
        if not with_region:
            return Stage(logits, feature, crop_box, None, None, None)
        saliency = torch.cat([saliency for _, saliency in encoded if saliency is not None])
        return Stage(logits, feature, crop_box, saliency, *self.region(saliency, scale, crop_box))

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
