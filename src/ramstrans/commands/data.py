"""`ramstrans data`: generate, download, check or shard a data set."""

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from ramstrans.commands import data_check, data_download, data_shard
from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar


def add_options(parser: Parser) -> None:
    """Commands of `data`."""
    commands = parser.add_subcommands()
    for name, (add, run_command) in COMMANDS.items():
        about = (run_command.__doc__ or "").splitlines()[0]
        sub = Parser(description=about)
        commands.add_subcommand(name, sub, help=about)
        add(sub)


def run(options: Namespace, given: list[str]) -> int:
    """Generate, download, check or shard a data set."""
    return COMMANDS[options.subcommand][1](options[options.subcommand], given)


def add_make_options(parser: Parser) -> None:
    """Options of `data make`."""
    parser.add_argument("name", type=Literal["toybirds"], help="Name of the data set.")
    parser.add_argument("root", type=Path, help="Folder to create.")


def make(options: Namespace, _given: list[str]) -> int:
    """Draw a generated data set into a folder, in the format of CUB-200-2011."""
    from ramstrans.data.toybirds.generator import make_toybirds

    root: Path = options.root
    with progress_bar() as progress:
        make_toybirds(root, progress=progress)
    print(root)  # noqa: T201
    return 0


COMMANDS = {
    "make": (add_make_options, make),
    "download": (data_download.add_options, data_download.run),
    "check": (data_check.add_options, data_check.run),
    "shard": (data_shard.add_options, data_shard.run),
}
