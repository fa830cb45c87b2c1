"""What several commands' options have in common."""

from typing import Literal, NoReturn

from jsonargparse import ArgumentParser

from ramstrans.errors import UsageError


class Parser(ArgumentParser):
    """A parser whose complaint is one line and a UsageError."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print."""
        raise UsageError(f"{message.rstrip('.')}; see `{self.prog} --help`") from ex


def add_device_options(parser: Parser) -> None:
    """Options of every command that runs a trained model."""
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
    parser.add_argument(
        "--precision",
        type=Literal["fp32", "bf16", "fp16"] | None,
        help="Default: as the run was trained, else fp32.",
    )


def exit_confidence(text: str | None) -> float | Literal["auto"] | None:
    """What `--early_exit` says."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--early_exit is '{text}'; give auto, or a confidence such as 0.9") from error
