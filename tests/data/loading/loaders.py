"""Loaders of a few images, and comparisons of their batches."""

import torch

from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.loading.transforms import Augmentation
from ramstrans.data.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(31, (29, 23))
INPUT = (17, 19)


def dataset_of(records, **options):
    options = {"augmentation": Augmentation(color_jitter=0.3), "seed": 3} | options
    return ImageDataset(records, PREPROCESSING, INPUT, **options)


def loader_of(records, *, num_workers=0, **options):
    dataset = dataset_of(records, **options)
    return build_loader(
        dataset, 2, shuffle=True, with_high_res=True, seed=dataset.seed, num_workers=num_workers
    )


def epochs_of(loader, count=2):
    """All batches of the first epochs."""
    batches = []
    for epoch in range(count):
        loader.batch_sampler.epoch = epoch
        batches.append(list(loader))
    return batches


def same_example(first, second):
    return (
        torch.equal(first.view.image, second.view.image)
        and torch.equal(first.view.high_res, second.view.high_res)
        and first.view.geometry == second.view.geometry
        and first[1:] == second[1:]
    )


def same_batch(first, second):
    tensors = ("images", "high_res", "labels", "indices", "original_sizes")
    facts = ("geometries", "key", "weight")
    return all(getattr(first, name) == getattr(second, name) for name in facts) and all(
        torch.equal(getattr(first, name), getattr(second, name)) for name in tensors
    )
