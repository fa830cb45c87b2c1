"""`ramstrans data`: generate, download, check or shard a data set."""

from jsonargparse import Namespace

from ramstrans.commands import data_check, data_download, data_make, data_shard
from ramstrans.commands.options import Parser, add_commands

COMMANDS = {"make": data_make, "download": data_download, "check": data_check, "shard": data_shard}


def add_options(parser: Parser) -> None:
    """Commands of `data`."""
    add_commands(parser, COMMANDS)


def run(options: Namespace, given: list[str]) -> int:
    """Generate, download, check or shard a data set."""
    code: int = COMMANDS[options.subcommand].run(options[options.subcommand], given)
    return code
