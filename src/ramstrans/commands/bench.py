"""`ramstrans bench`."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from ramstrans.arguments import completed
from ramstrans.bench.config import BenchConfig
from ramstrans.commands import train
from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar, results, say

if TYPE_CHECKING:
    from ramstrans.bench.models import Entrant


def add_options(parser: Parser) -> None:
    """Options of `bench`: the fields of BenchConfig."""
    parser.add_argument("--cases", type=str, nargs="+", help="Names of cases; default: all.")
    parser.add_argument("--list", type=bool, default=False, help="List the cases and exit.")
    parser.add_argument(
        "--models",
        type=str,
        nargs="+",
        help="Measure these side by side instead: configs that come along, config files, run folders.",
    )
    parser.add_class_arguments(BenchConfig, as_group=False, skip={"cases", "models"})


def run(options: Namespace, given: list[str]) -> int:
    """Time ours beside plain ViTs and a slow twin; or models side by side; or the loader beside the model."""
    parser = Parser()
    add_options(parser)
    built = parser.instantiate(options)
    fields = {field.name: built[field.name] for field in dataclasses.fields(BenchConfig)}
    names = {name: built[name] and tuple(built[name]) for name in ("cases", "models")}
    config = BenchConfig(**fields | names)
    if options.list:
        for name, case in config.selected.items():
            print(f"{name}: {case.describe()}")  # noqa: T201
        return 0
    from ramstrans.bench.command import default_output, run_bench

    entrants = {name: entrant_of(name) for name in config.models or ()}
    output, console = config.output or default_output(), results()
    with progress_bar() as progress:
        table = run_bench(
            config,
            output,
            entrants=entrants,
            command=shlex.join(["ramstrans", *given]),
            progress=progress,
        )
    console.print(table)
    say(f"results: {output / 'bench.json'}")
    return 0


def entrant_of(name: str) -> "Entrant":
    """What a run folder or a config says of its model.

    Raises:
        RamsTransError: There is none of that name, or it cannot be read.
    """
    from ramstrans.bench.models import Entrant
    from ramstrans.saved.model import load_metadata

    if Path(name).is_dir():
        metadata, report = load_metadata(Path(name)), Path(name) / "report.json"
        top1 = json.loads(report.read_text())["fused"]["top1"] if report.is_file() else None
        return Entrant(dataclasses.replace(metadata.model, weights=None), metadata.preprocessing.crop, top1)
    from ramstrans.bench.cases import NUM_CLASSES
    from ramstrans.data.build import build_preprocessing

    parser = Parser(prog="ramstrans bench --models")
    train.add_options(parser)
    line = completed(["plan", "--config", name])[1:]
    run = train.config_of(parser.instantiate(parser.parse_args(line)))
    num_classes = run.model.num_classes or NUM_CLASSES
    model = dataclasses.replace(run.model, num_classes=num_classes, weights=None)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Entrant(model, build_preprocessing(run.data, model.input_size, model.zoom_source, mean, std).crop)
