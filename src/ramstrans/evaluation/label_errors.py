"""Labels that a trained model has reason to doubt: confident learning.

With `p_ij` the probability that the model gives class j for image i, whose given label is `y_i`, the
threshold of a class is the model's mean confidence in it where it is given, and an image is confidently of
the likeliest class that reaches its threshold (Northcutt et al. 2021, equations 1 and 2,
https://arxiv.org/abs/1911.00068):

    t_j = mean of p_ij over the images with y_i = j
    c_i = argmax of p_ij over the classes j with p_ij >= t_j

A label is suspected where `c_i` is there and is not `y_i`: the off-diagonal of the confident joint. A class
that the model finds hard has a low threshold, so that its images are not doubted for being hard.

The paper wants predictions on images that the model did not see. On those that it was trained on, it
repeats what it was told, errors too: fewer are suspected there, and with less reason. The two kinds have
thresholds of their own.
"""

import dataclasses
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.findings import Finding
from ramstrans.data.build import build_image_set
from ramstrans.data.config import DataConfig
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.records import ImageSet, Split
from ramstrans.evaluation.evaluate import dataset_of
from ramstrans.evaluation.predict import Predictions, choose_precision, predict_split
from ramstrans.saved.model import load_model

_DRAWS = ("val_fraction", "test_fraction", "split_seed")
"""Fields of `DataConfig` that say which images are held out."""


class LabelIssue(NamedTuple):
    """One label that is probably wrong.

    Attributes:
        path: The image file.
        given: Name of the class it is labelled as.
        suspected: Name of the class that the model takes it for.
        confidence: Probability of `suspected`.
        given_confidence: Probability of `given`.
        is_seen: Whether the model was trained on this image, which makes the suspicion weaker.
    """

    path: Path
    given: str
    suspected: str
    confidence: float
    given_confidence: float
    is_seen: bool

    @property
    def margin(self) -> float:
        """By how much the model prefers the suspected class."""
        return self.confidence - self.given_confidence


class LabelIssues(NamedTuple):
    """What a model makes of the labels of a data set.

    Attributes:
        issues: Those of images that the model has not seen first, by falling margin.
        num_unseen: Readable images that the model was not trained on.
        num_seen: Readable images that it was trained on.
    """

    issues: list[LabelIssue]
    num_unseen: int
    num_seen: int

    def __str__(self) -> str:
        """One line: how many labels are suspected, of how many images.

        >>> str(LabelIssues([LabelIssue(Path("a.jpg"), "crow", "wren", 0.9, 0.1, False)], 7, 0))
        'the model doubts 1 of 7 labels that it has not seen'
        """
        num_seen = sum(suspicion.is_seen for suspicion in self.issues)
        unseen = f"{len(self.issues) - num_seen} of {self.num_unseen} labels that it has not seen"
        seen = f", and {num_seen} of {self.num_seen} that it was trained on and knows by heart"
        return f"the model doubts {unseen}" + (seen if self.num_seen else "")


def find_label_issues(
    folder: Path,
    config: DataConfig,
    *,
    unreadable: Container[Path] = (),
    batch_size: int = 32,
    device: str = "auto",
    precision: str | None = None,
    progress: Progress = no_progress,
) -> LabelIssues:
    """Predict every image of a data set, and name those whose label the model doubts.

    Args:
        folder: A run folder, or any model folder.
        config: The data. What is held out is drawn as in the model's training, where its folder says how, so
            that the images it was trained on are known.
        unreadable: Files to leave out.
        batch_size: Images at once.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `fp32`, `bf16` or `fp16`; None: as in training.
        progress: Told (done, total, what).

    Raises:
        RamsTransError: The folder, the data or the options cannot be used; the message says why.
    """
    model, metadata = load_model(folder, device)
    data = as_in_training(config, metadata.run_options("data"))
    images = _seen_or_not(build_image_set(data, progress), unreadable)
    precision = choose_precision(precision, metadata, model.device)
    has_region: list[LabelIssue] = []
    splits: tuple[Split, ...] = ("test", "train")
    for split in splits:
        if not images.of_split(split):
            continue
        dataset, _ = dataset_of(metadata, images, split, data, progress)
        loader = build_loader(dataset, batch_size, shuffle=False, with_high_res=metadata.model.needs_high_res)
        predictions, _ = predict_split(model, loader, precision=precision, progress=progress)
        has_region += issues(predictions, metadata.class_names, is_seen=split == "train")
    return LabelIssues(has_region, len(images.of_split("test")), len(images.of_split("train")))


def issues(
    predictions: Predictions, class_names: Sequence[str], *, is_seen: bool = False
) -> list[LabelIssue]:
    """The images whose label the predictions cast doubt on, by falling margin.

    Args:
        predictions: Of all images that share thresholds; the fused probabilities count.
        class_names: In label order.
        is_seen: Whether the model was trained on these images.
    """
    probabilities, labels = predictions.fused, predictions.labels
    confident = confident_classes(probabilities, labels)
    has_region = [
        LabelIssue(
            predictions.records[place].path,
            class_names[labels[place]],
            class_names[confident[place]],
            float(probabilities[place, confident[place]]),
            float(probabilities[place, labels[place]]),
            is_seen,
        )
        for place in np.flatnonzero((confident >= 0) & (confident != labels)).tolist()
    ]
    return sorted(has_region, key=lambda suspicion: -suspicion.margin)


def confident_classes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) int64, the class `c_i` that each image confidently is of, -1 for none; see the module.

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,) the given classes.

    >>> probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.85, 0.15]])
    >>> confident_classes(probabilities, np.array([0, 0, 1, 1]))  # thresholds 0.8 and 0.475
    array([ 0, -1,  1,  0])
    """
    thresholds = class_thresholds(probabilities, labels)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    return np.where(confident.max(axis=1) >= 0, confident.argmax(axis=1), -1)


def class_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C,) float64, the thresholds `t_j`; infinite for a class that is given to no image.

    Args:
        probabilities: (N, C) float32, rows sum to 1. Their sums are exact: equal ones reach their mean.
        labels: (N,) the given classes.
    """
    num_classes = probabilities.shape[1]
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    totals = np.bincount(labels, given, num_classes)
    counts = np.bincount(labels, minlength=num_classes)
    thresholds = np.full(num_classes, np.inf)
    np.divide(totals, counts, out=thresholds, where=counts > 0)
    return thresholds


def to_finding(suspicion: LabelIssue) -> Finding:
    """A suspicion as one finding of a check."""
    detail = (
        f"given '{suspicion.given}' ({suspicion.given_confidence:.0%}), "
        f"suspected '{suspicion.suspected}' ({suspicion.confidence:.0%})"
    )
    seen = "; the model was trained on it, which makes this weaker" if suspicion.is_seen else ""
    return Finding("suspected label", (suspicion.path,), detail + seen)


def as_in_training(config: DataConfig, trained_on: Mapping[str, Any]) -> DataConfig:
    """The data, with the held-out images drawn as in training; unreadable files do not stop it."""
    draws = {name: trained_on[name] for name in _DRAWS if name in trained_on}
    return dataclasses.replace(config, on_unreadable="stop", **draws)


def _seen_or_not(images: ImageSet, unreadable: Container[Path]) -> ImageSet:
    """The readable images, with validation and test as one: what the model was not trained on."""
    records = (record for record in images.records if record.path not in unreadable)
    held_out = (record._replace(split="test") if record.split == "val" else record for record in records)
    return images._replace(records=tuple(held_out))
