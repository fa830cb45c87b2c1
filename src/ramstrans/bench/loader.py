"""Whether the loader keeps up with the model: each alone, and both together."""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.table import Table

from ramstrans.bench.config import BenchConfig
from ramstrans.bench.machine import describe_machine
from ramstrans.bench.report import write_json
from ramstrans.bench.steps import NUM_STEPS
from ramstrans.bench.timing import Contestant, Spread, interleave, spread, waiter
from ramstrans.console import Progress, no_progress
from ramstrans.data.build import build_image_set, build_preprocessing
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.loading.loader import ImageLoader, build_loader
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.evaluation.predict import autocast, normalized, predict_split
from ramstrans.evaluation.run import with_labels_of
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.rams import build_model
from ramstrans.saved.model import load_into, load_metadata, load_state
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.run import Prepared
from ramstrans.training.setup import build_accelerator, build_dataset, use_fused_attention
from ramstrans.training.step import build_train_step

REACH = 0.95
"""Of the slower one's speed, what both together should reach."""

BACKBONE = "deit_tiny_patch16_224"
"""Of the model where no run is given; it has random weights."""

NUM_ROUNDS = 3

Use = Literal["evaluation", "training"]
SPLITS: dict[Use, Split] = {"evaluation": "test", "training": "train"}
"""What photographs are loaded for, and from which split."""


