"""`ramstrans train`."""

import dataclasses
import logging
import shlex
from collections.abc import Collection
from pathlib import Path

from jsonargparse import Namespace

from ramstrans.commands.configs import RECIPE_HELP, NamedConfig, RecipeName, filled_in, start_from
from ramstrans.commands.options import CONFIG_HELP, Parser, takes_data
from ramstrans.console import is_first_process, progress_bar, results
from ramstrans.data.detect import check_root
from ramstrans.errors import UsageError
from ramstrans.saved.metadata import check_weights
from ramstrans.training.config import OPTIONS_FILE, WHERE, RunConfig

logger = logging.getLogger(__name__)

MAY_CHANGE = (
    *(f"data.{name}" for name in WHERE),
    *("training.probe_cache", "device", "tracker", "calibrate", "training.epochs", "training.max_steps"),
    *("output", "overwrite"),
)
"""Options that may change when a run is resumed: where things are, how they are read, and how long it is.

The last two are not for the user: the run's own folder is the output.
"""


NOT_OF_A_PROBE = (
    *(
        "epochs",
        "optimizer",
        "lr",
        "momentum",
        "weight_decay",
        "layer_decay",
        "warmup_steps",
        "warmup_epochs",
    ),
    *("min_lr_factor", "gradient_clip", "evaluate_every", "checkpoint_every", "keep_checkpoints"),
)
"""Options of the recipe, which recipes set and linear probes do not read: those on the command line warn."""

IMPORTANT = {
    "Data": ("--data.name",),
    "Model": ("--model.backbone", "--model.weights", "--model.image_size"),
    "Recipe": ("--recipe", "--training.epochs", "--training.batch_size"),
    "Run": ("--output", "--resume", "--device"),
}
"""The options that `--help` shows."""


def add_options(parser: Parser) -> None:
    """Options of `train`: the fields of RunConfig."""
    add_run_options(parser)
    parser.important = IMPORTANT
    parser.add_argument(
        "--resume",
        type=Path | None,
        help="Folder of a run that was stopped, whose evaluation failed, or that is to have more "
        "--training.epochs. Other options that go with it say where things are: --data.root, --data.cache, "
        "--data.num_workers, --device.",
    )
    parser.add_argument(
        "--dry_run", type=bool, default=False, help="Check data, model and options, and exit."
    )


def add_run_options(parser: Parser, skip: Collection[str] = ()) -> None:
    """What determines a run, from the data set to the recipe: the same for `train` and `plan`."""
    takes_data(parser)
    parser.starting = start_from
    parser.add_argument("--config", action=NamedConfig, help=CONFIG_HELP)
    parser.add_argument("--recipe", type=RecipeName | None, help=RECIPE_HELP)
    parser.add_class_arguments(RunConfig, as_group=False, skip=set(skip))
    parser.add_alias("--method", "--model.method")


def run(options: Namespace, given: list[str]) -> int:
    """Train on a data set, evaluate on its test split, report."""
    config, resumes = run_config(options), options.resume is not None
    check_root(config.data)
    warn_of_probe(config, given)
    if resumes:
        check_unchanged(config, config_in(options.resume))
        config = dataclasses.replace(config, output=options.resume, overwrite=False)
    else:  # before a recipe is printed
        check_weights(config.model.weights)
        from ramstrans.training.run_folder import check_output

        check_output(config.output, overwrite=config.overwrite)
    config = filled_in(config, given[1:], add_options)
    from ramstrans.distributed import num_processes
    from ramstrans.evaluation.report.build import print_report
    from ramstrans.training import folds
    from ramstrans.training.outline import outline
    from ramstrans.training.run import prepare
    from ramstrans.training.run import train as train_run
    from ramstrans.training.run_folder import default_output

    command = shlex.join(["ramstrans", *given])
    num_runs = config.data.folds if config.data.folds and folds.is_cross_validation(config) else 1
    if num_runs > 1 and not options.dry_run:
        with progress_bar() as progress:
            report, output = folds.cross_validate(config, resumes=resumes, command=command, progress=progress)
        folds.print_report(report, results())
        logger.info("report: %s", output / "report.html")
        return 0
    if num_runs > 1:
        config = folds.fold_config(config, 1, config.output, overwrite=config.overwrite)
    with progress_bar() as progress:
        prepared = prepare(config, progress, resumes=resumes)
    if not resumes and num_processes() == 1:
        for line in outline(prepared, num_runs):
            logger.info("%s", line)
    output = config.output or default_output(prepared.config)
    if options.dry_run:
        logger.info("dry run: everything fits, nothing was trained; a run would be written to %s", output)
        return 0
    with progress_bar() as progress:
        report = train_run(prepared, output, command=command, progress=progress)
    if is_first_process():
        print_report(report, results())
    logger.info("report: %s", output / "report.html")
    return 0


def warn_of_probe(config: RunConfig, given: list[str]) -> None:
    """Warn of options that were given on the command line but have no effect in a linear probe."""
    names = {word.partition("=")[0] for word in given}
    ignored = [f"--training.{name}" for name in NOT_OF_A_PROBE if f"--training.{name}" in names]
    if ignored and config.training.is_probe:
        logger.warning("ignored: %s; a linear probe takes no steps: its head is fitted", ", ".join(ignored))


def run_config(options: Namespace) -> RunConfig:
    """The run that instantiated options describe."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    return RunConfig(**{name: options[name] for name in names if name in options})


def config_in(folder: Path) -> RunConfig:
    """The run that the options in a run folder describe."""
    parser = Parser(default_config_files=[str(folder / OPTIONS_FILE)])
    parser.add_class_arguments(RunConfig, as_group=False)
    return run_config(parser.instantiate(parser.get_defaults()))


def check_unchanged(config: RunConfig, before: RunConfig) -> None:
    """Raise UsageError if a run that is resumed was given options that would make it another."""
    began = flat(before)
    changed = [
        name for name, value in flat(config).items() if name not in MAY_CHANGE and value != began[name]
    ]
    if changed:
        raise UsageError(
            f"--{changed[0]} cannot be changed in a run that is resumed (nor can anything but "
            f"{', '.join(MAY_CHANGE[:-2])}); leave it out, or start another run"
        )


def flat(config: RunConfig) -> dict[str, object]:
    """The options of a run by their names on the command line."""
    options = dataclasses.asdict(config)
    sections = {name: options.pop(name) for name in ("data", "model", "training")}
    return options | {f"{name}.{key}": value for name in sections for key, value in sections[name].items()}
