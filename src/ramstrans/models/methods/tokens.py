"""What TransFG and FFVT share: tokens that are selected before the last layer of a ViT."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ramstrans.errors import ConfigError
from ramstrans.models.attention import AttentionCall, ExplicitAttention, RecordAttention
from ramstrans.models.config import ModelConfig
from ramstrans.models.encoder import Encoder, reads_class_token
from ramstrans.models.methods.method import Method


class TokenSelection(Method):
    """One look: the last layer sees the class token and the tokens that attention selected.

    No gradient flows through the choice; it does through the tokens. A method says what it keeps of each
    layer (`after_layer`) and what the last one sees (`select`).
    """

    @classmethod
    def of(cls, encoder: Encoder, config: ModelConfig) -> "TokenSelection":
        """See `Method.of`."""
        model, anatomy = encoder.model, encoder.anatomy
        is_fit = type(model) is VisionTransformer and reads_class_token(model)
        if not is_fit or anatomy.num_layers < 2 or anatomy.num_parallel > 1:
            raise ConfigError(
                f"model.method {config.method} selects tokens between the layers of a plain ViT with a class "
                f"token, and {config.backbone} is none: take model.method rams, or e.g. "
                "model.backbone deit_tiny_patch16_224"
            )
        return super().of(encoder, config)

    def after_layer(self, tokens: Tensor, call: AttentionCall) -> Any:  # noqa: ANN401 - by method
        """What `select` needs of a layer: of its output (B, N, D), and its queries and keys."""
        raise NotImplementedError

    def select(self, tokens: Tensor, kept: list[Any]) -> tuple[Tensor, Tensor]:
        """The input (B, M, D) of the last layer, and a saliency (B, n) of all n patches.

        Args:
            tokens: (B, N, D), output of the last layer but one.
            kept: What `after_layer` gave for each layer but the last.
        """
        raise NotImplementedError

    @property
    def num_recorded(self) -> int:
        """See `Method.num_recorded`: all layers but the last, whether a region is wanted or not."""
        return self.encoder.anatomy.num_layers - 1

    @property
    def num_prefix(self) -> int:
        """Tokens before those of the patches: the class token, and registers."""
        return self.encoder.anatomy.num_prefix

    def encode(
        self, images: Tensor, scale: int, *, with_region: bool, explicit_attention: bool | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Method.encode`."""
        vit: Any = self.encoder.model
        assert scale == 0, "one look"

        def computed() -> AbstractContextManager[object]:
            return ExplicitAttention() if explicit_attention else nullcontext()

        def through(block: torch.nn.Module, tokens: Tensor) -> Tensor:
            output: Tensor = checkpoint_seq([block], tokens) if vit.grad_checkpointing else block(tokens)
            return output

        keeps_qkv = torch.is_grad_enabled() and not vit.grad_checkpointing
        tokens, kept = vit.norm_pre(vit._pos_embed(vit.patch_embed(images))), []
        for block in vit.blocks[:-1]:
            calls: list[AttentionCall] = []
            with computed(), RecordAttention(calls, copy=not keeps_qkv):
                tokens = through(block, tokens)
            kept.append(self.after_layer(tokens, calls[0]))
        tokens, saliency = self.select(tokens, kept)
        with computed():
            tokens = vit.norm(through(vit.blocks[-1], tokens))
        pooled = vit.forward_head(tokens, pre_logits=True).flatten(1)
        return pooled, saliency.reshape(-1, *self.encoder.anatomy.grid) if with_region else None


def gather_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """(B, K, D) tokens at indices (B, K) of (B, N, D).

    >>> gather_tokens(torch.arange(6.0).view(1, 3, 2), torch.tensor([[2, 0]])).tolist()
    [[[4.0, 5.0], [0.0, 1.0]]]
    """
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))


def largest(values: Tensor, count: int) -> Tensor:
    """(B, min(count, n)) indices of the largest of n values, largest first, equal ones in order.

    >>> largest(torch.tensor([[0.1, 0.3, 0.3, 0.2]]), 3)
    tensor([[1, 2, 3]])
    """
    return values.sort(dim=1, descending=True, stable=True).indices[:, :count]
