"""A plain timm ViT with one class token per scale that also returns its queries and keys."""

import difflib
from contextlib import nullcontext
from itertools import chain
from typing import Literal, NamedTuple

import timm
import torch
from timm.layers import Attention
from timm.models import _registry, checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ramstrans.errors import ConfigError
from ramstrans.models.attention import AttentionCall, RecordAttention
from ramstrans.models.config import ModelConfig

Statistics = tuple[float, float, float]
"""One number each for red, green and blue."""

PLAIN_VIT_MODULES = ("vision_transformer", "deit")

FIELDS = {"img_size": "image_size", "num_classes": "num_classes", "dynamic_img_size": "region_size"}
"""Arguments of `timm.create_model` that follow from a field of the config."""


class Features(NamedTuple):
    """One forward pass through the encoder.

    Attributes:
        class_token: (B, D), the scale's class token after the final LayerNorm.
        attention: One call per block, first block first; empty if not asked for.
        class_index: Index of the scale's class token among the N tokens.
        num_prefix: Number of tokens before the patches.
        grid: `(rows, columns)` of patches.
    """

    class_token: Tensor
    attention: tuple[AttentionCall, ...]
    class_index: int
    num_prefix: int
    grid: tuple[int, int]


class Encoder(nn.Module):
    """A plain timm ViT with one class token per scale.

    Class tokens and their position embeddings start as copies of the given ViT's one. Nothing is stored on
    the module during a forward pass: any number of threads may call it.

    Args:
        model: The ViT; becomes part of this module and is widened in place.
        num_scales: S, number of class tokens.
        class_tokens: `joint`: all S tokens enter every pass; `separate`: token s alone enters pass s.
        mean: Of red, green and blue, for pixels in [0, 1]; None: the value that timm has for the model.
        std: Of red, green and blue, in the same way.

    Raises:
        ConfigError: This ViT cannot work; the message says why.
    """

    def __init__(
        self,
        model: VisionTransformer,
        num_scales: int,
        class_tokens: Literal["joint", "separate"] = "joint",
        mean: Statistics | None = None,
        std: Statistics | None = None,
    ) -> None:
        super().__init__()
        check_vit(model)
        self.model = model
        self.mean: Statistics = mean or tuple(model.pretrained_cfg["mean"])
        self.std: Statistics = std or tuple(model.pretrained_cfg["std"])
        self.class_tokens = class_tokens
        self.num_scales = num_scales
        self._widen()

    def _widen(self) -> None:
        """Repeat the class token, and its position embedding, once per scale."""
        vit, extra = self.model, self.num_scales - 1
        vit.cls_token = nn.Parameter(vit.cls_token.detach().repeat(1, self.num_scales, 1))
        if not vit.no_embed_class:
            position = vit.pos_embed.detach()
            vit.pos_embed = nn.Parameter(torch.cat([position[:, :1].expand(-1, extra, -1), position], dim=1))
        vit.num_prefix_tokens += extra
        vit.patch_embed.img_size = None  # unchecked: scales may differ in size, and patches may overlap
        for block in vit.blocks:
            block.attn.fused_attn = True  # only that path can be recorded

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.cls_token.device
        return device

    @property
    def num_features(self) -> int:
        """D, width of the pooled feature."""
        width: int = self.model.num_features
        return width

    @property
    def blocks(self) -> nn.Sequential:
        """The transformer blocks, first to last."""
        blocks: nn.Sequential = self.model.blocks
        return blocks

    @property
    def block_names(self) -> tuple[str, ...]:
        """Class names of the blocks."""
        return tuple(sorted({type(block).__name__ for block in self.blocks}))

    @property
    def patch_size(self) -> tuple[int, int]:
        """`(height, width)` of a patch in pixels."""
        height, width = self.model.patch_embed.patch_size
        return height, width

    @property
    def patch_stride(self) -> tuple[int, int]:
        """`(down, across)`, distance of neighbouring patches in pixels; the patch size without overlap."""
        down, across = self.model.patch_embed.proj.stride
        return down, across

    def grid_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """`(rows, columns)` of patches in an image of `(height, width)` pixels."""
        sides = zip(size, self.patch_size, self.patch_stride, strict=True)
        rows, columns = ((side - patch) // stride + 1 for side, patch, stride in sides)
        return rows, columns

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in 0..255 -> float32 `(x / 255 - mean) / std`, on the encoder's device."""
        images = images.to(self.device, non_blocking=True)
        factor = torch.tensor([1 / (255 * std) for std in self.std], device=images.device)
        shift = torch.tensor(
            [mean / std for mean, std in zip(self.mean, self.std, strict=True)], device=images.device
        )
        return images.to(torch.float32, copy=True).mul_(factor[:, None, None]).sub_(shift[:, None, None])

    def forward(self, images: Tensor, scale: int, *, with_attention: bool = True) -> Features:
        """Encode images at one scale.

        Args:
            images: (B, 3, H, W), normalised; position embeddings are resampled if the size is not the one
                that the ViT was built for.
            scale: Index of the scale, from 0.
            with_attention: Whether to record queries and keys.
        """
        calls: list[AttentionCall] = []
        keeps_qkv = torch.is_grad_enabled() and not self.model.grad_checkpointing
        with RecordAttention(calls, copy=not keeps_qkv) if with_attention else nullcontext():
            tokens = self._forward_features(images, scale)
        assert not with_attention or len(calls) == len(self.blocks), "one attention per block"
        class_index = scale if self.class_tokens == "joint" else 0
        grid = self.grid_of((images.shape[2], images.shape[3]))
        num_prefix = tokens.shape[1] - grid[0] * grid[1]
        return Features(tokens[:, class_index], tuple(calls), class_index, num_prefix, grid)

    def _forward_features(self, images: Tensor, scale: int) -> Tensor:
        """(B, N, D) tokens after the final LayerNorm."""
        vit = self.model
        tokens = vit._pos_embed(vit.patch_embed(images))
        if self.class_tokens != "joint":
            tokens = torch.cat([tokens[:, scale : scale + 1], tokens[:, self.num_scales :]], dim=1)
        tokens = vit.norm_pre(tokens)
        if vit.grad_checkpointing:
            tokens = checkpoint_seq(vit.blocks, tokens)
        else:
            for block in vit.blocks:  # `vit.blocks(tokens)` would hold its input to the end
                tokens = block(tokens)
        normalized: Tensor = vit.norm(tokens)
        return normalized

    def forward_head(self, class_token: Tensor) -> Tensor:
        """(B, num_classes) logits of a class token (B, D)."""
        logits: Tensor = self.model.head(self.model.head_drop(self.model.fc_norm(class_token)))
        return logits

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Store only each block's input in training, and compute the block again for its gradients."""
        self.model.set_grad_checkpointing(enable)

    def get_classifier(self) -> nn.Module:
        """The head."""
        head: nn.Module = self.model.head
        return head

    def embedding(self) -> list[nn.Parameter]:
        """Parameters before the first block: patch embedding, tokens, positions."""
        vit = self.model
        tokens = (vit.cls_token, vit.reg_token, vit.pos_embed)
        modules = chain(vit.patch_embed.parameters(), vit.norm_pre.parameters())
        return [*modules, *(token for token in tokens if token is not None)]

    def class_token_parameters(self) -> list[nn.Parameter]:
        """The class tokens of all scales."""
        return [self.model.cls_token]

    def set_train_mode(self) -> None:
        """Put what is trained into training mode, and what is frozen into evaluation mode.

        A block counts as frozen if none of its parameters, adapters included, is trained; dropout on the
        embedded tokens goes with the patch embedding.
        """
        vit = self.model
        vit.train()
        for module in (vit.patch_embed, vit.norm_pre, *vit.blocks, vit.norm):
            module.train(any(parameter.requires_grad for parameter in module.parameters()))
        vit.pos_drop.train(vit.patch_embed.training)


def check_vit(vit: VisionTransformer) -> None:
    """Raise ConfigError, saying why, unless the ViT can serve as the backbone of a RamsTrans."""
    reason = None
    if type(vit) is not VisionTransformer:
        reason = f"it is a {type(vit).__name__}, not a plain VisionTransformer"
    elif vit.cls_token is None:
        reason = "it has no class token"
    elif vit.global_pool != "token":
        reason = f"its head pools by '{vit.global_pool}', not by the class token"
    elif vit.pos_embed is None:
        reason = "it has no learnt absolute position embedding"
    elif not isinstance(vit.patch_drop, nn.Identity):
        reason = "it drops patches (patch_drop_rate); the saliency map needs all"
    elif vit.in_chans != 3:
        reason = f"it reads {vit.in_chans} channels; images have 3"
    elif len(vit.blocks) == 0:
        reason = "it has no blocks (depth 0), whose attention is needed"
    elif not all(type(getattr(block, "attn", None)) is Attention for block in vit.blocks):
        reason = "its blocks do not have timm's standard attention, whose queries and keys are needed"
    if reason:
        raise ConfigError(f"this backbone cannot work: {reason}; take e.g. vit_base_patch16_224")


def current_name(backbone: str) -> str:
    """The present name of a model that timm once had under another.

    Raises:
        ConfigError: timm has removed it.

    >>> current_name("vit_base_patch16_224_in21k")
    'vit_base_patch16_224.augreg_in21k'
    """
    if backbone not in _registry._deprecated_models:
        return backbone
    current: str | None = _registry._deprecated_models[backbone]
    if current is None:
        raise ConfigError(f"model.backbone: timm has removed '{backbone}'; see timm.list_models('vit_*')")
    return current


def build_vit(config: ModelConfig) -> VisionTransformer:
    """Build the plain timm ViT that a config asks for, with random weights.

    Raises:
        ConfigError: Unknown backbone, one that cannot work, or an image size that does not suit it.
    """
    name = current_name(config.backbone)
    plain = {model for module in PLAIN_VIT_MODULES for model in timm.list_models(module=module)}
    if name.split(".")[0] not in plain:
        known = timm.is_model(name)
        near = difflib.get_close_matches(name, sorted(plain), n=3)
        reason = "is not a plain ViT (vit_*, deit*)" if known else "is not known to timm"
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models('vit_*')"
        raise ConfigError(f"model.backbone: '{name}' {reason}; {hint}")
    architecture, _, tag = name.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ConfigError(
            f"model.backbone: timm has no weights '{tag}' for {architecture}; give {', '.join(tags)}, "
            "or no tag for its default"
        )
    for option, field in FIELDS.items():
        if option in config.backbone_options:
            raise ConfigError(f"model.backbone_options has '{option}'; set model.{field} instead")
    options = {
        "num_classes": config.num_classes,
        "img_size": config.input_size,
        "pos_drop_rate": config.dropout,
        "proj_drop_rate": config.dropout,
        "drop_path_rate": config.drop_path,
        "dynamic_img_size": len(set(config.scale_sizes)) > 1,
    } | config.backbone_options
    try:
        vit = timm.create_model(name, pretrained=False, **options)
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(f"model.backbone: timm cannot build '{name}' with {options}: {error}") from error
    check_vit(vit)
    _set_patch_grid(vit, config)
    return vit


def _set_patch_grid(vit: VisionTransformer, config: ModelConfig) -> None:
    """Check that the patches fit the image, and make them overlap where the config says so."""
    embed, stride = vit.patch_embed, config.patch_stride
    down, across = embed.patch_size
    for option, (height, width) in (
        ("image_size", config.input_size),
        ("region_size", config.scale_sizes[-1]),
    ):
        if height < down or width < across:
            raise ConfigError(
                f"model.{option} {height}x{width} is smaller than a patch of {down}x{across}; "
                f"give at least one patch, better {14 * down} or more"
            )
        if stride is None and (height % down or width % across):
            raise ConfigError(
                f"model.{option} {height}x{width} is not a multiple of the patch {down}x{across}; "
                f"take {height // down * down}x{width // across * across}"
            )
    if stride is None:
        return
    if not 1 <= stride <= min(down, across):
        raise ConfigError(
            f"model.patch_stride is {stride}; give 1 to {min(down, across)} (the patch size: no overlap)"
        )
    height, width = config.input_size
    embed.proj.stride = (stride, stride)
    embed.grid_size = ((height - down) // stride + 1, (width - across) // stride + 1)
    embed.num_patches = embed.grid_size[0] * embed.grid_size[1]
    num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    vit.pos_embed = nn.Parameter(torch.empty(1, num_prefix + embed.num_patches, vit.embed_dim))
    nn.init.trunc_normal_(vit.pos_embed, std=0.02)
