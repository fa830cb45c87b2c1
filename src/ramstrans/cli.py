"""The command line: one thin function a command; parse, call, print.

Results go to standard output, everything else to standard error. Exit codes: 0, 2 for usage, 3 for
data, 1 for the rest; a traceback only with `--debug`.
"""

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from ramstrans import __version__
from ramstrans.arguments import DEFAULT_CONFIGS, completed
from ramstrans.bench.config import BenchConfig
from ramstrans.console import progress_bar, results, say
from ramstrans.data.config import DataConfig
from ramstrans.errors import DataError, RamsTransError, UsageError
from ramstrans.training.config import RunConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        options = build_parser().parse_args(completed(given))
        command = options.subcommand
        return COMMANDS[command].run(options[command], given)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    except BrokenPipeError:  # the reader of a pipe, say `head`, has gone: nothing to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, RamsTransError):
            return fail(str(error), error.exit_code)
        return fail(f"{type(error).__name__}: {error} (--debug shows where)", 1)


def fail(message: str, code: int) -> int:
    """Say in one line on standard error what went wrong; returns the exit code."""
    print(f"ramstrans: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return code


class Parser(ArgumentParser):
    """A parser whose complaint is one line and a UsageError."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print."""
        raise UsageError(f"{message.rstrip('.')}; see `{self.prog} --help`") from ex


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="ramstrans",
        description="Fine-grained image recognition that looks twice.",
        allow_abbrev=False,  # inherited by the commands
    )
    parser.add_argument("--version", action="version", version=f"ramstrans {__version__}")
    commands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        about = (command.run.__doc__ or "").splitlines()[0]
        sub = Parser(description=about)
        commands.add_subcommand(name, sub, help=about)
        command.add_options(sub)  # after it: `data` has commands of its own, to be added in level order
    return parser


def add_train_options(parser: Parser) -> None:
    """Options of `train`: the fields of RunConfig."""
    parser.add_argument(
        "--config", action="config", help="YAML file of these options, or the name of one that comes along."
    )
    parser.add_class_arguments(RunConfig, as_group=False)
    parser.add_argument(
        "--dry-run", action="store_true", help="Check everything, train nothing, make no run folder."
    )


def train(options: Namespace, given: list[str]) -> int:
    """Train on a set of photographs, judge on its test split, report."""
    parser = Parser()
    add_train_options(parser)
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


def add_evaluate_options(parser: Parser) -> None:
    """Options of `evaluate`."""
    parser.add_argument("run", type=Path, help="Run folder, or any model folder.")
    parser.add_argument("--split", type=Literal["train", "val", "test"], default="test", help="Which images.")
    parser.add_argument(
        "--data.name", type=Literal[tuple(DEFAULT_CONFIGS)] | None, help="Layout, if not the run's."
    )
    parser.add_argument("--data.root", type=Path | None, help="Folder or table, if not the run's.")
    parser.add_argument("--output", type=Path | None, help="Where to write; default: RUN/evaluation-SPLIT.")
    parser.add_argument("--batch_size", type=PositiveInt, default=32, help="Images at once.")
    parser.add_argument(
        "--early-exit",
        type=str | None,
        help="Judge early exit too: the confidence at which an image takes no further look, or auto: chosen "
        "on the validation images for at most 0.2 points lost, and kept in RUN.",
    )
    add_device_options(parser)


def add_device_options(parser: Parser) -> None:
    """Options of every command that runs a trained model."""
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
    parser.add_argument(
        "--precision",
        type=Literal["fp32", "bf16", "fp16"] | None,
        help="Default: as the run was trained, else fp32.",
    )


def evaluate(options: Namespace, given: list[str]) -> int:
    """Judge a trained model on one split: table, report and pictures."""
    from ramstrans.evaluation.report import print_report
    from ramstrans.evaluation.run import evaluate_run

    output = options.output or options.run / f"evaluation-{options.split}"
    with progress_bar() as progress:
        report = evaluate_run(
            options.run,
            options.split,
            output,
            data_name=options.data.name,
            data_root=options.data.root,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            early_exit=exit_confidence(options.early_exit),
            command=shlex.join(["ramstrans", *given]),
            progress=progress,
        )
    print_report(report, results())
    say(f"report: {output / 'report.md'}")
    return 0


