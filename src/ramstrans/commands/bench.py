"""`ramstrans bench`."""

import dataclasses
import json
import logging
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands import train
from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar, results
from ramstrans.files import check_new_folder

if TYPE_CHECKING:
    from ramstrans.bench.models import ModelSpec

logger = logging.getLogger(__name__)

NUM_CLASSES = 200
"""Number of classes if a config leaves it to its data set: that of CUB-200-2011."""


def add_options(parser: Parser) -> None:
    """Options of `bench`."""
    parser.add_argument(
        "--models",
        type=str,
        nargs="+",
        required=True,
        help="Models to compare with the first one: run folders, config files, or configs that come along.",
    )
    parser.add_argument("--batch_size", type=PositiveInt, default=32, help="Images per batch.")
    parser.add_argument(
        "--precision", type=Literal["fp32", "bf16"], default="fp32", help="Autocast precision."
    )
    parser.add_argument("--repeats", type=PositiveInt, default=5, help="Timed rounds.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
    parser.add_argument(
        "--output", type=Path | None, help="New folder for bench.json; default: bench-<date>."
    )


def run(options: Namespace, given: list[str]) -> int:
    """Compare models in accuracy, work and time."""
    output = options.output or Path(f"bench-{datetime.now().astimezone():%Y%m%d-%H%M%S}")
    check_new_folder(output)
    from ramstrans.bench.models import measure_models, models_table
    from ramstrans.bench.report import write_json
    from ramstrans.distributed import choose_device

    device = choose_device(options.device)
    how = {"batch_size": options.batch_size, "precision": options.precision, "num_rounds": options.repeats}
    specs = {name: spec_of(name) for name in options.models}
    with progress_bar() as progress:
        found = measure_models(specs, device, **how, progress=progress)
    measured = {"options": how, "models": [result.to_json() for result in found]}
    path = write_json(output, device, {"command": shlex.join(["ramstrans", *given])} | measured)
    results().print(models_table(found))
    logger.info("results: %s", path)
    return 0


def spec_of(name: str) -> "ModelSpec":
    """Describe the model of a run folder, with its accuracy if there is a report, or of a config.

    Raises:
        RamsTransError: Nothing has that name, or it cannot be read.
    """
    from ramstrans.bench.models import ModelSpec
    from ramstrans.data.build import build_preprocessing
    from ramstrans.saved.model import load_metadata

    if Path(name).is_dir():
        metadata, report = load_metadata(Path(name)), Path(name) / "report.json"
        top1 = json.loads(report.read_text())["fused"]["top1"] if report.is_file() else None
        return ModelSpec(dataclasses.replace(metadata.model, weights=None), metadata.preprocessing.crop, top1)
    parser = Parser(prog="ramstrans bench --models")
    train.add_options(parser)
    config = train.run_config(parser.instantiate(parser.parse_args(["--config", name])))
    model = dataclasses.replace(
        config.model, num_classes=config.model.num_classes or NUM_CLASSES, weights=None
    )
    return ModelSpec(model, build_preprocessing(config.data, model.input_size, model.zoom_source).crop)
