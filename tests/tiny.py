"""The tiny model and run that the tests of several folders share."""

import numpy as np
import torch
import yaml

from ramstrans.data.config import DataConfig
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.build import build_model
from ramstrans.training.config import RunConfig, TrainingConfig

BACKBONE = "vit_tiny_patch16_224"
TINY = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def tiny_run(root, name="cub", *, data=None, model=None, training=None, **fields):
    """A run of 5 steps of 4 images, full-resolution zoom; validation on one image of each class."""
    return RunConfig(
        data=DataConfig(**{"name": name, "root": root, "val_fraction": 0.25} | (data or {})),
        model=ModelConfig(
            **{"backbone": BACKBONE, "backbone_options": TINY, "image_size": 24, "zoom_source": "full"}
            | (model or {})
        ),
        training=TrainingConfig(
            **{"max_steps": 5, "batch_size": 4, "lr": 0.003, "optimizer": "adamw", "warmup_steps": 2}
            | (training or {})
        ),
        **{"device": "cpu", **fields},
    )


def write_config(path, root, *, data=None, model=None, training=None):
    """Write the config file of a run on `root`, in CUB's format; returns its path."""
    config = {
        "data": {"name": "cub", "root": str(root), "val_fraction": 0.25} | (data or {}),
        "model": {"backbone": BACKBONE, "backbone_options": TINY, "image_size": 24} | (model or {}),
        "training": training or {},
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def tiny_model(num_classes=3, seed=0, **options):
    """An untrained model of two scales, 32 px."""
    torch.manual_seed(seed)
    fields = {"backbone": BACKBONE, "backbone_options": TINY, "image_size": 32, "num_classes": num_classes}
    return build_model(ModelConfig(**fields | options))


def same_state(first, second):
    """Whether two state dicts are equal to the last bit."""
    return first.keys() == second.keys() and all(
        np.array_equal(first[name].numpy(), second[name].numpy()) for name in first
    )
