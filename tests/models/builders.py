"""Tiny models with random weights large enough that attention is far from uniform."""

import pytest
import torch

from ramstrans.models.backbones import build_backbone
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.build import build_model

SIZE = (48, 80)  # a grid of 3 x 5
every_set_up = pytest.mark.parametrize(
    ("class_tokens", "saliency_rows"), [("joint", "all"), ("joint", "class"), ("separate", "class")]
)

TINY = {"embed_dim": 24, "depth": 3, "num_heads": 2}


def randomise(module, seed=0, std=0.3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=std, generator=generator)
        for part in module.modules():
            if isinstance(part, torch.nn.LayerNorm | torch.nn.RMSNorm):
                part.weight.add_(1)
    return module.eval()


def tiny_config(**fields):
    defaults = {"backbone": "vit_tiny_patch16_224", "num_classes": 5, "image_size": (48, 80)}
    options = TINY | fields.pop("backbone_options", {})
    return ModelConfig(**(defaults | fields), backbone_options=options)


def tiny_vit(**fields):
    return randomise(build_backbone(tiny_config(**fields)))


def tiny_model(seed=0, std=0.3, **fields):
    """A RamsTrans with all weights random, so that class tokens differ too."""
    return randomise(build_model(tiny_config(**fields)), seed, std)


OTHERS = {
    "CNN": {"backbone": "test_efficientnet", "image_size": (64, 96)},
    "CNN with norms": {"backbone": "test_convnext", "image_size": (64, 96)},
    "Eva": {"backbone": "vit_small_patch16_dinov3", "global_pool": "token"},
    "SigLIP": {"backbone": "vit_base_patch16_siglip_224", "saliency": "pool_attention"},
}
"""Models that are not plain ViTs, by what they are: a map by cam, by cosine, a rollout, one from a pool."""


def other_model(name, seed=0, **fields):
    """One of `OTHERS` with random weights; two scales, five classes."""
    fields = OTHERS[name] | fields
    if "CNN" in name:
        torch.manual_seed(seed)
        return build_model(ModelConfig(num_classes=5, **fields)).eval()
    return tiny_model(seed, backbone_options={"embed_dim": 16}, **fields)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
