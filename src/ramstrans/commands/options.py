"""What the options of several commands share."""

from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentParser, Namespace

from ramstrans.data.config import DataConfig
from ramstrans.errors import UsageError

CONFIG_HELP = "YAML file of these options, or the name of one that comes along."


class Parser(ArgumentParser):
    """A parser whose errors are a UsageError of one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print."""
        raise UsageError(f"{message.rstrip('.')}; see `{self.prog} --help`") from ex


def data_config(root: Path | None, data: Namespace) -> DataConfig:
    """The data that ROOT, or --data.root, and the other options select.

    Raises:
        UsageError: Both roots were given.
    """
    from ramstrans.data.build import detect_format

    if root is not None and data.root is not None:
        raise UsageError(f"ROOT is {root} and --data.root {data.root}; give one of them")
    root = root or data.root
    name = data.name or ("toybirds" if root is None else detect_format(root))
    return DataConfig(**vars(data) | {"root": root, "name": name})
