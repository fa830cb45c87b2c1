"""Which format a data set has; quick, for it reads no image and imports no torch."""

from pathlib import Path

from ramstrans.data.config import DataConfig, DatasetFormat
from ramstrans.errors import ConfigError

MANIFEST = "shards.json"
"""File that lists the shards of `data shard`."""

SAVED_BY_DATASETS = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` of Hugging Face's `datasets` writes: for several splits, or for one."""

MARKER_FILES: dict[DatasetFormat, tuple[str, ...]] = {
    "shards": (MANIFEST,),
    "nabirds": ("hierarchy.txt", "nabirds/hierarchy.txt"),
    "cub": ("images.txt", "CUB_200_2011/images.txt"),
    "stanford_dogs": ("lists/train_list.mat", "train_list.mat", "stanford_dogs/lists/train_list.mat"),
    "stanford_cars": ("devkit/cars_meta.mat", "stanford_cars/devkit/cars_meta.mat"),
    "fgvc_aircraft": ("data/variants.txt", "fgvc-aircraft-2013b/data/variants.txt"),
    "flowers102": ("setid.mat", "flowers-102/setid.mat"),
    "oxford_pets": ("annotations/trainval.txt", "oxford-iiit-pet/annotations/trainval.txt"),
    "food101": ("meta/classes.txt", "food-101/meta/classes.txt"),
    "hugging_face": SAVED_BY_DATASETS,
}
"""Files that identify each format; if several match, the first one is meant."""


def check_root(config: DataConfig) -> None:
    """Raise ConfigError if a data set needs a root and has none."""
    if config.root is None and config.name != "toybirds":
        raise ConfigError(
            f"data.name is '{config.name}' but no --data.root was given; name its folder or file"
        )


def detect_format(root: Path) -> DatasetFormat:
    """Detect a data set's format: by a published set's lists, a file, or else folders of classes."""
    # here, because they import NumPy, which a command without data does not need
    from ramstrans.data.datasets.inaturalist import is_inaturalist
    from ramstrans.data.toybirds.generator import is_toybirds

    if is_toybirds(root):
        return "toybirds"
    for name, files in MARKER_FILES.items():
        if any((root / file).is_file() for file in files):
            return name
    if is_inaturalist(root):
        return "inaturalist"
    from ramstrans.data.datasets.table import TABLE_SUFFIXES  # it imports pandas

    return "table" if root.suffix.lower() in TABLE_SUFFIXES or root.is_file() else "folder"
