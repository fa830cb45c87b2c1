"""`ramstrans data`: make or check a data set."""

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar, results
from ramstrans.data.config import DataConfig
from ramstrans.errors import DataError


def add_options(parser: Parser) -> None:
    """Commands of `data`."""
    commands = parser.add_subcommands()
    make = Parser(description="Draw the generated data set into a folder, in the layout of CUB-200-2011.")
    make.add_argument("name", type=Literal["toybirds"], help="Which one.")
    make.add_argument("root", type=Path, help="Folder to make.")
    commands.add_subcommand("make", make, help="Draw a generated data set.")
    check = Parser(description="Read a data set as training would, decode every file, and count.")
    check.add_class_arguments(DataConfig, "data")
    commands.add_subcommand("check", check, help="Read a data set and decode every file.")


def run(options: Namespace, _given: list[str]) -> int:
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
