"""The terminal: results on standard output, log lines and progress bars on standard error."""

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

logger = logging.getLogger(__name__)

WIDTH_OF_FILES = 140
"""Characters per line in a file or pipe: every table is whole."""

SECONDS_PER_LINE = 30.0
"""Between two log lines of `progress_lines`."""

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done); a total of 0 is not known."""


def no_progress(_done: int, _total: int, _what: str) -> None:
    """Report nothing."""


def format_duration(seconds: float) -> str:
    """A length of time in its two largest units.

    >>> format_duration(7.6), format_duration(61), format_duration(3599), format_duration(90000)
    ('8 s', '1 min 1 s', '59 min 59 s', '25 h 0 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def is_first_process() -> bool:
    """Whether this process is the one that prints, where `torchrun` or `accelerate launch` made several."""
    return os.environ.get("RANK", "0") == "0"


@functools.cache
def standard_error() -> "Console":
    """The one console on standard error, so that lines and bars do not write over each other."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, quiet=not is_first_process())


class LogHandler(logging.Handler):
    """Prints log records as plain lines on standard error, without breaking progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; its level is shown from WARNING up."""
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        standard_error().print(prefix + record.getMessage(), markup=False, soft_wrap=True)


@contextlib.contextmanager
def logging_to_terminal() -> Iterator[None]:
    """Show what the package logs, level INFO and up, in the first process."""
    logger, handler = logging.getLogger("ramstrans"), LogHandler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def quieten() -> None:
    """Show no more than warnings until `logging_to_terminal` ends: no log lines, no progress bars."""
    logging.getLogger("ramstrans").setLevel(logging.WARNING)


def results() -> "Console":
    """A console on standard output; in a file or pipe tables are whole, unless COLUMNS says how wide."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_OF_FILES
    return console


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error with rate and time left, drawn from the first call on; none after `quieten`."""
    if logging.getLogger("ramstrans").level > logging.INFO:
        yield no_progress
        return
    from rich import progress as rich

    bar = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeRemainingColumn(),
        console=standard_error(),
    )
    tasks: dict[str, TaskID] = {}

    def update(done: int, total: int, what: str) -> None:
        kind = what.split(" ", maxsplit=1)[0]
        if kind not in tasks:
            bar.start()
            tasks[kind] = bar.add_task(what, total=total or None, rate="")
        speed = bar.tasks[tasks[kind]].speed
        rate = f"{speed:.2f}/s" if speed else ""
        bar.update(tasks[kind], completed=done, total=total or None, description=what, rate=rate)

    try:
        yield update
    finally:
        if tasks:
            bar.stop()


@contextlib.contextmanager
def progress_of_many() -> Iterator[Progress]:
    """A bar in a terminal; in a file or pipe a log line every `SECONDS_PER_LINE`, with rate and time left."""
    if standard_error().is_terminal:
        with progress_bar() as progress:
            yield progress
    else:
        yield progress_lines()


def progress_lines(clock: Callable[[], float] = time.monotonic) -> Progress:
    """Log rate and time left at most every `SECONDS_PER_LINE` of a clock, counted from the first call on."""
    first: tuple[int, float] | None = None
    last = 0.0

    def update(done: int, total: int, what: str) -> None:
        nonlocal first, last
        now = clock()
        if first is None:
            first, last = (done, now), now
        if now - last < SECONDS_PER_LINE:
            return
        last, rate = now, (done - first[0]) / (now - first[1])
        left = f", {format_duration((total - done) / rate)} left" if total and rate else ""
        logger.info("%s: %d%s, %.1f/s%s", what, done, f" of {total}" if total else "", rate, left)

    return update
