"""The command line: parse, run one command, print what went wrong.

Results go to standard output, everything else to standard error. Exit codes: 0, 2 for usage, 3 for
data, 130 and 143 for Ctrl-C and SIGTERM, 1 for the rest; a traceback only with `--debug`. With
`--quiet true` only warnings, errors and results are printed.
"""

import functools
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ramstrans import __version__
from ramstrans.commands import (
    bench,
    calibrate,
    compare,
    data,
    doctor,
    evaluate,
    explain,
    export,
    plan,
    predict,
    push,
    serve,
    train,
)
from ramstrans.commands.options import Parser, add_commands
from ramstrans.console import logging_to_terminal, quieten
from ramstrans.errors import RamsTransError, UsageError
from ramstrans.interrupts import Terminated, interruptible

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may have letters that its encoding lacks
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        with interruptible(), logging_to_terminal(), warnings_in_words():
            quiet, given = split_quiet(given)
            if quiet:
                quieten()
            parser = build_parser()
            options = parser.instantiate(parser.parse_args(given))
            command = options.subcommand
            code: int = COMMANDS[command].run(options[command], given)
            return code
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


def split_quiet(arguments: list[str]) -> tuple[bool, list[str]]:
    """Take `--quiet true|false` out of a command line, wherever it stands; returns it and the rest.

    >>> split_quiet(["predict", "run", "--quiet", "true", "a.jpg"])
    (True, ['predict', 'run', 'a.jpg'])

    Raises:
        UsageError: It has another value, or none.
    """
    quiet, rest, remaining = "false", [], iter(arguments)
    for argument in remaining:
        name, _, value = argument.partition("=")
        if name != "--quiet":
            rest.append(argument)
            continue
        quiet = value or next(remaining, "nothing")
        if quiet not in ("true", "false"):
            raise UsageError(f"--quiet is followed by {quiet}; give --quiet true or --quiet false")
    return quiet == "true", rest


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


@contextmanager
def warnings_in_words() -> Iterator[None]:
    """Log warnings as one line each, once, without the file and line of code that raised them."""
    logged: set[str] = set()  # a config that is changed checks its options again

    def log(message: Warning | str, *_: object, **__: object) -> None:
        text = " ".join(str(message).split())
        if text not in logged:
            logged.add(text)
            logger.warning("%s", text)

    with warnings.catch_warnings():
        warnings.showwarning = log
        yield


@functools.cache
def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="ramstrans",
        description="Fine-grained image recognition that looks twice.",
        allow_abbrev=False,  # inherited by the commands
    )
    parser.add_argument("--version", action="version", version=f"ramstrans {__version__}")
    about_quiet = "Print only warnings, errors and results; may stand anywhere in a command line."
    parser.add_argument("--quiet", type=bool, default=False, help=about_quiet)  # taken out by `split_quiet`
    add_commands(parser, COMMANDS)
    return parser


COMMANDS = {
    "plan": plan,
    "train": train,
    "calibrate": calibrate,
    "evaluate": evaluate,
    "predict": predict,
    "explain": explain,
    "export": export,
    "push": push,
    "serve": serve,
    "compare": compare,
    "data": data,
    "doctor": doctor,
    "bench": bench,
}
"""Modules with `add_options`, which declares the options, and `run`."""
