"""`ramstrans train`."""

import dataclasses
import shlex

from jsonargparse import Namespace

from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar, results, say
from ramstrans.training.config import RunConfig


def add_options(parser: Parser) -> None:
    """Options of `train`: the fields of RunConfig."""
    parser.add_argument(
        "--config", action="config", help="YAML file of these options, or the name of one that comes along."
    )
    parser.add_class_arguments(RunConfig, as_group=False)
    parser.add_argument(
        "--dry-run", action="store_true", help="Check everything, train nothing, make no run folder."
    )


def run(options: Namespace, given: list[str]) -> int:
    """Train on a set of photographs, judge on its test split, report."""
    parser = Parser()
    add_options(parser)
    built = parser.instantiate(options)
    config = RunConfig(**{field.name: built[field.name] for field in dataclasses.fields(RunConfig)})
    from ramstrans.evaluation.report import print_report
    from ramstrans.training.run import default_output, prepare
    from ramstrans.training.run import train as train_run

    with progress_bar() as progress:
        prepared = prepare(config, say, progress)
    output = config.output or default_output(prepared.config)
    if options.dry_run:
        say(f"dry run: everything fits, nothing was trained; a run would be written to {output}")
        return 0
    with progress_bar() as progress:
        report = train_run(prepared, output, command=shlex.join(["ramstrans", *given]), progress=progress)
    print_report(report, results())
    say(f"report: {output / 'report.md'}")
    return 0
