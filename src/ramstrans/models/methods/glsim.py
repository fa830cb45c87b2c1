"""GLSim, global-local similarity (https://arxiv.org/abs/2407.12891), after its paper's description.

    s_i = cos(z^class, z^i)                     of the encoder's output, for each patch i
    crop: the box around the O patches with the largest s, enlarged to the size of the image
    r = aggregator([z^class of the image; z^class of the crop])         one transformer layer
    logits = head(r), loss = cross-entropy

The image and the crop pass through the same encoder, and the loss reaches both passes; none flows through
the crop. Not checked against the paper's text: that O is 8, that the head reads the image's token of the
aggregator (after a LayerNorm), and that no further loss is on the class tokens themselves.
"""

from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ramstrans.errors import ConfigError
from ramstrans.models.config import ModelConfig
from ramstrans.models.encoder import Encoder
from ramstrans.models.methods.base import ForwardScale, HighRes, Stage, Stages
from ramstrans.models.methods.boxes import whole_image
from ramstrans.models.methods.method import Method
from ramstrans.models.methods.tokens import largest
from ramstrans.models.regions import Regions, bounding_boxes
from ramstrans.models.saliency import SALIENCIES

NUM_TOKENS = 8
"""O of the paper: patches that the crop is drawn around."""

HEAD_WIDTH = 64
"""Numbers per head of the aggregator, as in ViTs."""


class GlobalLocalSimilarity(Method):
    """Two looks and one answer: the image, and the box around the patches that are most like the whole.

    Any backbone can have it: where the pooled vector and the locations differ in width, the mean location
    takes the place of the class token, see `cosine_map`. The aggregator begins with random weights.
    """

    own_saliency = "cosine"

    @classmethod
    def of(cls, encoder: Encoder, config: ModelConfig) -> "GlobalLocalSimilarity":
        """See `Method.of`."""
        if encoder.anatomy.grid == (1, 1):
            raise ConfigError(
                f"the features of {config.backbone} have one location, which tells no region; give a larger "
                "model.image_size, or another model.backbone"
            )
        return super().of(encoder, config)

    def __init__(self, encoder: Encoder, *args: Any, **options: Any) -> None:  # noqa: ANN401 - of Method
        super().__init__(encoder, *args, **options)
        width = encoder.num_features
        heads = next(count for count in range(max(width // HEAD_WIDTH, 1), 0, -1) if width % count == 0)
        self.aggregator = nn.Sequential(Block(width, heads, qkv_bias=True), nn.LayerNorm(width, eps=1e-6))
        for module in self.aggregator.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @property
    def num_looks(self) -> int:
        """See `Method.num_looks`."""
        return 2

    @property
    def num_recorded(self) -> int:
        """See `Method.num_recorded`: cosines need no attention."""
        return 0

    @property
    def num_selected(self) -> int:
        """O, the number of patches that the crop is drawn around, if there are as many."""
        return self.num_tokens or NUM_TOKENS

    def describe(self) -> list[str]:
        """See `Method.describe`."""
        rows, columns = self.encoder.anatomy.grid
        return [
            *super().describe(),
            f"a crop around {self.num_selected} of {rows}x{columns} locations by cosine; an aggregator of "
            "one layer joins both looks",
        ]

    def stages(
        self,
        images: Tensor,
        high_res: HighRes | None = None,
        *,
        last_region: bool = True,
        boxes: Tensor | None = None,  # noqa: ARG002 - none are looked at
        forward_scale: ForwardScale | None = None,
    ) -> Stages:
        """See `Method.stages`: one stage, of both looks."""
        zoom_image = self.zoom_image(images, high_res)
        more: dict[str, Any] = {} if high_res is None else {"high_res": zoom_image}
        with_region = last_region and not self.training
        compute: Any = self.forward_scale if forward_scale is None else forward_scale
        yield compute(images, 0, whole_image(images), with_region=with_region, **more)

    def forward_scale(
        self,
        images: Tensor,
        scale: int,
        crop_box: Tensor,
        *,
        with_region: bool = True,
        explicit_attention: bool | None = None,
        high_res: HighRes | None = None,
    ) -> Stage:
        """See `Method.forward_scale`: both looks, and their one answer.

        Args:
            images: (B, 3, H, W).
            scale: 0.
            crop_box: (B, 4), all of the input.
            with_region: Whether the stage has what was looked at.
            explicit_attention: Whether attention is computed by matrix products.
            high_res: What the crop is cut from; None: from `images`.
        """
        how: dict[str, Any] = {"num_layers": 0, "explicit_attention": bool(explicit_attention)}
        features = self.encoder(images, scale, **how)
        saliency = SALIENCIES["cosine"].compute(features, self.encoder, self.saliency_rows)
        boxes, has_region = self.region(saliency, scale, crop_box)
        crops = self.crop_regions(images if high_res is None else high_res, boxes, scale)
        local = self.encoder(crops, scale, **how)
        refined = self.aggregator(torch.stack([features.pooled, local.pooled], dim=1))[:, 0]
        logits = self.encoder.forward_head(refined)
        if not with_region:
            return Stage(logits, refined, crop_box, None, None, None)
        return Stage(logits, refined, crop_box, saliency, boxes, has_region)

    @torch.no_grad()
    def propose(self, saliency: Tensor, scale: int) -> Regions:
        """See `Method.propose`: the box around the locations that are most like the whole."""
        flat = saliency.flatten(1)
        is_finite = flat.isfinite().all(dim=1, keepdim=True)
        mask = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, largest(flat, self.num_selected), True)
        return bounding_boxes(
            (mask & is_finite).view_as(saliency),
            self.trained_sizes[scale],
            patch_size=self.encoder.patch_size,
            patch_stride=self.encoder.patch_stride,
        )