def exit_confidence(text: str | None) -> float | Literal["auto"] | None:
    """What `--early-exit` says."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--early-exit is '{text}'; give auto, or a confidence such as 0.9") from error


def add_predict_options(parser: Parser) -> None:
    """Options of `predict`."""
    parser.add_argument("run", type=Path, help="Run folder, or any model folder.")
    parser.add_argument(
        "inputs", nargs="+", type=str, help="Image files, folders, or - for paths on standard input."
    )
    parser.add_argument(
        "--format", type=Literal["csv", "jsonl", "parquet"] | None, help="Default: by --output, else csv."
    )
    parser.add_argument("--output", type=Path | None, help="File to write; default: standard output.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace that file.")
    parser.add_argument("--top_k", type=PositiveInt, default=5, help="Classes named for each image.")
    parser.add_argument(
        "--early-exit",
        type=str | None,
        help="Take no further look at a photograph once its answer has this confidence; auto: the one that "
        "`evaluate --early-exit auto` chose.",
    )
    parser.add_argument("--batch_size", type=PositiveInt, default=32, help="Images at once.")
    add_device_options(parser)


def add_explain_options(parser: Parser) -> None:
    """Options of `explain`."""
    parser.add_argument("run", type=Path, help="Run folder, or any model folder.")
    parser.add_argument("image", type=Path, help="The photograph.")
    parser.add_argument(
        "--output", type=Path | None, help="Picture to write; default: IMAGE's name + -explained.png here."
    )
    add_device_options(parser)


def predict(options: Namespace, _given: list[str]) -> int:
    """Name what is on photographs: CSV, JSON lines or Parquet."""
    from ramstrans.inference.inputs import expand_inputs
    from ramstrans.inference.output import choose_format, open_writer
    from ramstrans.inference.predictor import Predictor

    choose_format(options.output, options.format)
    early_exit = exit_confidence(options.early_exit)
    predictor = Predictor.load(options.run, options.device, options.precision or "fp32", early_exit)
    paths = expand_inputs(options.inputs, sys.stdin)
    num_labels = min(options.top_k, len(predictor.class_names))
    num_done = num_failed = 0
    with open_writer(options.output, options.format, num_labels, overwrite=options.overwrite) as writer:
        for prediction in predictor.stream(paths, num_labels, options.batch_size):
            writer.write(prediction)
            num_done, num_failed = num_done + 1, num_failed + (prediction.error is not None)
    say(f"{num_done} photographs, {num_failed} of them unreadable")
    return 0


def explain(options: Namespace, _given: list[str]) -> int:
    """Show what a model looked at in one photograph: a picture, and JSON."""
    from ramstrans.inference.explain import explain as explain_photograph
    from ramstrans.inference.predictor import Predictor

    picture = options.output or Path(f"{options.image.stem}-explained.png")
    predictor = Predictor.load(options.run, options.device, options.precision or "fp32")
    explanation = explain_photograph(predictor, options.image, picture, picture.with_suffix(".json"))
    print(json.dumps(explanation))  # noqa: T201
    say(f"picture: {picture}, the same as JSON: {picture.with_suffix('.json')}")
    return 0


def add_data_options(parser: Parser) -> None:
    """Commands of `data`."""
    commands = parser.add_subcommands()
    make = Parser(description="Draw the generated data set into a folder, in the layout of CUB-200-2011.")
    make.add_argument("name", type=Literal["toybirds"], help="Which one.")
    make.add_argument("root", type=Path, help="Folder to make.")
    commands.add_subcommand("make", make, help="Draw a generated data set.")
    check = Parser(description="Read a data set as training would, decode every file, and count.")
    check.add_class_arguments(DataConfig, "data")
    commands.add_subcommand("check", check, help="Read a data set and decode every file.")


def data(options: Namespace, _given: list[str]) -> int:
    """Make or check a data set."""
    return {"make": data_make, "check": data_check}[options.subcommand](options[options.subcommand])


def data_make(options: Namespace) -> int:
    """Draw toybirds."""
    from ramstrans.data.toybirds import make_toybirds

    with progress_bar() as progress:
        make_toybirds(options.root, progress=lambda done, total: progress(done, total, "drawing"))
    print(options.root)  # noqa: T201
    return 0


def data_check(options: Namespace) -> int:
    """Count the images of each split; exit code 3 if any file cannot be decoded."""
    from rich.table import Table

    from ramstrans.data.build import build_image_set
    from ramstrans.data.check import find_unreadable
    from ramstrans.data.records import SPLITS

    config = DataConfig(**vars(options.data))
    console = results()
    with progress_bar() as progress:
        images = build_image_set(config, progress)
        errors = find_unreadable(
            images.records, config.max_pixels, progress=lambda done, total: progress(done, total, "checking")
        )
    table = Table("split", "images", "classes", "fewest a class", "most a class")
    for split in SPLITS:
        counts = [count for count in images.counts(split).values() if count]
        table.add_row(
            split, *map(str, (sum(counts), len(counts), min(counts, default=0), max(counts, default=0)))
        )
    console.print(table)
    for error in errors:
        console.print(f"unreadable: {error}", markup=False, soft_wrap=True)
    return DataError.exit_code if errors else 0


def add_doctor_options(_parser: Parser) -> None:
    """`doctor` has none."""


def doctor(_options: Namespace, _given: list[str]) -> int:
    """Say which versions, devices and attention kernels are here, and what is missing."""
    from ramstrans.doctor import diagnose, render

    console = results()
    checks = diagnose()
    console.print(render(checks))
    return 1 if any(check.status == "missing" for check in checks) else 0


def add_bench_options(parser: Parser) -> None:
    """Options of `bench`: the fields of BenchConfig."""
    parser.add_argument("--cases", type=str, nargs="+", help="Names of cases; default: all.")
    parser.add_argument("--list", action="store_true", help="Say what the cases are, measure nothing.")
    parser.add_class_arguments(BenchConfig, as_group=False, skip={"cases"})


def bench(options: Namespace, given: list[str]) -> int:
    """Time ours beside plain ViTs and a slow twin; with --data.root, the loader beside the model."""
    parser = Parser()
    add_bench_options(parser)
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


class Command(NamedTuple):
    """One command: how its options are declared, and what runs."""

    add_options: Callable[[Parser], None]
    run: Callable[[Namespace, list[str]], int]


COMMANDS = {
    "train": Command(add_train_options, train),
    "evaluate": Command(add_evaluate_options, evaluate),
    "predict": Command(add_predict_options, predict),
    "explain": Command(add_explain_options, explain),
    "data": Command(add_data_options, data),
    "doctor": Command(add_doctor_options, doctor),
    "bench": Command(add_bench_options, bench),
}
