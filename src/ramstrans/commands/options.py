"""What the options of several commands share."""

from typing import NoReturn

from jsonargparse import ArgumentParser

from ramstrans.errors import UsageError

CONFIG_HELP = "YAML file of these options, or the name of one that comes along."


class Parser(ArgumentParser):
    """A parser whose errors are a UsageError of one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print."""
        raise UsageError(f"{message.rstrip('.')}; see `{self.prog} --help`") from ex
