"""Options that several commands share."""

from typing import Literal, NoReturn

from jsonargparse import ArgumentParser

from ramstrans.errors import UsageError

CONFIG_HELP = "YAML file of these options, or the name of one that comes along."

Precision = Literal["fp32", "bf16", "fp16"]


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
