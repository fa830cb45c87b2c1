"""Data sets of the library `datasets`, as it saves them."""

import pytest
from PIL import Image

from tests.data.fakes.blocks import NUM_TEST, NUM_TRAIN

CLASSES = ("wren", "crow", "tit")


def make_hugging_face(root, **changes):
    """A `DatasetDict` with images inside; `changes` are columns of its training images, by name."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    splits = {}
    for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        labels = [index % len(CLASSES) for index in range(len(CLASSES) * count)]
        images = [Image.new("RGB", (7, 5), (11 * index, count, 0)) for index in range(len(labels))]
        columns = {"image": images, "label": labels} | (changes if split == "train" else {})
        splits[split] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return root


def quiet_library(tmp_path, monkeypatch):
    """The library, without the hub, and with its cache among the test's own files; skips without it."""
    datasets = pytest.importorskip("datasets", reason="pip install datasets")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets
