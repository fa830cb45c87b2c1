"""Any timm image classifier as an encoder: pooled vector, feature map, and the attention it was made by."""

from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any, NamedTuple

import torch
from timm.models import checkpoint_seq
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ramstrans.errors import ConfigError
from ramstrans.models.anatomy import Size, inspect_model, locate, patch_grid
from ramstrans.models.attention import AttentionCall, ExplicitAttention, RecordAttention, join_heads
from ramstrans.models.backbones import check_backbone
from ramstrans.models.config import ClassTokens
from ramstrans.models.head import flat_locations, get_classifier, sums_locations

Statistics = tuple[float, float, float]
"""One number each for red, green and blue."""

MAX_EXPLICIT_TOKENS = 1024
"""Above, the weights of all layers take more memory than is worth the time."""

CONTAINERS = (
    *("blocks", "stages", "layers", "levels", "network", "features"),
    *("dense_stages", "transformers", "body"),
)
"""Names that timm's models give to the list of their blocks or stages."""


class Features(NamedTuple):
    """One forward pass through the encoder.

    Attributes:
        pooled: (B, D), what the classifier reads: the scale's class token, or a pooled map, after all norms.
        locations: (B, h * w, C), the last features of each location, row by row.
        attention: One call per layer, first layer first, of those that were asked for; or, where attention is
            computed by matrix products, its weights (B, N, N) float32, averaged over heads.
        pool_attention: The call of the query that pools the tokens; None if no query does, or not asked for.
        class_index: Index of the scale's class token among the N tokens; None if none is pooled.
        num_prefix: Number of tokens before the patches.
        grid: `(rows, columns)` of locations.
        whole: What `locations` is a view of, with the tokens before them, as timm lays it out.
    """

    pooled: Tensor
    locations: Tensor
    attention: tuple[AttentionCall | Tensor, ...]
    pool_attention: AttentionCall | Tensor | None
    class_index: int | None
    num_prefix: int
    grid: Size
    whole: Tensor


