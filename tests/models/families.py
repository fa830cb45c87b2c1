"""Transformers whose layers attend to all tokens: a tiny model of each kind, and timm's own attention."""

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from timm.layers import Attention

from ramstrans.models.backbones import build_backbone
from ramstrans.models.encoder import Encoder
from tests.models.builders import noise, randomise, tiny_config

GRID = (3, 5)


class GatedAttention(Attention):
    """timm's, with the gate that none of its named models has."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options, gated=True)


class Family(NamedTuple):
    """One kind of transformer.

    Attributes:
        backbone: Of timm.
        options: Further ones than those of a tiny model.
        global_pool: If not timm's.
        num_heads: Of each layer; of parallel layers together.
    """

    backbone: str
    options: Mapping[str, Any] = MappingProxyType({})
    global_pool: str | None = None
    num_heads: int = 2

    @property
    def patch(self) -> int:
        return 14 if "patch14" in self.backbone else 16

    @property
    def size(self) -> tuple[int, int]:
        return GRID[0] * self.patch, GRID[1] * self.patch

    def images(self, batch=2):
        return noise(batch, 3, *self.size)

    def build(self):
        options = {"embed_dim": 16} | dict(self.options)  # heads of 8: rotary embeddings need a multiple of 4
        config = tiny_config(
            backbone=self.backbone,
            image_size=self.size,
            global_pool=self.global_pool,
            backbone_options=options,
        )
        return randomise(build_backbone(config))


FAMILIES = {
    "ViT": Family("vit_tiny_patch16_224"),
    "ViT, average pooling": Family("vit_tiny_patch16_224", global_pool="avg"),
    "ViT without class token": Family("vit_base_patch16_siglip_gap_224"),
    "DeiT III": Family("deit3_small_patch16_224"),
    "CLIP": Family("vit_base_patch16_clip_224"),
    "DINOv2 with registers": Family("vit_small_patch14_reg4_dinov2"),
    "SigLIP 2": Family("vit_base_patch16_siglip_224"),
    "gated attention": Family("vit_tiny_patch16_224", {"attn_layer": GatedAttention}),
    "attention and MLP in parallel": Family("vit_base_patch16_xp_224"),
    "two attentions in parallel": Family("vit_base_patch16_18x2_224", num_heads=4),
    "DINOv3, average pooling": Family("vit_small_patch16_dinov3"),
    "DINOv3, class token": Family("vit_small_patch16_dinov3", global_pool="token"),
    "DINOv3, bias": Family("vit_small_patch16_dinov3_qkvb", global_pool="token"),
    "EVA-02": Family("eva02_tiny_patch14_224"),
    "EVA-02, class token": Family("eva02_tiny_patch14_224", global_pool="token"),
    "EVA-02-CLIP": Family("eva02_base_patch16_clip_224"),
    "PE core": Family("vit_pe_core_tiny_patch16_384"),
    "PE spatial": Family("vit_pe_spatial_tiny_patch16_512"),
    "RoPE-ViT, axial": Family("vit_small_patch16_rope_224"),
    "RoPE-ViT, axial, absolute positions": Family("vit_small_patch16_rope_ape_224"),
    "RoPE-ViT, mixed": Family("vit_small_patch16_rope_mixed_224"),
    "RoPE-ViT, mixed, absolute positions": Family("vit_small_patch16_rope_mixed_ape_224"),
    "Sapiens 2, grouped queries": Family(
        "vit_base_patch16_sapiens2", {"num_heads": 4, "num_kv_heads": 2, "embed_dim": 32}, "token", 4
    ),
    "BEiT": Family("beit_base_patch16_224"),
    "BEiTv2, class token": Family("beitv2_base_patch16_224", global_pool="token"),
    "relative positions by MLP": Family("vit_relpos_small_patch16_224"),
    "relative positions by table": Family("vit_relpos_base_patch32_plus_rpn_256", {"patch_size": 16}),
    "NaFlex": Family("naflexvit_base_patch16_gap"),
    "NaFlex SigLIP": Family("naflexvit_base_patch16_siglip"),
}


def timm_attention(encoder, images, scale=0):
    """Attention weights (B, H, N, N) of each layer, and the pool's, as timm computes them unfused."""
    twin, weights, pool = copy.deepcopy(encoder), [], []
    for module in twin.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    for name, module in twin.model.named_modules():
        if name.endswith("attn_drop"):
            module.register_forward_hook(lambda _module, args, _output: weights.append(args[0].detach()))
    attn_pool = getattr(twin.model, "attn_pool", None)
    softmax = torch.Tensor.softmax
    if attn_pool is not None:  # its weights pass through no module: its softmax is the last one

        def noted(scores, *args, **kwargs):
            pool.append(softmax(scores, *args, **kwargs).detach())
            return pool[-1]

        torch.Tensor.softmax = noted
    try:
        with torch.no_grad():
            twin(images, scale, num_layers=0)
    finally:
        torch.Tensor.softmax = softmax
    return weights, pool[-1] if pool else None


def encoder_of(name, num_scales=1, class_tokens=None):
    family = FAMILIES[name]
    return Encoder(family.build(), num_scales, class_tokens, size=family.size).eval(), family.images()
