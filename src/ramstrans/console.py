"""What commands say: results on standard output, everything else on standard error."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

WIDTH_OF_FILES = 140
"""Characters of a line in a file or pipe: every table is whole."""


def is_first_process() -> bool:
    """Whether this process is the one that speaks, where `torchrun` or `accelerate launch` made several."""
    return os.environ.get("RANK", "0") == "0"


@functools.cache
def standard_error() -> "Console":
    """The one console on standard error, so that lines and bars do not write over each other."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, quiet=not is_first_process())


def say(line: str) -> None:
    """Say one line on standard error."""
    standard_error().print(line, markup=False, soft_wrap=True)


def results() -> "Console":
    """A console on standard output; in a file or pipe tables are whole, unless COLUMNS says how wide."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_OF_FILES
    return console


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error with rate and time left, from the first (done, total, what) that it is told."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=standard_error(),
    )
    tasks: dict[str, TaskID] = {}

    def update(done: int, total: int, what: str) -> None:
        kind = what.split(" ", maxsplit=1)[0]
        if kind not in tasks:
            bar.start()
            tasks[kind] = bar.add_task(what, total=total, rate="")
        speed = bar.tasks[tasks[kind]].speed
        rate = f"{speed:.2f}/s" if speed else ""
        bar.update(tasks[kind], completed=done, total=total, description=what, rate=rate)

    try:
        yield update
    finally:
        if tasks:
            bar.stop()
