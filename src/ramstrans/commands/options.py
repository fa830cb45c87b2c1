"""What the options of several commands share."""

from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader

from ramstrans.data.config import DataConfig
from ramstrans.errors import UsageError

CONFIG_HELP = "YAML file of these options, or the name of one that comes along."


_load_yaml = get_loader("yaml")


def _load_value(text: str) -> Any:  # noqa: ANN401 - what YAML can hold
    """Parse a value as YAML; bytes that are not UTF-8 are of a path."""
    return text if _has_raw_bytes(text) else _load_yaml(text)


def _has_raw_bytes(text: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in text)


set_loader("yaml", _load_value, exceptions=(yaml.YAMLError,))


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
