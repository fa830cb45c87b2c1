"""Run a trained model over a whole data set to find label issues, see `ramstrans.data.audit.label_issues`."""

import dataclasses
import logging
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.findings import Finding
from ramstrans.data.audit.label_issues import label_issues
from ramstrans.data.build import draw_splits, read_image_set
from ramstrans.data.config import DataConfig
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.records import Split
from ramstrans.evaluation.images import dataset_of, is_same_root
from ramstrans.evaluation.predict import choose_precision, predict_split
from ramstrans.saved.model import load_model

logger = logging.getLogger(__name__)

_SPLIT_FIELDS = ("val_fraction", "test_fraction", "split_seed")
"""Fields of `DataConfig` that determine which images are held out."""

_GROUP_FIELDS = ("group_column", "group_level", "group_day", "folds", "fold", "hold_out_classes")
"""The same, but they fit the run's own data set only."""


def find_label_issues(
    folder: Path,
    config: DataConfig,
    *,
    unreadable: Container[Path] = (),
    batch_size: int = 32,
    device: str = "auto",
    precision: str | None = None,
    progress: Progress = no_progress,
) -> list[Finding]:
    """Predict every image of a data set, and find labels that the model contradicts, on unseen images first.

    If the folder, a run's or any saved model's, records how its run held out images, they are held out the
    same way, so that the images the model was trained on are known. Files in `unreadable` are left out.
    Device and precision are those of `EvaluationConfig`.

    Raises:
        RamsTransError: The folder, the data or the options cannot be used; the message says why.
    """
    model, metadata = load_model(folder, device)
    data = as_in_training(config, metadata.run_options("data"))
    images = draw_splits(read_image_set(data, progress), data)
    unseen: Split = "test"  # validation images too
    records = (
        record if record.split == "train" else record._replace(split=unseen)
        for record in images.records
        if record.path not in unreadable
    )
    images = images._replace(records=tuple(records))
    precision = choose_precision(precision, metadata, model.device)
    found: list[Finding] = []
    for split in (unseen, "train"):
        if not images.of_split(split):
            continue
        dataset, _ = dataset_of(metadata, images, split, data, progress)
        loader = build_loader(dataset, batch_size, shuffle=False, with_high_res=model.needs_high_res)
        predictions = predict_split(model, loader, precision=precision, progress=progress)
        issues = label_issues(
            predictions.fused,
            predictions.labels,
            [record.path for record in predictions.records],
            metadata.class_names,
            is_seen=split == "train",
        )
        found += issues
        logger.info(
            "the model contradicts %d of %d labels of images that it was %strained on",
            len(issues),
            len(predictions.records),
            "" if split == "train" else "not ",
        )
    return found


def as_in_training(config: DataConfig, trained_on: Mapping[str, Any]) -> DataConfig:
    """The data with images held out as in training; unreadable files do not stop it."""
    names: tuple[str, ...] = _SPLIT_FIELDS
    if config.root is not None and is_same_root(config.root, trained_on):
        names += _GROUP_FIELDS
    fields = {name: trained_on[name] for name in names if name in trained_on}
    return dataclasses.replace(config, on_unreadable="stop", **fields)
