"""A copy of a saved model with one more class, from a few photographs: see `imprint`."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ramstrans.console import Progress, no_progress
from ramstrans.data.records import Record
from ramstrans.errors import ConfigError, DataError, UnreadableImageError, UsageError
from ramstrans.evaluation.config import EvaluationData
from ramstrans.evaluation.images import data_config, dataset_of, read_drawn, spread
from ramstrans.inference.embeddings import features_of
from ramstrans.inference.imprint import Old, Row
from ramstrans.inference.predictor import Predictor
from ramstrans.models.encoder import Encoder
from ramstrans.plain import counted
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.saved.model import save_model

logger = logging.getLogger(__name__)

QUERIES_PER_CLASS = 10
"""Images of each old class, at most, on which length and bias of the new row are chosen."""


def check_new_class(predictor: Predictor, name: str) -> nn.Linear | nn.Conv2d:
    """The classifier of a model that may have one more class.

    Raises:
        UsageError: The model has the class, or images of it may have several labels.
        ConfigError: Its classifier is not a linear layer with a bias.
    """
    names = predictor.class_names
    if not name.strip():
        raise UsageError("the name of the new class is empty; give one")
    if name in names:
        raise UsageError(f"the model has a class '{name}' already; give the new one another name")
    if predictor.metadata.model.multi_label:
        raise UsageError("a class can be added to a model of which an image has one, and this is multi_label")
    head = predictor.model.encoder.get_classifier()
    if not isinstance(head, nn.Linear | nn.Conv2d) or head.bias is None:
        raise ConfigError(
            f"a class can be added where the classifier is one linear layer with a bias, and here it is a "
            f"{type(head).__name__}; train with the photographs instead"
        )
    return head


def photographs(predictor: Predictor, paths: Sequence[Path], batch_size: int = 32) -> np.ndarray:
    """(n, S, D) features of photographs.

    Raises:
        UnreadableImageError: One cannot be read.
    """
    found = []
    for path, features, error in features_of(predictor, paths, batch_size):
        if features is None:
            raise UnreadableImageError(str(path), f"{error}; repair it or leave it out")
        found.append(features.reshape(predictor.model.num_scales, -1))
    return np.stack(found)


def old_classes(
    predictor: Predictor, num_shots: int, batch_size: int = 32, progress: Progress = no_progress
) -> Old:
    """What is known of a model's own classes, from the images of its run.

    Raises:
        DataError: They cannot be read.
    """
    metadata, head = predictor.metadata, predictor.model.encoder.get_classifier()
    data = data_config(metadata.run_options("data"), EvaluationData())
    images = read_drawn(metadata, data, progress).images
    training = dataset_of(metadata, images, "train", data, progress)[0].records
    shots = spread(training, num_shots)
    if images.of_split("val"):
        others: Sequence[Record] = dataset_of(metadata, images, "val", data, progress)[0].records
    else:
        logger.warning("the run held out no validation images: the new class will be answered a little often")
        taken = set(shots)
        others = [record for record in training if record not in taken]
        if not others:
            raise DataError(
                f"the run held out no validation images, and has no training images but the {len(shots)} "
                "that the new class is compared with; give fewer photographs, or a run that held out some"
            )
    queries = spread(others, QUERIES_PER_CLASS)
    assert isinstance(head, nn.Linear | nn.Conv2d), "checked before"
    assert head.bias is not None, "checked before"
    parts = []
    for number, records in enumerate((shots, queries), start=1):
        parts += [photographs(predictor, [record.path for record in records], batch_size)]
        parts += [np.array([record.label for record in records])]
        progress(number, 2, "features of the old classes")
    weight, bias = head.weight.detach().flatten(1), head.bias.detach()
    return Old(weight.float().cpu().numpy(), bias.float().cpu().numpy(), *parts)


def save_with_class(
    predictor: Predictor, name: str, row: Row, num_images: int, output: Path
) -> ModelMetadata:
    """Write the model with one more row of its classifier; the given one stays as it is.

    What was fitted for its answers before, calibration and confidence of early exit, is not copied.

    Raises:
        OutputError: The folder cannot be written.
    """
    metadata = predictor.metadata
    names = (*metadata.class_names, name)
    added: list[dict[str, Any]] = [*metadata.training.get("added_classes", [])]
    added += [{"name": name, "num_images": num_images, "scale": row.scale}]
    metadata = dataclasses.replace(
        metadata,
        class_names=names,
        model=dataclasses.replace(metadata.model, num_classes=len(names)),
        training={**metadata.training, "added_classes": added},
        early_exit=None,
    )
    save_model(output, with_row(predictor.model.state_dict(), predictor.model.encoder, row), metadata)
    counts = counted(len(names), "class"), name, counted(num_images, "photograph")
    logger.info("%s: %s, the last one %s, from %s", output, *counts)
    return metadata


def with_row(state: dict[str, Tensor], encoder: Encoder, row: Row) -> dict[str, Tensor]:
    """The weights of a model with one more row of its classifier."""
    head = encoder.get_classifier()
    (prefix,) = (f"encoder.{name}." for name, module in encoder.named_modules() if module is head)
    weight, bias = state[f"{prefix}weight"], state[f"{prefix}bias"]
    new = torch.from_numpy(row.weight).to(weight).reshape(1, *weight.shape[1:])
    return state | {
        f"{prefix}weight": torch.cat([weight, new]),
        f"{prefix}bias": torch.cat([bias, bias.new_tensor([row.bias])]),
    }
