"""Linear probe: the features of the frozen backbone are computed once, and the head is fitted to convergence.

With everything frozen but the head, no region depends on what is trained: the features of all scales are
those of the pretrained backbone, and training is multinomial logistic regression, a convex problem that
L-BFGS solves (https://doi.org/10.1007/BF01589116). Its objective is

    1/N * sum over images i of  w[y_i] * sum over scales s of  v_s * CE(W f_is + b, y_i)   +   l2 / 2 * |W|^2

with class weights w, loss weights v scaled to sum 1, and features f standardised over the training images,
which is folded into W and b in the end. The head is shared between the scales, and so is the fit.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from ramstrans.console import Progress, no_progress
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import ImageLoader
from ramstrans.data.reading.cache import read_keyed, software, write_keyed
from ramstrans.data.reading.tars import file_status
from ramstrans.distributed import autocast, from_first_process
from ramstrans.errors import TrainingError
from ramstrans.evaluation.predict import in_order
from ramstrans.models.methods.method import Method
from ramstrans.saved.model import weights_digest
from ramstrans.training.config import RunConfig
from ramstrans.training.log import MetricsLog
from ramstrans.training.loop import TrainResult
from ramstrans.training.losses import balanced_class_weights
from ramstrans.training.memory import out_of_memory_errors
from ramstrans.training.setup import Prepared
from ramstrans.training.trainable import merged_state_dict
from ramstrans.training.validation import choice_warnings, describe, rank, validation_row

STRENGTHS = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
"""Values of l2 that are tried, strongest first: each fit starts from the one before."""
DEFAULT_STRENGTH = 0.01
"""The value of l2 without validation images."""
MAX_ITERATIONS = 1000
TOLERANCE = 1e-6
"""Largest entry of the gradient at which a fit has converged."""
VERSION = 1
"""Of the files of features."""

logger = logging.getLogger(__name__)


class Features(NamedTuple):
    """What the head sees of N images in S scales.

    Attributes:
        values: (N, S, D) float32.
        labels: (N,) int64.
    """

    values: Tensor
    labels: Tensor


class Fit(NamedTuple):
    """A fitted head.

    Attributes:
        weight: (C, D), for features that are not standardised.
        bias: (C,).
        loss: The objective at its minimum, without the regularisation.
        iterations: Of L-BFGS.
        has_converged: Whether the gradient is as small as `TOLERANCE`.
    """

    weight: Tensor
    bias: Tensor
    loss: float
    iterations: int
    has_converged: bool


@dataclass
class LinearProbe:
    """A linear probe under way.

    Attributes:
        prepared: The run; the head of its model is replaced.
        folder: Where features are kept.
        accelerator: Devices and processes.
        log: Where rows go.
    """

    prepared: Prepared
    folder: Path
    accelerator: Accelerator
    log: MetricsLog

    def run(self, progress: Progress = no_progress) -> TrainResult:
        """Compute the features, or read them; fit the head for each strength, and keep the best.

        Args:
            progress: Called after each batch of images and each fit.

        Raises:
            TrainingError: Memory ran out, or a feature is not finite.
            OutputError: The features cannot be written.
        """
        start = time.perf_counter()
        self.log.cut(0)
        model, num_views = self.prepared.model, self.prepared.config.training.probe_views
        model.to(self.accelerator.device).eval()
        train_set, val_set = (self.prepared.dataset(split) for split in ("train", "val"))
        with out_of_memory_errors():
            views = [self.features(train_set, view, progress) for view in range(num_views)]
            train = Features(*(torch.cat(tensors) for tensors in zip(*views, strict=True)))
            val = self.features(val_set, 0, progress) if len(val_set) else None
            strength, fit, scores = self.choose(train, val, progress)
        model.encoder.get_classifier().load_state_dict({"weight": fit.weight, "bias": fit.bias})
        warnings = []
        if scores:
            chosen, otherwise = f"l2 {strength:g}", f"l2 {DEFAULT_STRENGTH:g} is taken"
            warnings = choice_warnings(chosen, scores["top1_fused"], len(val_set), otherwise)
        return TrainResult(
            weights=merged_state_dict(model),
            epoch=num_views,
            chosen_on="validation" if scores else "default l2",
            steps=fit.iterations,
            num_skipped=0,
            seconds=round(time.perf_counter() - start, 1),
            l2=strength,
            warnings=tuple(warnings),
        )

    def features(self, dataset: ImageDataset, view: int, progress: Progress) -> Features:
        """The features of one view of every image, from the folder if they are there; 0: the centre view."""
        if view == 0:
            dataset = dataclasses.replace(dataset, augmentation=None)
        model, config, split = self.prepared.model, self.prepared.config, dataset.records[0].split
        key = features_key(model, config, dataset, view)
        path = self.folder / f"{split}-{view}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
        found = from_first_process(lambda: read_keyed(path, key, "features"))
        if found is None:
            loader = self.prepared.loader(dataset)
            loader.batch_sampler.epoch = view
            what = f"features of {split} images, view {view + 1}"
            found = [compute_features(model, loader, config.training.precision, what, progress)]
            hint = "give another --training.probe_cache"
            from_first_process(partial(write_keyed, path, key, hint, features=found[0]))
        if not found[0].isfinite().all():
            raise TrainingError("a feature is NaN or infinite; use training.precision fp32 or other weights")
        return Features(found[0], torch.tensor([record.label for record in dataset.records]))

    def choose(
        self, train: Features, val: Features | None, progress: Progress
    ) -> tuple[float, Fit, dict[str, Any]]:
        """Fit the head for each strength; return the best on `val`, its fit and its scores, {} without."""
        best: tuple[float, Fit, dict[str, Any]] | None = None
        strengths = (DEFAULT_STRENGTH,) if val is None else STRENGTHS
        for number, (l2, fit) in enumerate(self.fits(train, strengths), start=1):
            row = {"kind": "probe", "step": number, "l2": l2, "loss": fit.loss, "iterations": fit.iterations}
            line = f"l2 {l2:g}: loss {fit.loss:.3f}, {fit.iterations} iterations"
            scores: dict[str, Any] = {}
            if val is not None:
                scores = validation_row(predict(val, fit), val.labels.numpy())
                scores["is_best"] = best is None or rank(scores) > rank(best[2])
                line += f", {describe(scores)}" + ", best so far" * scores["is_best"]
            if best is None or scores["is_best"]:
                best = l2, fit, scores
            self.log.write(row | scores, number)
            logger.info(line)
            progress(number, len(strengths), "fits of the head")
        assert best is not None, "there is a strength"
        return best

    def fits(self, train: Features, strengths: Sequence[float]) -> Iterator[tuple[float, Fit]]:
        """Yield the head at the optimum for one strength after the other, each from the one before."""
        training, model, fit = self.prepared.config.training, self.prepared.model, None
        num_classes = model.encoder.num_classes
        class_weights = torch.ones(num_classes)
        if training.class_weights == "balanced":
            class_weights = balanced_class_weights(train.labels, num_classes)
        for l2 in strengths:
            fit = fit_head(
                train,
                l2,
                torch.tensor((training.loss_weights or (1.0,) * model.num_scales)[: model.num_scales]),
                class_weights,
                label_smoothing=training.label_smoothing,
                device=self.accelerator.device,
                start=None if fit is None else (fit.weight, fit.bias),
            )
            if not fit.has_converged:
                logger.warning("l2 %g: not converged after %d iterations", l2, fit.iterations)
            yield l2, fit


@torch.no_grad()
def compute_features(
    model: Method, loader: ImageLoader, precision: str, what: str, progress: Progress
) -> Tensor:
    """(N, S, D) float32, what the head sees of each image in each scale, in order of the images.

    Several processes share the batches, and each gets the features of all images.

    Args:
        model: In eval mode, on its device.
        loader: Over N images, in order.
        precision: Of autocast.
        what: What is computed, for `progress`.
        progress: Called after each batch.
    """
    gathered: list[tuple[np.ndarray, ...]] = []
    for done, batch in enumerate(loader, start=1):
        images, high_res = model.normalize(batch.images, batch.high_res)
        with autocast(model.device, precision):
            stages = model.stages(images, high_res, last_region=False, boxes=batch.boxes)
            scales = [stage.feature for stage in stages]
        values = torch.stack(scales, dim=1).float().cpu().numpy()
        gathered.append((batch.indices.numpy(), values))
        progress(done, len(loader), what)
    return torch.from_numpy(in_order(gathered, (0, 0))[0])


def features_key(model: Method, config: RunConfig, dataset: ImageDataset, view: int) -> str:
    """All that the features of a view depend on, as JSON: weights, preprocessing, images, augmentation."""
    head = {id(tensor) for tensor in model.encoder.get_classifier().state_dict(keep_vars=True).values()}
    state = model.state_dict(keep_vars=True)
    weights = weights_digest({name: tensor for name, tensor in state.items() if id(tensor) not in head})
    images = hashlib.sha256()
    for record in dataset.records:
        status = file_status(record.path)
        images.update(str(record.path.absolute()).encode(errors="surrogateescape"))
        images.update(f" {status.st_size} {status.st_mtime_ns}\n".encode())
        if config.model.region_placement == "given":
            images.update(f"{record.box}\n".encode())
    model_config = dataclasses.replace(config.model, num_classes=None, weights=None)
    augmented = dataset.augmentation and [dataclasses.asdict(dataset.augmentation), dataset.seed, view]
    parts = {
        "weights": weights,
        "model": dataclasses.asdict(model_config),
        "preprocessing": dataclasses.asdict(dataset.preprocessing),
        "augmentation": augmented,
        "images": images.hexdigest(),
        "precision": config.training.precision,
        "software": [VERSION, *software()],
    }
    return json.dumps(parts)


def fit_head(
    train: Features,
    l2: float,
    scale_weights: Tensor,
    class_weights: Tensor,
    *,
    label_smoothing: float = 0.0,
    device: torch.device,
    start: tuple[Tensor, Tensor] | None = None,
) -> Fit:
    """Minimise the objective at the top of this file.

    Args:
        train: Features of N images in S scales.
        l2: Strength of the regularisation, above 0.
        scale_weights: (S,), 0 or more; scaled to sum 1.
        class_weights: (C,), factor on the loss of each image by its class.
        label_smoothing: In [0, 1).
        device: Where to compute, in float64 if the device has it.
        start: `(weight, bias)` to start from; None: zeros.
    """
    dtype = torch.float32 if device.type == "mps" else torch.float64
    num_classes, num_scales = len(class_weights), len(scale_weights)
    values, labels = train.values.to(device, dtype), train.labels.to(device)
    mean, std = values.mean(dim=(0, 1)), values.std(dim=(0, 1), correction=0).clamp(min=1e-6)
    values = ((values - mean) / std).flatten(0, 1)
    each = labels.repeat_interleave(num_scales)
    scale_weights = (scale_weights / scale_weights.sum()).to(device, dtype)
    shares = torch.outer(class_weights.to(device, dtype)[labels] / len(labels), scale_weights).flatten()
    weight = torch.zeros(num_classes, values.shape[1], device=device, dtype=dtype)
    bias = torch.zeros(num_classes, device=device, dtype=dtype)
    if start is not None:
        weight = start[0] * std
        bias = start[1] + start[0] @ mean
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=MAX_ITERATIONS,
        max_eval=10 * MAX_ITERATIONS,
        tolerance_grad=TOLERANCE,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        logits = F.linear(values, weight, bias)
        return shares @ F.cross_entropy(logits, each, label_smoothing=label_smoothing, reduction="none")

    def closure() -> float:
        optimizer.zero_grad()
        objective = loss() + l2 / 2 * weight.square().sum()
        objective.backward()  # type: ignore[no-untyped-call]
        return float(objective.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    iterations = optimizer.state[weight]["n_iter"]
    with torch.no_grad():
        plain = weight / std
        return Fit(plain, bias - plain @ mean, float(loss()), iterations, iterations < MAX_ITERATIONS)


def predict(features: Features, fit: Fit) -> np.ndarray:
    """(S, N, C) float32, the probabilities of each scale, see `Predictions`."""
    values = features.values.to(fit.weight.device, fit.weight.dtype)
    logits = F.linear(values, fit.weight, fit.bias)
    return logits.softmax(dim=-1).transpose(0, 1).float().cpu().numpy()
