"""Measure whether a loader keeps up with a model: each alone, and both together."""

import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.table import Table

from ramstrans.bench.timing import Candidate, Quartiles, interleave, quartiles
from ramstrans.console import Progress, no_progress
from ramstrans.data.build import build_image_set, build_preprocessing
from ramstrans.data.config import DataConfig
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.loading.loader import ImageLoader, build_loader
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.distributed import autocast
from ramstrans.evaluation.images import with_labels_of
from ramstrans.evaluation.predict import predict_split
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.build import build_model
from ramstrans.options import Precision
from ramstrans.saved.model import load_model
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.setup import Prepared, build_accelerator
from ramstrans.training.step import build_train_step

BACKBONE = "deit_tiny_patch16_224"
"""Backbone of the model if no run is given; its weights are random."""

Use = Literal["evaluation", "training"]
SPLITS: dict[Use, Split] = {"evaluation": "test", "training": "train"}
"""The uses of images, and the split that each loads."""


class LoaderResult(NamedTuple):
    """Images per second in one use of a loader.

    Attributes:
        use: `evaluation`: centre views, predictions; `training`: random views, training steps.
        num_images: Images in a pass of the loader.
        first_pass: The loader alone from its start; fills an empty cache.
        loader: The loader alone, in later passes.
        model: The model alone, on a batch in memory.
        together: Both.
        share: Speed of both together divided by that of the slower one alone, over rounds.
    """

    use: Use
    num_images: int
    first_pass: float
    loader: Quartiles
    model: Quartiles
    together: Quartiles
    share: Quartiles

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        items = self._asdict().items()
        return {name: value._asdict() if isinstance(value, Quartiles) else value for name, value in items}


def prepare_loading(
    data: DataConfig,
    run: Path | None,
    device: torch.device,
    *,
    batch_size: int = 32,
    precision: Precision = "fp32",
    num_images: int = 256,
    progress: Progress = no_progress,
) -> Prepared:
    """Load data, model and preprocessing of a training run on a few images.

    Args:
        data: The images, and how they are loaded.
        run: Run folder of the model; None: DeiT-Tiny with two scales and random weights.
        device: Where the model computes.
        batch_size: Images per batch.
        precision: Autocast precision.
        num_images: Maximum number of images per split.
        progress: Called while the data set is read.

    Raises:
        RamsTransError: The data or the run cannot be used; the message says why.
    """
    images = build_image_set(data, progress)
    if run is None:
        model_config = ModelConfig(BACKBONE, num_classes=len(images.class_names))
        model = build_model(model_config).to(device)
        preprocessing = build_preprocessing(data, model_config.input_size, model_config.zoom_source)
    else:
        model, metadata = load_model(run, device)
        model_config, preprocessing = metadata.model, metadata.preprocessing
        records = [with_labels_of(metadata, images, split) for split in SPLITS.values()]
        images = ImageSet(metadata.class_names, tuple(itertools.chain(*records)))
    recipe = TrainingConfig(batch_size=batch_size, precision=precision, optimizer="adamw", lr=1e-5)
    few = [subsample(images.of_split(split), num_images) for split in SPLITS.values()]
    return Prepared(
        RunConfig(data, model_config, recipe, device=str(device)),
        ImageSet(images.class_names, tuple(itertools.chain(*few))),
        model,
        preprocessing,
    )


def subsample(records: tuple[Record, ...], count: int) -> tuple[Record, ...]:
    """Return at most `count` records, evenly spread."""
    step = max(len(records) / count, 1)
    return tuple(records[int(index * step)] for index in range(min(count, len(records))))


def measure_loader(
    use: Use,
    prepared: Prepared,
    device: torch.device,
    *,
    num_rounds: int = 3,
    progress: Progress = no_progress,
) -> LoaderResult:
    """Time a first pass of the loader, then loader, model and both in turn."""
    loader = loader_of(use, prepared, device)
    start = time.perf_counter()
    batch = drain(loader)
    first_pass = time.perf_counter() - start
    candidates = candidates_of(use, prepared, loader, batch, device)
    candidates["model"].run()  # warm up
    seconds = interleave(candidates, num_rounds, device, warm_up=False, progress=progress)
    rates = {name: [one.num_images / taken for taken in seconds[name]] for name, one in candidates.items()}
    slower = map(min, rates["loader"], rates["model"])
    shares = [both / alone for both, alone in zip(rates["together"], slower, strict=True)]
    num_images = candidates["loader"].num_images
    speeds = {name: quartiles(rate) for name, rate in rates.items()}
    return LoaderResult(use, num_images, num_images / first_pass, **speeds, share=quartiles(shares))


def loader_of(use: Use, prepared: Prepared, device: torch.device) -> ImageLoader:
    """Build a loader as `ramstrans evaluate` or `ramstrans train` does."""
    config = prepared.config
    return build_loader(
        prepared.dataset(SPLITS[use]),
        config.training.batch_size,
        shuffle=use == "training",
        with_high_res=config.model.needs_high_res,
        num_workers=config.data.num_workers,
        pin_memory=device.type == "cuda",
    )


def drain(loader: ImageLoader) -> Batch:
    """Load all batches; return the first."""
    batches = iter(loader)
    first = next(batches)
    for _ in batches:
        pass
    return first


def candidates_of(
    use: Use, prepared: Prepared, loader: ImageLoader, batch: Batch, device: torch.device
) -> dict[str, Candidate]:
    """Build candidates for the loader, the model, and both, as in `predict_split` or in the training loop."""
    config, model = prepared.config, prepared.model
    model.train(use == "training")
    if use == "evaluation":
        precision = config.training.precision

        @torch.no_grad()
        def predict() -> None:
            images, high_res = model.normalize(batch.images, batch.high_res)
            with autocast(device, precision):
                model(images, high_res, last_region=False, boxes=batch.boxes).probabilities.cpu()

        together = partial(predict_split, model, loader, precision=precision)
        return _three(loader, Candidate(predict, len(batch.labels)), together)
    accelerator = build_accelerator(config, Path())
    step = build_train_step(model, config.training, accelerator, total_steps=1_000_000)

    def epoch() -> None:
        for loaded in loader:
            step.run(loaded)

    return _three(loader, Candidate(partial(step.run, batch), len(batch.labels)), epoch)


def _three(loader: ImageLoader, model: Candidate, together: Callable[[], object]) -> dict[str, Candidate]:
    count = loader.batch_sampler.length
    alone = Candidate(partial(drain, loader), count)
    return {"loader": alone, "model": model, "together": Candidate(together, count)}


def loader_table(results: Sequence[LoaderResult]) -> Table:
    """Make a row per use."""
    table = Table("use", "images", title="Images per second, medians over rounds", title_justify="left")
    for heading in ("first pass", "loader", "model", "together", "/ slower"):
        table.add_column(heading, justify="right")
    for result in results:
        rates = (result.first_pass, *(rate.median for rate in (result.loader, result.model, result.together)))
        cells = (f"{rate:.1f}" for rate in rates)
        table.add_row(result.use, str(result.num_images), *cells, f"{result.share.median:.3f}")
    return table
