"""`ramstrans train`."""

import dataclasses
import shlex
from pathlib import Path

from jsonargparse import Namespace

from ramstrans.commands.options import Parser
from ramstrans.console import is_first_process, progress_bar, results, say
from ramstrans.errors import UsageError
from ramstrans.training.config import RunConfig

MAY_CHANGE = (
    "data.root",
    "data.num_workers",
    "data.read_timeout",
    "data.read_retries",
    "data.cache",
    "data.cache_dir",
    "device",
    "output",
    "overwrite",
)
"""Options that a resumed run may be given anew: where things are and how they are read, not what is computed.

The last two are not for its user: the run's own folder is the output.
"""


def add_options(parser: Parser) -> None:
    """Options of `train`: the fields of RunConfig."""
    parser.add_argument(
        "--config", action="config", help="YAML file of these options, or the name of one that comes along."
    )
    parser.add_class_arguments(RunConfig, as_group=False)
    parser.add_argument(
        "--resume",
        type=Path | None,
        help="Folder of a run that was stopped, to go on with from its newest checkpoint. Beside it go only "
        "options that say where things are: --data.root, --data.cache, --data.num_workers, --device.",
    )
    parser.add_argument(
        "--dry_run", type=bool, default=False, help="Check data, model and options, and exit."
    )


def run(options: Namespace, given: list[str]) -> int:
    """Train on a set of photographs, judge on its test split, report."""
    parser = Parser()
    add_options(parser)
    config = config_of(parser.instantiate(options))
    resumes = options.resume is not None
    if resumes:
        check_unchanged(
            config, config_of(parser.instantiate(parser.parse_args([f"--config={options.config[0]}"])))
        )
        config = dataclasses.replace(config, output=options.resume, overwrite=False)
    from ramstrans.evaluation.report.build import print_report
    from ramstrans.training.run import prepare
    from ramstrans.training.run import train as train_run
    from ramstrans.training.run_folder import default_output

    with progress_bar() as progress:
        prepared = prepare(config, progress, resumes=resumes)
    output = config.output or default_output(prepared.config)
    if options.dry_run:
        say(f"dry run: everything fits, nothing was trained; a run would be written to {output}")
        return 0
    with progress_bar() as progress:
        report = train_run(prepared, output, command=shlex.join(["ramstrans", *given]), progress=progress)
    if is_first_process():
        print_report(report, results())
    say(f"report: {output / 'report.md'}")
    return 0


def config_of(built: Namespace) -> RunConfig:
    """The run that parsed options ask for."""
    return RunConfig(**{field.name: built[field.name] for field in dataclasses.fields(RunConfig)})


def check_unchanged(config: RunConfig, before: RunConfig) -> None:
    """Raise UsageError if a run that is resumed was given options that would make it another."""
    changed = [
        name
        for name, value in flat(dataclasses.asdict(config)).items()
        if name not in MAY_CHANGE and value != flat(dataclasses.asdict(before))[name]
    ]
    if changed:
        raise UsageError(
            f"--{changed[0]} cannot be changed in a run that is resumed (nor can anything but "
            f"{', '.join(MAY_CHANGE[:-2])}); leave it out, or start another run"
        )


def flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Nested options by their dotted names.

    >>> flat({"data": {"root": "a"}, "seed": 0})
    {'data.root': 'a', 'seed': 0}
    """
    names: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict) and prefix == "":
            names |= flat(value, f"{key}.")
        else:
            names[prefix + key] = value
    return names
