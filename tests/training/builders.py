"""Tiny runs, models and loaders."""

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ramstrans.data.config import DataConfig
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading.cache import MemoryCache
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.rams import build_model
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.log import MetricsLog

BACKBONE = "vit_tiny_patch16_224"
TINY = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
PREPROCESSING = Preprocessing(36, (32, 32))


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


def tiny_model(num_classes=3, seed=0, **options):
    """An untrained model of two scales, 32 px."""
    torch.manual_seed(seed)
    fields = {"backbone": BACKBONE, "backbone_options": TINY, "image_size": 32, "num_classes": num_classes}
    return build_model(ModelConfig(**fields | options))


def tiny_loader(records, *, shuffle=True, batch_size=4, seed=0, **options):
    """Views of 32 px, decoded once."""
    dataset = ImageDataset(records, PREPROCESSING, (32, 32), seed=seed, cache=MemoryCache(), **options)
    return build_loader(dataset, batch_size, shuffle=shuffle, with_high_res=False, seed=seed)


def metrics_log(folder):
    """A log in a folder, and its accelerator."""
    AcceleratorState._reset_state(reset_partial_state=True)  # of another test's precision
    accelerator = Accelerator(cpu=True)
    return MetricsLog(folder / "metrics.jsonl", accelerator), accelerator


def same_state(first, second):
    """Whether two state dicts are equal to the last bit."""
    return first.keys() == second.keys() and all(
        np.array_equal(first[name].numpy(), second[name].numpy()) for name in first
    )
