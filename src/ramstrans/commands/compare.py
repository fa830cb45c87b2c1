"""`ramstrans compare`."""

import dataclasses
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt

from ramstrans.commands import evaluate, train
from ramstrans.commands.configs import given_to_recipe, with_recipe_of
from ramstrans.commands.options import Parser
from ramstrans.commands.words import nearest
from ramstrans.compare.plan import OF_SPLITS, Plan, Run, read_plan
from ramstrans.console import progress_bar, results
from ramstrans.data.detect import check_root
from ramstrans.errors import RamsTransError, TrainingError, UsageError, first_few
from ramstrans.evaluation.config import EvaluationConfig
from ramstrans.files import check_output_folder, write_file
from ramstrans.plain import counted, to_plain
from ramstrans.saved.metadata import check_weights
from ramstrans.training.config import OPTIONS_FILE, WHERE, RunConfig

if TYPE_CHECKING:
    from ramstrans.compare.results import Results
    from ramstrans.compare.runs import Folders

logger = logging.getLogger(__name__)

PLAN_FILE = "plan.yaml"
"""The plan in the output folder, by which it is known."""

MAY_DIFFER = (
    *(f"data.{name}" for name in WHERE if name not in ("root", "image_folder")),
    *("training.probe_cache", "device", "tracker", "output", "overwrite"),
)
"""Options in which a run that is there may differ from the plan: where it is and how it is read."""

FILLED_IN = (
    *("data.val_fraction", "training.epochs", "model.num_classes", "model.mean", "model.std"),
    *("model.class_tokens", "model.saliency"),
)
"""Options that a run fills in where the plan leaves them to the data set or the backbone, by null or auto."""

BY_MACHINE = "training.precision"
"""What recipe `auto` chooses by the machine that trains."""


def add_options(parser: Parser) -> None:
    """Options of `compare`: the plan, and how its runs are made."""
    parser.add_argument("plan", type=Path, help="YAML file of data, methods, options and seeds.")
    parser.add_argument(
        "--output",
        type=Path | None,
        help="Folder of the runs and the page; it goes on if it is there. Default: runs/compare-<plan>.",
    )
    parser.add_argument(
        "--jobs",
        type=NonNegativeInt,
        default=1,
        help="Runs at a time, which share the cores and GPUs; 0: train nothing, sum up what is there.",
    )
    parser.add_argument(
        "--list",
        type=bool,
        default=False,
        help="Print a command for each run that is left, one per line, for a cluster's job array.",
    )
    parser.add_argument(
        "--only",
        type=str,
        nargs="+",
        help="Train these runs alone, by name, and write no page: one job of an array.",
    )
    parser.add_argument(
        "--time", type=bool, default=False, help="Measure the time per image of each model, in turn."
    )


def run(options: Namespace, given: list[str]) -> int:
    """Train methods on data sets with several seeds, and compare them with intervals, tests and cost."""
    plan = read_plan(options.plan)
    configs = check_plan(plan)
    chosen = choose(plan, options.only or ())
    output = options.output or Path("runs") / f"compare-{options.plan.stem}"
    check_output_folder(output, PLAN_FILE, overwrite=True)
    from ramstrans.compare.runs import Folders, Trainer, visible_gpus

    folders = Folders(output)
    check_runs(plan, configs, folders)
    if options.list:
        left = [run for run in chosen if folders.can_start(run) and not folders.is_done(run)]
        if not left:
            logger.info("nothing is left to run")
        print_commands(left, options.plan, output)
        return 0
    if options.jobs:
        for run in chosen:
            begins = run.of is None and not (folders.run(run) / OPTIONS_FILE).exists()
            if begins:  # what goes on does not need them
                check_weights(configs[run.name].model.weights)
    write_file(output / PLAN_FILE, options.plan.read_bytes())
    command = shlex.join(["ramstrans", *given])
    trainer = Trainer(
        folders, options.jobs, gpus=visible_gpus(), go_on=f"the same command goes on: `{command}`"
    )
    trainer.train(chosen)
    if not options.only:
        report(plan, folders, trainer.errors, command, measure=options.time)
    if trainer.errors:
        failed = first_few([f"{name} ({error})" for name, error in trainer.errors.items()], 1)
        raise TrainingError(
            f"{counted(len(trainer.errors), 'run')} failed: {failed}; logs are in {output / 'logs'}, and "
            "the same command tries again"
        )
    return 0


