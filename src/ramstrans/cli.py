"""The command line: parse, run one command, print what went wrong.

Results go to standard output, everything else to standard error. Exit codes: 0, 2 for usage, 3 for
data, 130 and 143 for Ctrl-C and SIGTERM, 1 for the rest; a traceback only with `--debug`.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from jsonargparse import Namespace

from ramstrans import __version__
from ramstrans.commands import bench, data, doctor, evaluate, explain, plan, predict, train
from ramstrans.commands.configs import default_config
from ramstrans.commands.options import Parser
from ramstrans.console import logging_to_terminal
from ramstrans.errors import RamsTransError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escapes for letters that a terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        with terminable(), logging_to_terminal():
            parser = build_parser(default_config(given[1:]) if given[:1] == ["train"] else None)
            options = parser.instantiate(parser.parse_args(given))
            command = options.subcommand
            return COMMANDS[command].run(options[command], given)
    except Terminated as stop:
        return fail(with_notes("stopped by SIGTERM", stop), 128 + signal.SIGTERM)
    except KeyboardInterrupt as stop:
        return fail(with_notes("stopped", stop), 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of a pipe, say `head`, has gone: there is nobody to report to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, RamsTransError):
            return fail(with_notes(str(error), error), error.exit_code)
        return fail(with_notes(f"{type(error).__name__}: {error} (--debug shows where)", error), 1)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what is half written is to be cleared away, as after Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` here, in the main thread; what a program had set for itself stays."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def with_notes(message: str, error: BaseException) -> str:
    """A message, followed by the notes that were added to the error on its way up.

    >>> error = KeyboardInterrupt()
    >>> error.add_note("7 rows kept")
    >>> with_notes("stopped", error)
    'stopped; 7 rows kept'
    """
    return "; ".join([message, *getattr(error, "__notes__", ())])


def fail(message: str, code: int) -> int:
    """Print what went wrong as one line on standard error; return the exit code."""
    print(f"ramstrans: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return code


def build_parser(train_config: Path | None = None) -> Parser:
    """The parser of all commands.

    Args:
        train_config: The config file that `train` starts from.
    """
    parser = Parser(
        prog="ramstrans",
        description="Fine-grained image recognition that looks twice.",
        allow_abbrev=False,  # inherited by the commands
    )
    parser.add_argument("--version", action="version", version=f"ramstrans {__version__}")
    commands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        about = (command.run.__doc__ or "").splitlines()[0]
        is_based = name == "train" and train_config is not None
        sub = Parser(description=about, default_config_files=[str(train_config)] if is_based else None)
        commands.add_subcommand(name, sub, help=about)
        command.add_options(sub)  # after it: `data` has commands of its own, to be added in level order
    return parser


class Command(NamedTuple):
    """One command: how its options are declared, and what runs."""

    add_options: Callable[[Parser], None]
    run: Callable[[Namespace, list[str]], int]


COMMANDS = {
    "plan": Command(plan.add_options, plan.run),
    "train": Command(train.add_options, train.run),
    "evaluate": Command(evaluate.add_options, evaluate.run),
    "predict": Command(predict.add_options, predict.run),
    "explain": Command(explain.add_options, explain.run),
    "data": Command(data.add_options, data.run),
    "doctor": Command(doctor.add_options, doctor.run),
    "bench": Command(bench.add_options, bench.run),
}
