"""`ramstrans bench`."""

import dataclasses
import shlex

from jsonargparse import Namespace

from ramstrans.bench.config import BenchConfig
from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar, results, say


def add_options(parser: Parser) -> None:
    """Options of `bench`: the fields of BenchConfig."""
    parser.add_argument("--cases", type=str, nargs="+", help="Names of cases; default: all.")
    parser.add_argument("--list", action="store_true", help="Say what the cases are, measure nothing.")
    parser.add_class_arguments(BenchConfig, as_group=False, skip={"cases"})


def run(options: Namespace, given: list[str]) -> int:
    """Time ours beside plain ViTs and a slow twin; with --data.root, the loader beside the model."""
    parser = Parser()
    add_options(parser)
    built = parser.instantiate(options)
    fields = {field.name: built[field.name] for field in dataclasses.fields(BenchConfig)}
    config = BenchConfig(**fields | {"cases": built.cases and tuple(built.cases)})
    if options.list:
        for name, case in config.selected.items():
            print(f"{name}: {case.describe()}")  # noqa: T201
        return 0
    from ramstrans.bench.command import default_output, run_bench

    output, console = config.output or default_output(), results()
    if not console.is_terminal:
        console.width = max(console.width, 130)  # the table whole, in a file
    with progress_bar() as progress:
        table = run_bench(config, output, command=shlex.join(["ramstrans", *given]), progress=progress)
    console.print(table)
    say(f"results: {output / 'bench.json'}")
    return 0