class Encoder(nn.Module):
    """A timm image classifier that also tells where its features lie and which attention made them.

    A plain ViT or an Eva that classifies by its class token gets one per scale: they and their position
    embeddings start as copies of the given one. Other models are the same for all scales. Nothing is stored
    on the module during a forward pass: any number of threads may call it.

    Args:
        model: From timm; becomes part of this module, and is widened in place.
        num_scales: S, number of scales.
        class_tokens: `joint`: all S class tokens enter every pass; `separate`: token s alone enters pass s;
            `shared`: all scales have one token, or none. None: `joint` where it can be, else `shared`.
        mean: Of red, green and blue, for pixels in [0, 1]; None: the value that timm has for the model.
        std: Of red, green and blue, in the same way.
        size: `(height, width)` of the input in pixels; None: the one that the model was built for.

    Raises:
        ConfigError: This model cannot work; the message says why.
    """

    def __init__(
        self,
        model: nn.Module,
        num_scales: int,
        class_tokens: ClassTokens | None = None,
        mean: Statistics | None = None,
        std: Statistics | None = None,
        *,
        size: Size | None = None,
    ) -> None:
        super().__init__()
        check_backbone(model)
        self.model: Any
        self.model = model
        published = getattr(model, "pretrained_cfg", {})
        if not ((mean or "mean" in published) and (std or "std" in published)):
            raise ConfigError("this backbone is not one of timm's by name: give mean and std of its pixels")
        self.mean: Statistics = mean or tuple(published["mean"])
        self.std: Statistics = std or tuple(published["std"])
        self.num_scales = num_scales
        self.channels_last = False
        self.class_tokens = choose_class_tokens(model, num_scales, class_tokens)
        size = size or _own_size(self.model)
        self._fuse_attention()
        self._widen()
        self.anatomy = inspect_model(model, size)
        self.sums_locations = sums_locations(self.model, self.anatomy)

    def _fuse_attention(self) -> None:
        """Let blocks and attention pool call the fused kernel, whatever timm's switch says."""
        parts = (getattr(self.model, name, None) for name in ("blocks", "attn_pool"))
        for module in chain.from_iterable(part.modules() for part in parts if part is not None):
            if hasattr(module, "fused_attn"):
                module.fused_attn = True

    def _widen(self) -> None:
        """Repeat the class token, and its position embedding, once per scale."""
        model, extra = self.model, self.num_scales - 1
        if isinstance(model, VisionTransformer | Eva) and hasattr(model.patch_embed, "img_size"):
            model.patch_embed.img_size = None  # unchecked: scales may differ in size
        if self.class_tokens == "shared":
            return
        model.cls_token = nn.Parameter(model.cls_token.detach().repeat(1, self.num_scales, 1))
        if model.pos_embed is not None and not model.no_embed_class:
            position = model.pos_embed.detach()
            model.pos_embed = nn.Parameter(
                torch.cat([position[:, :1].expand(-1, extra, -1), position], dim=1)
            )
        for module in model.modules():
            if module is model or (isinstance(model, Eva) and hasattr(module, "num_prefix_tokens")):
                module.num_prefix_tokens += extra  # rotary embeddings skip them

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def num_features(self) -> int:
        """D, width of the pooled vector."""
        return self.anatomy.num_pooled

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        number: int = self.model.num_classes
        return number

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of a transformer, or the stages of another model, first to last."""
        for name in CONTAINERS:
            container = getattr(self.model, name, None)
            if isinstance(container, nn.Sequential | nn.ModuleList) and len(container) > 1:
                return [block for block in container if list(block.parameters())]
        names = [entry["module"] for entry in getattr(self.model, "feature_info", [])]
        children = [module for name, module in self.model.named_children() if name in names]
        children = [module for module in children if list(module.parameters())]
        return children if len(children) > 1 else []

    @property
    def block_names(self) -> tuple[str, ...]:
        """Class names of the blocks."""
        return tuple(sorted({type(block).__name__ for block in self.blocks}))

    @property
    def patch_size(self) -> Size | None:
        """`(height, width)` of a patch in pixels; None where locations are not patches of pixels."""
        return tuple(self.model.patch_embed.proj.kernel_size) if self.anatomy.is_patches else None

    @property
    def patch_stride(self) -> Size | None:
        """`(down, across)`, distance of neighbouring patches in pixels; the patch size without overlap."""
        return tuple(self.model.patch_embed.proj.stride) if self.anatomy.is_patches else None

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in 0..255 -> float32 `(x / 255 - mean) / std`, on the encoder's device."""
        images = images.to(self.device, non_blocking=True)
        factor = torch.tensor([1 / (255 * std) for std in self.std], device=images.device)
        shift = torch.tensor(
            [mean / std for mean, std in zip(self.mean, self.std, strict=True)], device=images.device
        )
        return images.to(torch.float32, copy=True).mul_(factor[:, None, None]).sub_(shift[:, None, None])

    def forward(
        self,
        images: Tensor,
        scale: int,
        *,
        num_layers: int | None = None,
        explicit_attention: bool = False,
    ) -> Features:
        """Encode images at one scale.

        Args:
            images: (B, 3, H, W), normalised; position embeddings are resampled if the size is not the one
                that the model was built for.
            scale: Index of the scale, from 0.
            num_layers: Of how many of the last layers to record the attention; None: of all.
            explicit_attention: Whether attention is computed by matrix products.
        """
        calls: list[Any] = []
        num_parallel = self.anatomy.num_parallel
        recorded = num_parallel * (self.anatomy.num_layers if num_layers is None else num_layers)
        with self._attention_mode(calls, recorded, explicit=explicit_attention):
            features = self._forward_features(images, scale)
            own = features
            if self.class_tokens == "joint":
                own = features[:, scale : scale + 1]  # timm reads the first
            pooled = self.model.forward_head(own, pre_logits=True).flatten(1)
        layout, grid, num_prefix = locate(self.model, features, (images.shape[2], images.shape[3]))
        return Features(
            pooled=pooled,
            locations=flat_locations(features, layout, num_prefix),
            attention=tuple(
                join_heads(calls[first : first + num_parallel]) for first in range(0, recorded, num_parallel)
            ),
            pool_attention=calls[recorded] if recorded and self.anatomy.pools_by_attention else None,
            class_index=self._class_index(scale),
            num_prefix=num_prefix,
            grid=grid,
            whole=features,
        )

    @property
    def pooling(self) -> str:
        """What the head reads, in words."""
        if reads_class_token(self.model):
            return "the class token"
        if self.anatomy.pools_by_attention:
            return "an attention pool"
        pool = getattr(self.model, "global_pool", None)
        kind = pool if isinstance(pool, str) else getattr(pool, "pool_type", None)
        words = {"avg": "the mean of all locations", "max": "their maximum", "token": "a token"}
        return words.get(kind or "avg", f"'{kind}'")

    def is_explicit(self, images: Tensor, num_layers: int) -> bool:
        """Whether products of matrices are faster than the fused kernel and a rollout of queries and keys.

        So it is on CPUs without gradients, unless the weights of long sequences fill the memory.
        """
        is_plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        is_short = self.num_tokens(images) <= MAX_EXPLICIT_TOKENS
        return num_layers > 0 and is_plain and images.device.type == "cpu" and is_short

    def num_tokens(self, images: Tensor) -> float:
        """About the number of tokens of an image."""
        rows, columns = self.anatomy.grid
        height, width = self.anatomy.size
        return rows * columns * images.shape[2] * images.shape[3] / (height * width)

    def numbers_kept(self, images: Tensor, num_layers: int) -> float:
        """About how many numbers per token of a pass are kept for a saliency, in multiples of D."""
        explicit = self.is_explicit(images, num_layers)
        return num_layers * (self.num_tokens(images) / self.num_features if explicit else 2)

    def _attention_mode(
        self, calls: list[Any], recorded: int, *, explicit: bool
    ) -> AbstractContextManager[object]:
        """The mode that computes attention by matrix products, or records queries and keys, or neither."""
        skip = self.anatomy.num_parallel * self.anatomy.num_layers - recorded
        if explicit:
            return ExplicitAttention(calls if recorded else None, skip=skip)
        keeps_qkv = torch.is_grad_enabled() and not getattr(self.model, "grad_checkpointing", False)
        return RecordAttention(calls, skip=skip, copy=not keeps_qkv) if recorded else nullcontext()

    def _class_index(self, scale: int) -> int | None:
        if self.class_tokens == "joint":
            return scale
        return 0 if reads_class_token(self.model) else None

    def _forward_features(self, images: Tensor, scale: int) -> Tensor:
        """Features after the final norm, as timm lays them out."""
        model = self.model
        is_plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        pays = self.anatomy.layout == "NCHW" and images.device.type == "cpu" and is_plain
        if self.channels_last or pays:
            images = images.contiguous(memory_format=torch.channels_last)  # faster: docs/performance.md
        if self.class_tokens != "separate":
            features: Tensor = model.forward_features(images)
            return features
        tokens = model._pos_embed(model.patch_embed(images))
        tokens = torch.cat([tokens[:, scale : scale + 1], tokens[:, self.num_scales :]], dim=1)
        tokens = model.norm_pre(tokens)
        tokens = checkpoint_seq(model.blocks, tokens) if model.grad_checkpointing else model.blocks(tokens)
        normalized: Tensor = model.norm(tokens)
        return normalized

    def forward_head(self, pooled: Tensor) -> Tensor:
        """(B, num_classes) logits of pooled vectors (B, D); several heads are averaged."""
        classifier = self.get_classifier()
        heads = classifier if isinstance(classifier, nn.ModuleList) else (classifier,)
        logits = [
            head(pooled[..., None, None]).flatten(1) if isinstance(head, nn.Conv2d) else head(pooled)
            for head in heads
        ]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Store only each block's input in training, and compute the block again for its gradients.

        Raises:
            ConfigError: The model cannot.
        """
        try:
            self.model.set_grad_checkpointing(enable)
        except (AttributeError, AssertionError) as error:
            if enable:
                name = type(self.model).__name__
                raise ConfigError(
                    f"training.gradient_checkpointing: a {name} cannot; set it to false"
                ) from error

    def set_channels_last(self, enable: bool = True) -> None:
        """Let training lay feature maps out by location too, as passes without gradients do on CPUs.

        Raises:
            ConfigError: The model has no maps of convolutions, or cannot.
        """
        name = type(self.model).__name__
        if enable and self.anatomy.layout != "NCHW":
            raise ConfigError(
                f"training.channels_last is for backbones of convolutions; a {name} has none to gain: "
                "set it to false"
            )
        if enable and name == "FastVit" and self.device.type == "cpu":
            raise ConfigError(
                "training.channels_last: PyTorch writes beyond its memory in the backward pass of a FastVit "
                "on CPUs; set it to false"
            )
        self.channels_last = enable

    def get_classifier(self) -> nn.Module:
        """The head; a list of them if there are several."""
        return get_classifier(self.model)

    def embedding(self) -> list[nn.Parameter]:
        """Parameters before the first block: patch embedding or stem, tokens, positions."""
        before = (module.parameters() for module in self._before_blocks())
        return [*chain.from_iterable(before), *self.model.parameters(recurse=False)]

    def _before_blocks(self) -> list[nn.Module]:
        """The model's own modules that are registered before its blocks."""
        blocks = {id(block) for block in self.blocks}
        before: list[nn.Module] = []
        for module in self.model.children():
            if id(module) in blocks or any(id(child) in blocks for child in module.children()):
                return before
            before.append(module)
        return []

    def class_token_parameters(self) -> list[nn.Parameter]:
        """The class tokens of all scales; empty without."""
        return [self.model.cls_token] if reads_class_token(self.model) else []

    def set_train_mode(self) -> None:
        """Put what is trained into training mode, and what is frozen into evaluation mode.

        A block counts as frozen if none of its parameters, adapters included, is trained: without dropout and
        stochastic depth, and with the running statistics of its batch norms as they are. Dropout on the
        embedded tokens goes with the patch embedding.
        """
        self.model.train()
        blocks = self.blocks
        containers = {id(module) for module in self.model.children() if set(module.children()) & set(blocks)}
        units = [module for module in self.model.children() if id(module) not in containers]
        for module in (*units, *blocks):
            parameters = list(module.parameters())
            module.train(not parameters or any(parameter.requires_grad for parameter in parameters))
        before = self._before_blocks()
        is_trained = any(parameter.requires_grad for module in before for parameter in module.parameters())
        for module in before:
            if not list(module.parameters()):
                module.train(is_trained)


