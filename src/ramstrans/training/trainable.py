"""Which weights are trained: all, all but the first blocks, only the head, or LoRA adapters and the head.

Frozen weights have `requires_grad` False, and `build_optimizer` leaves them out.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ramstrans.distributed import to_meta
from ramstrans.errors import ConfigError
from ramstrans.models.methods.method import Method
from ramstrans.training.config import TrainingConfig

ADAPTER = "default"


def set_trainable(model: Method, config: TrainingConfig, seed: int = 0) -> None:
    """Freeze weights and add adapters as the recipe says.

    Args:
        model: Changed in place.
        config: The recipe.
        seed: Seed of the adapters, the same in all processes.

    Raises:
        ConfigError: The recipe does not fit the model, or peft is missing.
    """
    if config.finetune == "head":
        freeze_backbone(model, tokens=config.train_tokens, norms=config.train_norms)
    elif config.finetune == "lora":
        add_lora(model, config.lora_rank, config.lora_alpha, mlp=config.lora_mlp, seed=seed)
    else:
        freeze_blocks(model, config.freeze_blocks)


def freeze_backbone(model: Method, *, tokens: bool = False, norms: bool = False) -> None:
    """Train only the head: a linear probe of the backbone.

    Class tokens start as copies of one, so the scales of a frozen backbone differ only in their input.

    Args:
        model: Changed in place.
        tokens: Train the class tokens too, so that each scale gets its own.
        norms: Train all norms too; their blocks then count as trained in `set_train_mode`.
    """
    encoder = model.encoder
    encoder.requires_grad_(False)
    encoder.get_classifier().requires_grad_(True)
    for token in encoder.class_token_parameters():
        token.requires_grad_(tokens)
    for module in encoder.modules():
        if norms and isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | nn.BatchNorm2d):
            module.requires_grad_(True)


def freeze_blocks(model: Method, count: int) -> None:
    """Freeze the first `count` blocks and, if there are any, everything before them.

    Args:
        model: Changed in place.
        count: 0 to the number of blocks; 0 freezes nothing.

    Raises:
        ConfigError: The model has fewer blocks.
    """
    blocks = model.encoder.blocks
    if not 0 <= count <= len(blocks):
        raise ConfigError(
            f"training.freeze_blocks is {count}; this backbone has {len(blocks)} blocks: "
            f"give 0 to {len(blocks)}"
        )
    if count == 0:
        return
    for parameter in model.encoder.embedding():
        parameter.requires_grad_(False)
    for block in blocks[:count]:
        block.requires_grad_(False)


def set_train_mode(model: Method) -> None:
    """Put a model into training mode but frozen modules into evaluation mode; replaces `model.train()`.

    Dropout and stochastic depth of frozen modules would only make their features differ from those in
    evaluation.
    """
    model.train()
    model.encoder.set_train_mode()


def check_batch_norms(model: Method, config: TrainingConfig, num_images: int) -> None:
    """Raise where a batch norm that is trained would see one value per channel: its variance is undefined.

    Args:
        model: Left as it is.
        config: The recipe.
        num_images: Images of the smallest pass in training.

    Raises:
        ConfigError: That is too few.
    """
    has_batch_norms = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if num_images > 1 or config.finetune == "lora" or not has_batch_norms:
        return
    empty = to_meta(model)
    set_trainable(empty, config)
    set_train_mode(empty)
    for size in {model.image_size, *model.scale_sizes}:
        try:
            with torch.no_grad():
                empty.encoder.model(torch.zeros(1, 3, *size, device="meta"))
        except ValueError as error:
            height, width = size
            raise ConfigError(
                f"one image of {height}x{width} pixels per pass gives a batch norm of "
                f"{type(model.encoder.model).__name__} one value per channel; give a --training.batch_size "
                "of 2 or more images for each process and accumulation step, or a larger --model.image_size"
            ) from error


def add_lora(model: Method, rank: int = 8, alpha: int = 16, *, mlp: bool = False, seed: int = 0) -> None:
    """Freeze the backbone and train low-rank updates of its layers (https://arxiv.org/abs/2106.09685).

    A layer's weight becomes `W + alpha / rank * B A`, with A (rank, in) random and B (out, rank) initially 0,
    so that the model starts unchanged. Queries and keys come from adapted layers, so regions change too. The
    head is trained in full. The adapters are peft's.

    Args:
        model: Changed in place.
        rank: Rank of the updates, 1 or more.
        alpha: Scale of the updates, 1 or more.
        mlp: Adapt the MLPs' layers too, not only the attention's `qkv` and `proj`. In a backbone without
            attention all linear layers, and convolutions without groups, are adapted.
        seed: Seed of A: PyTorch's own generator differs between processes, and is left unchanged.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            f"LoRA needs peft, which cannot be imported ({error}); pip install 'ramstrans[lora]'"
        ) from error
    encoder = model.encoder
    for attention in cast(Iterable[Any], encoder.modules()):
        if hasattr(attention, "qkv_bias_separate"):
            attention.qkv_bias_separate = True  # else timm passes the adapter of `qkv` by
    head = set(encoder.get_classifier().modules())
    layers = {
        name: module
        for name, module in encoder.named_modules()
        if module not in head and (type(module) is nn.Linear or _is_plain_convolution(module))
    }
    linear = [name for name, module in layers.items() if isinstance(module, nn.Linear)]
    in_blocks = [name for name in linear if ".attn." in name or (mlp and ".mlp." in name)]
    targets = in_blocks if any(".attn." in name for name in in_blocks) else list(layers)
    if not targets:
        name = type(encoder.model).__name__
        raise ConfigError(
            f"LoRA: this {name} has no plain linear layer or convolution; train all or the head"
        )
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, encoder, adapter_name=ADAPTER)
    encoder.get_classifier().requires_grad_(True)


def _is_plain_convolution(module: nn.Module) -> bool:
    """Not one that pads or standardises its weight in a way of its own, which an adapter would not."""
    return type(module) is nn.Conv2d and module.groups == 1


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain model with adapters merged, copied to the CPU; the model is not changed.

    Without adapters this is the state dict. Saved models hold these weights, so they need no peft.
    """
    state = {
        name.replace(".base_layer.", "."): tensor.detach().to("cpu", copy=True)
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in cast(Iterable[tuple[str, Any]], model.named_modules()):
        if hasattr(layer, "get_delta_weight"):
            merged = layer.get_base_layer().weight + layer.get_delta_weight(ADAPTER)
            state[f"{name}.weight"] = merged.detach().to("cpu", copy=True)
    return state
