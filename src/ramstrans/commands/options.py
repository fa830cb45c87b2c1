"""Options that several commands share."""

from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from ramstrans.data.config import DataConfig
from ramstrans.errors import UsageError

CONFIG_HELP = "YAML file of these options, or the name of one that comes along."

Precision = Literal["fp32", "bf16", "fp16"]


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


def add_device_options(parser: Parser) -> None:
    """Options of commands that run a trained model."""
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
    parser.add_argument(
        "--precision", type=Precision | None, help="Default: as the run was trained, else fp32."
    )


def data_config(root: Path | None, data: Any) -> DataConfig:  # noqa: ANN401 - parsed options
    """The data that ROOT, or --data.root, and the other options select.

    Raises:
        UsageError: Both roots were given.
    """
    from ramstrans.data.build import detect_format

    values = dict(vars(data))
    if root is not None and values["root"] is not None:
        raise UsageError(f"ROOT is {root} and --data.root {values['root']}; give one of them")
    values["root"] = root = root or values["root"]
    if values["name"] is None:
        values["name"] = "toybirds" if root is None else detect_format(root)
    return DataConfig(**values)