def choose_class_tokens(model: Any, num_scales: int, asked: ClassTokens | None) -> ClassTokens:  # noqa: ANN401
    """How scales have class tokens: as asked, or the best that the model allows.

    Raises:
        ConfigError: The model cannot have what was asked for.
    """
    widens = type(model) in (VisionTransformer, Eva) and reads_class_token(model)
    if asked == "shared":
        return "shared"
    if asked is None or num_scales == 1:  # of one scale there is one token, whatever was asked for
        return "joint" if widens else "shared"
    name = type(model).__name__
    if not widens:
        raise ConfigError(
            f"model.class_tokens is {asked}; this {name} "
            + ("has one class token only" if reads_class_token(model) else "is not read at a class token")
            + ": leave it out, and all scales share everything"
        )
    if asked == "separate" and type(model) is not VisionTransformer:
        raise ConfigError(f"model.class_tokens is separate; for a {name} give joint or shared")
    return asked


def reads_class_token(model: Any) -> bool:  # noqa: ANN401 - any timm model
    """Whether the classifier reads the class token of a model alone."""
    return (
        getattr(model, "cls_token", None) is not None
        and getattr(model, "global_pool", None) == "token"
        and getattr(model, "attn_pool", None) is None
    )


def _own_size(model: Any) -> Size:  # noqa: ANN401 - any timm model
    """`(height, width)` that a model was built for."""
    if patch_grid(model, (0, 0)) is None or model.patch_embed.grid_size is None:
        height, width = model.pretrained_cfg["input_size"][1:]
        return height, width
    embed = model.patch_embed
    sides = zip(embed.grid_size, embed.proj.stride, embed.proj.kernel_size, strict=True)
    height, width = ((count - 1) * stride + patch for count, stride, patch in sides)
    return height, width
