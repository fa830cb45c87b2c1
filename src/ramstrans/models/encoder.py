"""A plain timm ViT that reads one class token a scale and tells its queries and keys."""

import difflib
from typing import Literal, NamedTuple

import timm
import torch
from timm.layers import Attention, resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ramstrans.errors import ConfigError
from ramstrans.models.config import ModelConfig

PLAIN_VIT_MODULES = ("vision_transformer", "deit")


class Features(NamedTuple):
    """What one pass through the backbone gives.

    Attributes:
        class_token: (B, D), the scale's class token after the final LayerNorm.
        queries: L tensors (B, H, N, d), first layer first, as they enter the attention; none where they
            were not asked for.
        keys: L tensors (B, H, N, d), likewise.
        class_index: Position of the scale's class token among the N tokens.
        num_prefix: Number of tokens before the patches in this pass.
        grid: `(rows, columns)` of patches in this pass.
    """

    class_token: Tensor
    queries: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]
    class_index: int
    num_prefix: int
    grid: tuple[int, int]


class Backbone(nn.Module):
    """A plain timm ViT with one class token for each scale.

    Class tokens and their position embeddings start as copies of the given ViT's one. Queries and keys
    are noted as they leave `attn.q_norm` and `attn.k_norm` (identities in most ViTs), so timm's own
    forward, and its fused attention, stay as they are. One pass at a time on one instance: the notes
    of a pass live on the module.

    Args:
        vit: The ViT; becomes part of this module and is widened in place.
        num_scales: S, number of class tokens.
        class_tokens: `joint`: all S tokens enter every pass; `separate`: token s alone enters pass s.

    Attributes:
        gradient_checkpointing: Whether training keeps each block's input only, and computes the block
            again for its gradients.

    Raises:
        ConfigError: This ViT cannot work; the message says why.
    """

    def __init__(
        self, vit: VisionTransformer, num_scales: int, class_tokens: Literal["joint", "separate"] = "joint"
    ) -> None:
        super().__init__()
        check_vit(vit)
        self.vit = vit
        self.class_tokens = class_tokens
        self.num_scales = num_scales
        self._widen()
        attention = vit.blocks[0].attn
        self.scale: float = attention.scale
        self.gradient_checkpointing = False
        self._takes_notes = True
        self._queries: list[Tensor] = []
        self._keys: list[Tensor] = []
        for block in vit.blocks:
            block.attn.q_norm.register_forward_hook(self._note_query)
            block.attn.k_norm.register_forward_hook(self._note_key)

    @property
    def num_layers(self) -> int:
        """L, number of blocks."""
        return len(self.vit.blocks)

    @property
    def grid(self) -> tuple[int, int]:
        """`(rows, columns)` of patches in an image of the size that the ViT was built for."""
        rows, columns = self.vit.patch_embed.grid_size
        return rows, columns

    @property
    def patch_size(self) -> tuple[int, int]:
        """`(height, width)` of a patch in pixels."""
        height, width = self.vit.patch_embed.patch_size
        return height, width

    @property
    def patch_stride(self) -> tuple[int, int]:
        """`(down, across)`, distance of neighbouring patches in pixels; the patch size without overlap."""
        down, across = self.vit.patch_embed.proj.stride
        return down, across

    def _widen(self) -> None:
        """Repeat the class token, and its position embedding, once for each scale."""
        vit, extra = self.vit, self.num_scales - 1
        vit.cls_token = nn.Parameter(vit.cls_token.detach().repeat(1, self.num_scales, 1))
        if not vit.no_embed_class:
            position = vit.pos_embed.detach()
            vit.pos_embed = nn.Parameter(torch.cat([position[:, :1].expand(-1, extra, -1), position], dim=1))
        vit.num_prefix_tokens += extra
        vit.patch_embed.img_size = None  # no check of it: looks may differ in size, and patches overlap

    def grid_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """`(rows, columns)` of patches in an image of `(height, width)` pixels."""
        sides = zip(size, self.patch_size, self.patch_stride, strict=True)
        rows, columns = ((side - patch) // stride + 1 for side, patch, stride in sides)
        return rows, columns

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """(1, N, D) position embeddings, resampled where the grid is another than the ViT's own."""
        vit = self.vit
        if grid == self.grid:
            positions: Tensor = vit.pos_embed
            return positions
        num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
        resampled: Tensor = resample_abs_pos_embed(
            vit.pos_embed, list(grid), list(self.grid), num_prefix_tokens=num_prefix
        )
        return resampled

    def _note_query(self, _module: nn.Module, _args: tuple[Tensor, ...], query: Tensor) -> None:
        self._note(self._queries, query)

    def _note_key(self, _module: nn.Module, _args: tuple[Tensor, ...], key: Tensor) -> None:
        self._note(self._keys, key)

    def _note(self, notes: list[Tensor], tensor: Tensor) -> None:
        """Keep a query or key: as it is where the backward pass keeps it anyway, else free of its values."""
        if self._takes_notes:
            # timm's queries, keys and values are views of one tensor, which a view would keep alive whole
            is_kept = torch.is_grad_enabled() and not self.gradient_checkpointing
            notes.append(tensor.detach() if is_kept else tensor.detach().contiguous())

    def _embed(self, images: Tensor, scale: int) -> Tensor:
        """(B, N, D) tokens of one pass: class tokens, register tokens, patches, with positions."""
        vit = self.vit
        patches = vit.patch_embed(images)
        positions = self._positions(self.grid_of(_size(images)))
        prefix = vit.cls_token if vit.reg_token is None else torch.cat([vit.cls_token, vit.reg_token], dim=1)
        if vit.no_embed_class:
            patches = patches + positions
        else:
            num_prefix = prefix.shape[1]
            prefix = prefix + positions[:, :num_prefix]
            patches = patches + positions[:, num_prefix:]
        if self.class_tokens == "separate":
            prefix = torch.cat([prefix[:, scale : scale + 1], prefix[:, self.num_scales :]], dim=1)
        tokens = torch.cat([prefix.expand(patches.shape[0], -1, -1), patches], dim=1)
        embedded: Tensor = vit.norm_pre(vit.pos_drop(tokens))
        return embedded

    def forward(self, images: Tensor, scale: int, *, with_attention: bool = True) -> Features:
        """One look.

        Args:
            images: (B, 3, H, W), normalised as the backbone expects; position embeddings are resampled
                where the size is another than it was built for.
            scale: Which look, from 0.
            with_attention: Whether queries and keys are wanted.

        Returns:
            Features.
        """
        self._queries, self._keys, self._takes_notes = [], [], with_attention
        tokens = self._embed(images, scale)
        for block in self.vit.blocks:  # calling them together would keep the first block's input till the end
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        self._takes_notes = False  # a block that is computed again for its gradients is not noted again
        tokens = self.vit.norm(tokens)
        queries, keys = tuple(self._queries), tuple(self._keys)
        self._queries, self._keys = [], []
        class_index = scale if self.class_tokens == "joint" else 0
        grid = self.grid_of(_size(images))
        num_prefix = tokens.shape[1] - grid[0] * grid[1]
        return Features(tokens[:, class_index], queries, keys, class_index, num_prefix, grid)

    def use_fused_attention(self, fused: bool) -> None:
        """Switch every block between fused attention and plain matrix products; same function."""
        for block in self.vit.blocks:
            block.attn.fused_attn = fused


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


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
    elif vit.dynamic_img_size or not isinstance(vit.patch_drop, nn.Identity):
        reason = (
            "its number of patches changes (dynamic_img_size, patch_drop_rate); the saliency map's is fixed"
        )
    elif vit.in_chans != 3:
        reason = f"it reads {vit.in_chans} channels; images have 3"
    elif len(vit.blocks) == 0:
        reason = "it has no blocks (depth 0), whose attention is needed"
    elif not all(type(getattr(block, "attn", None)) is Attention for block in vit.blocks):
        reason = "its blocks do not have timm's standard attention, whose queries and keys are needed"
    if reason:
        raise ConfigError(f"this backbone cannot work: {reason}; take e.g. vit_base_patch16_224")


def build_vit(config: ModelConfig) -> VisionTransformer:
    """Build the plain timm ViT that a config asks for, with random weights.

    Raises:
        ConfigError: Unknown backbone, one that cannot work, or an image size that does not suit it.
    """
    name = config.backbone
    plain = {model for module in PLAIN_VIT_MODULES for model in timm.list_models(module=module)}
    if name.split(".")[0] not in plain:
        known = timm.is_model(name)
        near = difflib.get_close_matches(name, sorted(plain), n=3)
        reason = "is not a plain ViT (vit_*, deit*)" if known else "is not known to timm"
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models('vit_*')"
        raise ConfigError(f"model.backbone: '{name}' {reason}; {hint}")
    for option, field in (("img_size", "image_size"), ("num_classes", "num_classes")):
        if option in config.backbone_options:
            raise ConfigError(f"model.backbone_options has '{option}'; set model.{field} instead")
    options = {
        "num_classes": config.num_classes,
        "img_size": config.input_size,
        "pos_drop_rate": config.dropout,
        "proj_drop_rate": config.dropout,
        "drop_path_rate": config.drop_path,
        "dynamic_img_size": False,
    } | config.backbone_options
    try:
        vit = timm.create_model(name, pretrained=False, **options)
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(f"model.backbone: timm cannot build '{name}' with {options}: {error}") from error
    check_vit(vit)
    _set_patch_grid(vit, config)
    return vit


def _check_size(option: str, size: tuple[int, int], patch: tuple[int, int], *, whole_patches: bool) -> None:
    """Raise ConfigError unless an image of `size` (height, width) can be cut into patches."""
    (height, width), (patch_height, patch_width) = size, patch
    if height < patch_height or width < patch_width:
        raise ConfigError(
            f"model.{option} {height}x{width} is smaller than a patch of {patch_height}x{patch_width}; "
            f"give at least one patch, better {14 * patch_height} or more"
        )
    if whole_patches and (height % patch_height or width % patch_width):
        raise ConfigError(
            f"model.{option} {height}x{width} is not a multiple of the patch "
            f"{patch_height}x{patch_width}; take "
            f"{height // patch_height * patch_height}x{width // patch_width * patch_width}"
        )


def _set_patch_grid(vit: VisionTransformer, config: ModelConfig) -> None:
    """Check that the patches fit the image, and make them overlap where the config says so."""
    embed, (height, width) = vit.patch_embed, config.input_size
    (patch_height, patch_width), stride = embed.patch_size, config.patch_stride
    for option, size in (("image_size", config.input_size), ("region_size", config.scale_sizes[-1])):
        _check_size(option, size, embed.patch_size, whole_patches=stride is None)
    if stride is None:
        return
    if not 1 <= stride <= min(patch_height, patch_width):
        raise ConfigError(
            f"model.patch_stride is {stride}; "
            f"give 1 to {min(patch_height, patch_width)} (the patch size: no overlap)"
        )
    embed.proj.stride = (stride, stride)
    embed.grid_size = ((height - patch_height) // stride + 1, (width - patch_width) // stride + 1)
    embed.num_patches = embed.grid_size[0] * embed.grid_size[1]
    num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    vit.pos_embed = nn.Parameter(torch.empty(1, num_prefix + embed.num_patches, vit.embed_dim))
    nn.init.trunc_normal_(vit.pos_embed, std=0.02)
