"""`ramstrans bench`."""

import dataclasses
import json
import logging
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands import train
from ramstrans.commands.configs import config_folder
from ramstrans.commands.options import Parser, takes_data
from ramstrans.console import progress_bar, results
from ramstrans.data.config import DataConfig
from ramstrans.errors import UsageError
from ramstrans.files import check_new_folder
from ramstrans.hub import local_folder
from ramstrans.options import Precision
from ramstrans.saved.metadata import load_metadata

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from ramstrans.bench.models import ModelSpec
    from ramstrans.console import Progress

logger = logging.getLogger(__name__)

NUM_CLASSES = 200
"""Number of classes if a config leaves it to its data set: that of CUB-200-2011."""

LOADER_DEFAULTS = {"run": None, "num_images": 256}


def add_options(parser: Parser) -> None:
    """Options of `bench`: models, or a data set with all options of loading it."""
    parser.add_argument(
        "--models",
        type=str,
        nargs="+",
        help="Models to compare with the first one: run folders, hf://user/name, config files, or "
        "configs that come along; or a run folder and its exports, on its test images.",
    )
    parser.add_argument(
        "--run", type=Path | None, help="With DATA: run folder of the model; default: DeiT-Tiny."
    )
    parser.add_argument(
        "--num_images",
        type=PositiveInt,
        default=256,
        help="With DATA: most images per split; or test images.",
    )
    parser.add_argument("--batch_size", type=PositiveInt, default=32, help="Images per batch.")
    parser.add_argument(
        "--precision",
        type=Precision | None,
        help="Default: as the first run was trained, else fp32. fp16 needs a GPU.",
    )
    parser.add_argument("--repeats", type=PositiveInt, default=5, help="Timed rounds.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
    parser.add_argument(
        "--output", type=Path | None, help="New folder for bench.json; default: bench-<date>."
    )
    takes_data(parser)
    parser.add_class_arguments(DataConfig, "data")


def run(options: Namespace, given: list[str]) -> int:
    """Compare models in accuracy, work and time; or measure whether a data set's loader keeps up with one."""
    check_options(options)
    output = options.output or Path(f"bench-{datetime.now().astimezone():%Y%m%d-%H%M%S}")
    check_new_folder(output)
    from ramstrans.bench.report import write_json
    from ramstrans.distributed import choose_device
    from ramstrans.evaluation.predict import choose_precision

    device, measure = choose_device(options.device), bench_loader
    if options.models:
        measure = bench_exports if has_exports(options.models) else bench_models
    names = [local_folder(name) for name in options.models or (options.run,) if name]
    runs = [name for name in names if name.is_dir()]
    first_run = load_metadata(runs[0]) if runs and measure != bench_exports else None
    options.precision = choose_precision(options.precision, first_run, device)
    with progress_bar() as progress:
        table, measured = measure(options, device, progress)
    path = write_json(output, device, {"command": shlex.join(["ramstrans", *given])} | measured)
    results().print(table)
    logger.info("results: %s", path)
    return 0


def check_options(options: Namespace) -> None:
    """Raise UsageError unless the options select one measurement and all of them have an effect."""
    if bool(options.models) == (options.data.root is not None):
        raise UsageError("give either --models, to compare them, or DATA, to measure its loader")
    for name, default in LOADER_DEFAULTS.items():
        is_read = name == "num_images" and has_exports(options.models or [])
        if options.models and options[name] != default and not is_read:
            raise UsageError(f"--{name} has no effect with --models; leave it out")


def has_exports(names: list[str]) -> bool:
    """Whether one of some models is a folder of `ramstrans export`."""
    from ramstrans.export.runner import format_of

    return any(format_of(Path(name)) for name in names)


def bench_models(
    options: Namespace, device: "torch.device", progress: "Progress"
) -> tuple["Table", dict[str, Any]]:
    """Compare models; return a table, and plain values."""
    from ramstrans.bench.models import measure_models, models_table

    how = {"batch_size": options.batch_size, "precision": options.precision, "num_rounds": options.repeats}
    specs = {name: spec_of(name) for name in options.models}
    found = measure_models(specs, device, **how, progress=progress)
    return models_table(found), {"options": how, "models": [result.to_json() for result in found]}


def bench_exports(
    options: Namespace, device: "torch.device", progress: "Progress"
) -> tuple["Table", dict[str, Any]]:
    """Compare run folders with their exports on test images; return a table, and plain values."""
    from ramstrans.export.side_by_side import exports_table, measure_exports

    how = {name: options[name] for name in ("batch_size", "precision", "num_images")}
    how |= {"num_rounds": options.repeats}
    found = measure_exports(options.models, device, **how, progress=progress)
    return exports_table(found), {"options": how, "exports": [result.to_json() for result in found]}


def bench_loader(
    options: Namespace, device: "torch.device", progress: "Progress"
) -> tuple["Table", dict[str, Any]]:
    """Measure a loader beside a model, for evaluation and training; return a table, and plain values."""
    from ramstrans.bench.loader import SPLITS, loader_table, measure_loader, prepare_loading

    data = DataConfig(**vars(options.data))
    how = {name: options[name] for name in ("batch_size", "precision", "num_images")}
    prepared = prepare_loading(data, options.run, device, **how, progress=progress)
    found = [
        measure_loader(use, prepared, device, num_rounds=options.repeats, progress=progress) for use in SPLITS
    ]
    how |= {"run": options.run, "repeats": options.repeats, "data": dataclasses.asdict(data)}
    return loader_table(found), {"options": how, "loader": [result.to_json() for result in found]}


def spec_of(name: str) -> "ModelSpec":
    """Describe the model of a run folder, with its accuracy if there is a report, or of a config.

    Raises:
        RamsTransError: Nothing has that name, or it cannot be read.
    """
    from ramstrans.bench.models import ModelSpec
    from ramstrans.data.build import build_preprocessing

    if (folder := local_folder(name)).is_dir():
        metadata, report = load_metadata(folder), folder / "report.json"
        top1 = json.loads(report.read_text())["fused"].get("top1") if report.is_file() else None
        return ModelSpec(dataclasses.replace(metadata.model, weights=None), metadata.preprocessing.crop, top1)
    if not Path(name).is_file() and not (config_folder() / f"{name}.yaml").is_file():
        raise UsageError(
            f"--models {name} does not exist; give run folders, exports of one behind it, YAML files, or "
            "names of configs that come along"
        )
    parser = Parser(prog="ramstrans bench --models")
    train.add_options(parser)
    config = train.run_config(parser.instantiate(parser.parse_args(["--config", name])))
    model = dataclasses.replace(
        config.model, num_classes=config.model.num_classes or NUM_CLASSES, weights=None
    )
    return ModelSpec(model, build_preprocessing(config.data, model.input_size, model.zoom_source).crop)