class LoaderResult(NamedTuple):
    """Images a second in one use of the loader.

    Attributes:
        use: `evaluation`: views from the centre, the model's answers; `training`: at random, and steps.
        num_images: In a pass of the loader.
        first_pass: Of the loader alone, from start-up on, which fills a cache that is on and empty.
        loader: Of the loader alone, in later passes.
        model: Of the model alone, from a batch in memory.
        together: Of both.
        share: Speed of both together, divided by the slower one's alone; over rounds.
    """

    use: Use
    num_images: int
    first_pass: float
    loader: Spread
    model: Spread
    together: Spread
    share: Spread

    @property
    def reached(self) -> bool:
        """Whether both together are as fast as they should be."""
        return self.share.median >= REACH

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain values, with what should be reached."""
        plain = {
            name: value._asdict() if isinstance(value, Spread) else value
            for name, value in self._asdict().items()
        }
        return plain | {"reach": REACH, "reached": self.reached}


def run_loader(
    config: BenchConfig,
    output: Path,
    device: torch.device,
    *,
    command: str = "",
    progress: Progress = no_progress,
) -> list[LoaderResult]:
    """Measure the loader of a data set for evaluation and for training; writes bench.json.

    Args:
        config: Which photographs, with all options of loading, and which model.
        output: The folder.
        device: Where the model computes.
        command: The line that started it, for bench.json.
        progress: Told (calls done, calls in all, what).

    Raises:
        RamsTransError: The data or the run cannot be used; the message says why.
    """
    prepared, num_rounds = prepare_loading(config, device, progress), config.repeats or NUM_ROUNDS
    total = len(SPLITS) * (2 + 3 * num_rounds)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total, "measuring the loader")

    results = [measure_use(use, prepared, device, num_rounds, tick) for use in SPLITS]
    options = json.loads(json.dumps(asdict(config), default=str))
    loader = [result.to_json() for result in results]
    write_json(output, describe_machine(device), command=command, options=options, loader=loader)
    return results


def prepare_loading(options: BenchConfig, device: torch.device, progress: Progress = no_progress) -> Prepared:
    """Data, model and preprocessing as for a training run, of few photographs."""
    images = build_image_set(options.data, progress)
    if options.run is None:
        model_config = ModelConfig(BACKBONE, num_classes=len(images.class_names))
        model = build_model(model_config)
        cfg = model.backbone.vit.pretrained_cfg
        preprocessing = build_preprocessing(
            options.data, model_config.input_size, model_config.zoom_source, cfg["mean"], cfg["std"]
        )
    else:
        metadata = load_metadata(options.run)
        model_config, preprocessing = metadata.model, metadata.preprocessing
        records = [with_labels_of(metadata, images, split) for split in SPLITS.values()]
        images = ImageSet(metadata.class_names, tuple(itertools.chain(*records)))
        model = build_model(model_config)
        load_into(model, load_state(options.run))
    recipe = TrainingConfig(
        batch_size=options.batch_size, precision=options.precision, optimizer="adamw", lr=1e-5
    )
    config = RunConfig(options.data, model_config, recipe, device=str(device))
    few = [thin(images.of_split(split), options.num_images) for split in SPLITS.values()]
    images = ImageSet(images.class_names, tuple(itertools.chain(*few)))
    return Prepared(config, images, model.to(device), preprocessing)


def thin(records: tuple[Record, ...], count: int) -> tuple[Record, ...]:
    """At most `count` records, evenly spread."""
    step = max(len(records) / count, 1)
    return tuple(records[int(index * step)] for index in range(min(count, len(records))))


def measure_use(
    use: Use, prepared: Prepared, device: torch.device, num_rounds: int, tick: Callable[[], None]
) -> LoaderResult:
    """Measure the loader in one use: a first pass, then loader, model and both in turn."""
    loader = loader_of(use, prepared, device)
    start = time.perf_counter()
    batch = exhausted(loader)
    first_pass = time.perf_counter() - start
    tick()
    contestants = CONTESTANTS[use](prepared, loader, batch, device)
    contestants["model"].run()
    tick()
    seconds = interleave(contestants, num_rounds, wait=waiter(device), tick=tick, warm_up=False)
    rates = {
        name: [contestant.num_images / taken for taken in seconds[name]]
        for name, contestant in contestants.items()
    }
    slower = map(min, rates["loader"], rates["model"])
    shares = [both / one for both, one in zip(rates["together"], slower, strict=True)]
    num_images = contestants["loader"].num_images
    alone, model, together = (spread(rates[name]) for name in ("loader", "model", "together"))
    return LoaderResult(use, num_images, num_images / first_pass, alone, model, together, spread(shares))


def loader_of(use: Use, prepared: Prepared, device: torch.device) -> ImageLoader:
    """A loader as `ramstrans evaluate` or `ramstrans train` builds it."""
    config = prepared.config
    return build_loader(
        build_dataset(config, prepared.images, prepared.preprocessing, SPLITS[use]),
        config.training.batch_size,
        shuffle=use == "training",
        with_high_res=config.model.zoom_source == "full" and config.model.num_scales > 1,
        num_workers=config.data.num_workers,
        pin_memory=device.type == "cuda",
    )


def exhausted(loader: ImageLoader) -> Batch:
    """Load everything; the first batch."""
    batches = iter(loader)
    first = next(batches)
    for _ in batches:
        pass
    return first


def evaluating(
    prepared: Prepared, loader: ImageLoader, batch: Batch, device: torch.device
) -> dict[str, Contestant]:
    """Loader, model, and both as in `predict_split`."""
    model, preprocessing = prepared.model.eval(), prepared.preprocessing
    precision = prepared.config.training.precision

    @torch.no_grad()
    def answer() -> None:
        images, high_res = normalized(batch, preprocessing, device)
        with autocast(device, precision):
            model(images, high_res, last_region=False).probabilities.cpu()

    together = partial(predict_split, model, loader, preprocessing, device, precision=precision)
    return _three(loader, Contestant(answer, len(batch.labels)), together)


def training(
    prepared: Prepared, loader: ImageLoader, batch: Batch, _device: torch.device
) -> dict[str, Contestant]:
    """Loader, training step, and both as in the training loop."""
    config, model = prepared.config, prepared.model.train()
    accelerator = build_accelerator(config, Path())
    model.backbone.use_fused_attention(use_fused_attention(config, accelerator))
    stepper = build_train_step(model, config.training, accelerator, NUM_STEPS)

    def epoch() -> None:
        for loaded in loader:
            stepper.step(loaded, prepared.preprocessing)

    step = partial(stepper.step, batch, prepared.preprocessing)
    return _three(loader, Contestant(step, len(batch.labels)), epoch)


def _three(loader: ImageLoader, model: Contestant, together: Callable[[], object]) -> dict[str, Contestant]:
    count = loader.batch_sampler.length
    alone = Contestant(partial(exhausted, loader), count)
    return {"loader": alone, "model": model, "together": Contestant(together, count)}


CONTESTANTS: dict[Use, Callable[[Prepared, ImageLoader, Batch, torch.device], dict[str, Contestant]]] = {
    "evaluation": evaluating,
    "training": training,
}
"""Who is measured in each use."""


def loader_table(results: Sequence[LoaderResult]) -> Table:
    """A row for each use."""
    table = Table("use", "images", title="Images a second, medians over rounds", title_justify="left")
    for heading in ("first pass", "loader", "model", "together", "/ slower", "reach", ""):
        table.add_column(heading, justify="right")
    for result in results:
        spreads = (result.loader, result.model, result.together)
        table.add_row(
            result.use,
            str(result.num_images),
            f"{result.first_pass:.1f}",
            *(f"{rate.median:.1f}" for rate in spreads),
            f"{result.share.median:.3f}",
            f">= {REACH}",
            "yes" if result.reached else "no",
        )
    return table
