"""The conventional implementation of the same two scales: every attention matrix is kept and multiplied."""

import torch
from torch import Tensor, nn

from ramstrans.models.encoder import Features
from ramstrans.models.methods.base import Output, Stage
from ramstrans.models.methods.boxes import whole_image
from ramstrans.models.methods.rams import RamsTrans


class ReferenceModel(nn.Module):
    """The same function as a `RamsTrans` in training, from attention matrices instead of queries and keys.

    Attention is not fused; the weights of all layers (B, H, N, N) are kept until the scale is done, and the
    rollout multiplies N x N matrices (Eq. 7-9 of https://arxiv.org/abs/2107.08192).

    Args:
        model: Becomes part of this module, and its attention loses its fused kernel.
    """

    def __init__(self, model: RamsTrans) -> None:
        super().__init__()
        self.model = model
        self._kept: list[Tensor] = []
        for block in model.encoder.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _args: tuple[Tensor, ...], weights: Tensor) -> None:
        self._kept.append(weights)

    def forward(self, images: Tensor) -> Output:
        """All scales of images (B, 3, H, W); the last one proposes no region."""
        model, crop_box, high_res = self.model, whole_image(images), images
        scales: list[Stage] = []
        for scale in range(model.num_scales):
            self._kept = []
            features = model.encoder(images, scale, num_layers=0)
            token = features.pooled
            logits = model.encoder.forward_head(token)
            if scale == model.num_scales - 1:
                scales.append(Stage(logits, token, crop_box, None, None, None))
                break
            saliency = self.saliency(features)
            boxes, has_region = model.region(saliency, scale, crop_box)
            scales.append(Stage(logits, token, crop_box, saliency, boxes, has_region))
            crop_box = boxes
            images = model.crop_regions(high_res, crop_box, scale + 1)
        self._kept = []
        return Output(tuple(scales))

    @torch.no_grad()
    def saliency(self, features: Features) -> Tensor:
        """(B, h, w) saliency of the scale that was just computed."""
        num_tokens = self._kept[0].shape[-1]
        identity = torch.eye(num_tokens, device=self._kept[0].device)
        product = identity
        for weights in self._kept:
            product = (weights.mean(dim=1) + identity) / 2 @ product
        all_rows = self.model.saliency_rows == "all"
        relevance = product.mean(dim=1) if all_rows else product[:, features.class_index]
        return relevance[:, features.num_prefix :].float().reshape(-1, *features.grid)
