"""Data sets: formats, decoding, augmentation, batches.

The readers are public: each takes the data set's folder or file and returns an `ImageSet` of `Record`s.

>>> from ramstrans.data import ImageSet, Record, read_image_folder

Public names are loaded when first used; importing a reader does not import torch.
"""

from importlib import import_module
from typing import Any

_READERS = {
    "read_cub": "cub",
    "read_fgvc_aircraft": "fgvc_aircraft",
    "read_flowers102": "flowers102",
    "read_food101": "food101",
    "read_hugging_face": "hugging_face",
    "read_image_folder": "image_folder",
    "read_inaturalist": "inaturalist",
    "read_nabirds": "nabirds",
    "read_oxford_pets": "oxford_pets",
    "read_stanford_cars": "stanford_cars",
    "read_stanford_dogs": "stanford_dogs",
    "read_table": "table",
}

_PUBLIC = {
    "ImageSet": "records",
    "Part": "records",
    "Record": "records",
    "read_shards": "sharding.manifest",
    **{name: f"datasets.{module}" for name, module in _READERS.items()},
}

__all__ = [*_PUBLIC]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    """Load a public name from its module."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ramstrans.data' has no attribute '{name}'")
    return getattr(import_module(f"ramstrans.data.{_PUBLIC[name]}"), name)
