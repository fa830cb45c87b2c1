"""Which weights are trained: all, all but the first blocks, the head alone, or LoRA adapters and the head.

Frozen weights have `requires_grad` False, and `build_optimizer` leaves them out.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ramstrans.errors import ConfigError
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.training.config import TrainingConfig

ADAPTER = "default"


def set_trainable(model: RamsTrans, config: TrainingConfig, seed: int = 0) -> None:
    """Freeze, and adapt, what the recipe says.

    Args:
        model: Changed in place.
        config: The recipe.
        seed: Of adapters, the same in all processes.

    Raises:
        ConfigError: It does not go with the model, or peft is missing.
    """
    if config.finetune == "head":
        freeze_backbone(model, tokens=config.train_tokens, norms=config.train_norms)
    elif config.finetune == "lora":
        add_lora(model, config.lora_rank, config.lora_alpha, mlp=config.lora_mlp, seed=seed)
    else:
        freeze_blocks(model, config.freeze_blocks)


def freeze_backbone(model: RamsTrans, *, tokens: bool = False, norms: bool = False) -> None:
    """Train the head alone: a linear probe of what the backbone knows.

    Class tokens start as copies of one, so the scales of a frozen backbone differ only by what they see.

    Args:
        model: Changed in place.
        tokens: Train the class tokens too, so that each scale learns its own question.
        norms: Train all LayerNorms too; their blocks then count as trained, see `set_train_mode`.
    """
    encoder = model.encoder
    encoder.requires_grad_(False)
    encoder.get_classifier().requires_grad_(True)
    for token in encoder.class_token_parameters():
        token.requires_grad_(tokens)
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(norms)


def freeze_blocks(model: RamsTrans, count: int) -> None:
    """Freeze the first `count` blocks, and where that is 1 or more all that comes before them.

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
    for parameter in (*model.encoder.embedding(), *blocks[:count].parameters()):
        parameter.requires_grad_(False)


def set_train_mode(model: RamsTrans) -> None:
    """Put a model into training mode, and what is frozen into evaluation mode; in place of `model.train()`.

    Dropout and stochastic depth of frozen modules would only make their features differ from those that the
    trained head is evaluated with.
    """
    model.train()
    model.encoder.set_train_mode()


def add_lora(model: RamsTrans, rank: int = 8, alpha: int = 16, *, mlp: bool = False, seed: int = 0) -> None:
    """Freeze the backbone and train low-rank updates of its layers (https://arxiv.org/abs/2106.09685).

    A layer's weight becomes `W + alpha / rank * B A`, A (rank, in) drawn at random, B (out, rank) 0 at first,
    so that the model starts as it was. Queries and keys come out of the adapted layer, so the regions follow.
    The head is trained in full. Layers are adapted by peft.

    Args:
        model: Changed in place.
        rank: 1 or more.
        alpha: Scale of the updates, 1 or more.
        mlp: Adapt the MLPs' layers too, not the attention's `qkv` and `proj` alone.
        seed: Of A: PyTorch's own generator differs between processes, and stays as it is.

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
    targets = [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and (".attn." in name or (mlp and ".mlp." in name))
    ]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, encoder, adapter_name=ADAPTER)
    encoder.get_classifier().requires_grad_(True)


def lora_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Names and modules of all layers with an adapter."""
    return [(name, part) for name, part in model.named_modules() if hasattr(part, "get_delta_weight")]


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain model, adapters added in, copied to the CPU; the model stays as it is.

    Without adapters that is the state dict. It goes into model folders, which then need no peft.
    """
    state = {
        name.replace(".base_layer.", "."): tensor.detach().to("cpu", copy=True)
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in lora_layers(model):
        merged = layer.get_base_layer().weight + layer.get_delta_weight(ADAPTER)
        state[f"{name}.weight"] = merged.detach().to("cpu", copy=True)
    return state