def report(plan: Plan, folders: "Folders", errors: dict[str, str], command: str, *, measure: bool) -> None:
    """Write the pages, and print the accuracies."""
    from ramstrans.compare.build import HTML_FILE, build_results

    others = {path.name for path in (folders.output / "runs").glob("*")} - {run.name for run in plan.runs}
    if others:
        names = first_few(sorted(others))
        logger.warning(
            "%s in %s not of this plan, and left out: %s", counted(len(others), "run"), folders.output, names
        )
    with progress_bar() as progress:
        found = build_results(plan, folders, errors, command=command, measure=measure, progress=progress)
    print_results(found)
    logger.info("page: %s", folders.output / HTML_FILE)


def print_results(found: "Results") -> None:
    """Print the accuracies of each data set, and in words what is significant and what is not."""
    from ramstrans.compare import words
    from ramstrans.compare.page import accuracy_table
    from ramstrans.evaluation.report.build import print_table

    console = results()
    for data in dict.fromkeys(entry["data"] for entry in found["results"]):
        entries = [entry for entry in found["results"] if entry["data"] == data]
        table = accuracy_table(entries)
        print_table(
            console, f"{data}: {counted(entries[0]['num_images'], 'test image')}", table.header, table.rows
        )
    for line in words.differences_in_words(found["to_baseline"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in [*words.missing_in_words(found["runs"]), *words.caveats(found["results"], found["baseline"])]:
        console.print(f"Note: {line}", highlight=False, markup=False, soft_wrap=True)


def print_commands(runs: Sequence[Run], plan: Path, output: Path) -> None:
    """Print a command for each run, which begins it, or goes on with it, unless somebody else does."""
    for run in runs:
        words = ["compare", str(plan.absolute()), "--output", str(output.absolute()), "--only", run.name]
        sys.stdout.write(shlex.join([sys.executable, "-m", "ramstrans", *words]) + "\n")


def choose(plan: Plan, names: Sequence[str]) -> list[Run]:
    """The runs with these names; all if there are none.

    Raises:
        UsageError: A name is not that of a run.
    """
    known = {run.name: run for run in (*plan.runs, *plan.region_runs)}
    for name in names:
        if name not in known:
            near = nearest(name, known) or f"; it has {first_few(list(known))}"
            raise UsageError(f"--only {name} is not a run of the plan{near}")
    return [known[name] for name in names or known]


def check_plan(plan: Plan) -> dict[str, RunConfig]:
    """The config of each trained run, by its name: all options are those of `train`, and allowed.

    Raises:
        RamsTransError: They are not; the message says of which run.
    """
    parser = Parser(prog="ramstrans train")
    train.add_options(parser)
    checked: dict[tuple[str, str], RunConfig] = {}
    configs = {}
    for run in (run for run in plan.runs if run.of is None):
        key = (run.contender, run.data)
        if key not in checked:
            try:
                config = train.run_config(parser.instantiate(parser.parse_args(run.words)))
                check_root(config.data)
                check_comparable(config)
            except RamsTransError as error:
                error.args = (f"{run.contender} on {run.data}: {error}",)
                raise
            checked[key] = config
            check_tested(key, config, checked)
        configs[run.name] = dataclasses.replace(checked[key], seed=run.seed)
    for run in plan.runs:
        if run.of is not None:
            check_evaluated(run, configs[run.of.name])
    return configs


def check_evaluated(run: Run, trained: RunConfig) -> None:
    """Raise UsageError if a trained run cannot be evaluated as a plan wants it to be."""
    parser = Parser(prog="ramstrans evaluate")
    evaluate.add_options(parser)
    where = f"{run.contender}, {run.of and run.of.contender} evaluated in another way"
    try:
        options = parser.instantiate(parser.parse_args(["run", *run.words]))
        names = ("early_exit", "num_scales", "fusion")
        config = EvaluationConfig(Path("run"), **{name: getattr(options, name) for name in names})
    except RamsTransError as error:
        error.args = (f"{where}: {error}",)
        raise
    has = trained.model.num_scales
    if (config.num_scales or 1) > has:
        raise UsageError(
            f"{where}: num_scales is {config.num_scales}, and {counted(has, 'scale')} are trained"
        )
    used = config.num_scales or (1 if trained.model.method == "calcrop" else has)
    if (config.early_exit is not None or config.fusion != "mean") and used == 1:
        raise UsageError(f"{where}: early_exit and fusion are about several scales, and there is one")


def check_comparable(config: RunConfig) -> None:
    """Raise UsageError if a run would be a cross-validation, which has its own report, or has no top-1."""
    if config.data.folds is not None and config.data.fold is None:
        raise UsageError("data.folds makes several runs of one; give data.fold too, or leave it out")
    if config.data.multi_label:
        raise UsageError("compare tests top-1, which images of several labels (data.multi_label) have not")


def check_tested(
    key: tuple[str, str], config: RunConfig, checked: Mapping[tuple[str, str], RunConfig]
) -> None:
    """Raise UsageError if others on the same data are tested on other images, say by a config file."""
    contender, data = key
    other = next(name for name, of in checked if of == data)
    for name in OF_SPLITS:
        value, before = (getattr(one.data, name) for one in (config, checked[other, data]))
        if value != before:
            raise UsageError(
                f"{contender} on {data} has data.{name} {value}, and {other} {before}: which images are "
                "tested must be the same for all; give it in `data` or in `options`"
            )


def check_runs(plan: Plan, configs: dict[str, RunConfig], folders: "Folders") -> None:
    """Raise unless the runs that are there were made with the options of the plan.

    Raises:
        UsageError: One was not; the message says what differs.
    """
    filled: dict[tuple[str, str], tuple[RunConfig, tuple[str, ...]]] = {}
    for run in (*plan.runs, *plan.region_runs):
        folder = folders.run(run)
        if run.of is not None:
            check_evaluation(run, folder)
            continue
        if not (folder / OPTIONS_FILE).is_file():
            continue
        key = (run.contender, run.data)
        if key not in filled:
            config, _ = with_recipe_of(configs[run.name], run.words, train.add_options)
            given = given_to_recipe(run.words, train.add_options)
            is_by_machine = given is not None and BY_MACHINE not in given
            filled[key] = config, (BY_MACHINE,) if is_by_machine else ()
        config, by_machine = filled[key]
        expected = dataclasses.replace(config, seed=run.seed)
        if changed := difference(expected, train.config_in(folder), by_machine):
            name, wanted, had = changed
            raise UsageError(
                f"{folder} was made with {name} {had}, and the plan has {wanted}: put the plan back, give "
                "the method another name or the comparison another --output, or remove that folder"
            )


def check_evaluation(run: Run, folder: Path) -> None:
    """Raise UsageError if a folder holds something else than what a plan evaluates."""
    from ramstrans.training.run_folder import REPORT_FILE, read_json

    remedy = "give the method another name or the comparison another --output, or remove that folder"
    if (folder / OPTIONS_FILE).is_file():
        raise UsageError(f"{folder} holds a run that was trained, and the plan evaluates one there: {remedy}")
    report = read_json(folder / REPORT_FILE)
    if not report:
        return
    made = [word for word in shlex.split(report["command"]) if word.startswith("--")]
    made = [word for word in made if word.partition("=")[0] not in ("--output", "--device")]
    if sorted(made) != sorted(run.words):
        raise UsageError(
            f"{folder} was made with {shlex.join(made)}, and the plan has {shlex.join(run.words)}: {remedy}"
        )


def difference(
    expected: RunConfig, saved: RunConfig, by_machine: Sequence[str] = ()
) -> tuple[str, Any, Any] | None:
    """The first option in which a run differs from what was expected, with both values; None: none does.

    Options `by_machine` were chosen for the machine that trained, which may be another.
    """
    from ramstrans.training.run_folder import options_of

    had = flat(options_of(saved))
    for name, value in flat(options_of(expected)).items():
        is_left_open = name in FILLED_IN and value in (None, "auto")
        if name not in (*MAY_DIFFER, *by_machine) and not is_left_open and value != had[name]:
            return name, value, had[name]
    return None


def flat(options: dict[str, Any]) -> dict[str, Any]:
    """Options by their names on the command line, from those of a run.yaml."""
    sections = {name: value for name, value in options.items() if name in ("data", "model", "training")}
    rest = {name: value for name, value in options.items() if name not in sections}
    inner = {f"{name}.{key}": to_plain(value) for name in sections for key, value in sections[name].items()}
    return rest | inner
