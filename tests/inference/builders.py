"""A tiny model folder, and photographs."""

import numpy as np
import torch
from PIL import Image

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.build import build_model
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.saved.model import save_model

NAMES = ("Crow", "Müller's Wren", "Owl, barn", "Jay", "Kite", "Rook", "Swift")
TINY = {"depth": 2, "embed_dim": 24, "num_heads": 3}


def make_folder(folder, *, names=NAMES, preprocessing=None, seed=0, image_size=(48, 32), **options):
    """Save a random two-block ViT; its input is 48 x 32 pixels, cut from 53 x 37 of 61."""
    torch.manual_seed(seed)
    config = ModelConfig("vit_tiny_patch16_224", len(names), image_size, backbone_options=TINY, **options)
    model = build_model(config)
    for parameter in model.parameters():  # timm starts a head at zero: all classes alike
        torch.nn.init.normal_(parameter, std=0.3)
    metadata = ModelMetadata(config, tuple(names), preprocessing or Preprocessing(61, (53, 37)))
    save_model(folder, model.state_dict(), metadata)
    return folder


def draw(path, width, height, seed=0, **options):
    """Save a photograph of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path, **options)
    return path
