"""What the options of several commands share: plain errors, a short help, one way to name a data set."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader

from ramstrans.commands.help import long_help, short_help
from ramstrans.commands.words import command_of, in_words, nearest, options_of
from ramstrans.data.detect import detect_format
from ramstrans.errors import DataError, UsageError
from ramstrans.yaml_keys import UniqueKeys

CONFIG_HELP = "YAML file of these options, or the name of one that comes along."

HELP = ("-h", "--help")

NOT_LOCAL = ("toybirds", "hugging_face")
"""Formats whose root need not exist: it is drawn, or a name on the hub."""


@dataclass
class Arguments:
    """The arguments of one command: options with their values, in order, and positional ones."""

    options: list[tuple[str, list[str]]]
    positionals: list[str]

    def value(self, option: str) -> str | None:
        """The last value of an option, or None."""
        return next(
            (values[-1] for name, values in reversed(self.options) if name == option and values), None
        )

    def words(self, *, of_config: bool) -> list[str]:
        """The `--config` options, or all others, as they are parsed."""
        words = []
        for name, values in self.options:
            if (name == "--config") == of_config:
                words += [f"{name}={values[0]}"] if len(values) == 1 else [name, *values]
        return words


_load_yaml = get_loader("yaml")


def _load_value(text: str) -> Any:  # noqa: ANN401 - what YAML can hold
    """Parse a value as YAML; bytes that are not UTF-8 are of a path."""
    return text if any("\udc80" <= letter <= "\udcff" for letter in text) else _load_yaml(text)


set_loader("yaml", _load_value, exceptions=(yaml.YAMLError,))


class Parser(ArgumentParser):
    """A parser whose errors are a UsageError of one line, and whose help begins with what matters.

    A config file never resets what stands on the command line, wherever it stands there. The data set may be
    given as a positional argument.

    Attributes:
        important: Heading -> the options that `--help` shows; `--help all` shows all. Empty: always all.
        data_position: Index of the positional argument that is the data set, read as --data.root; None: the
            command takes none.
        detects_format: Whether the format of the data set is detected here, where none is given.
        starting: Called with the arguments before they are parsed; returns arguments that count less than the
            given ones, and more than those of a config file.
    """

    important: Mapping[str, tuple[str, ...]] = {}
    data_position: int | None = None
    detects_format: bool = True
    starting: Callable[[Any, Arguments], list[str]] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of jsonargparse
        super().__init__(*args, add_help=False, **kwargs)
        self.aliases: dict[str, str] = {}
        self.add_argument(*HELP, action=_Help, help="Show this help, or with `--help all` every option.")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print."""
        raise UsageError(in_words(self, message)) from ex

    def parse_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,  # noqa: ANN401 - jsonargparse's
        **kwargs: Any,  # noqa: ANN401 - jsonargparse's
    ) -> Namespace:
        """Parse, after the arguments have been put in the order in which they count."""
        if args is not None and self._subparsers is None:
            args = self.arranged(list(args))
        parsed: Namespace = super().parse_args(args, namespace, **kwargs)
        return parsed

    def arranged(self, words: list[str]) -> list[str]:
        """Put arguments into the order in which they count, the data set among the options.

        Raises:
            UsageError: An option is not known, or the data set is named twice.
            DataError: The data set does not exist.
        """
        arguments = self.split(words)
        wants_help = [name for name, _ in arguments.options if name in HELP]
        detected = [] if wants_help else self.detect_data(arguments)
        started = [] if self.starting is None else self.starting(self, arguments)
        if wants_help:
            return [wants_help[0], *filter(None, [arguments.value(wants_help[0])])]
        given = arguments.words(of_config=False)
        return [*arguments.positionals, *detected, *arguments.words(of_config=True), *started, *given]

    def add_alias(self, alias: str, option: str) -> None:
        """Let an option have a second, shorter name."""
        action = self._option_string_actions[option]
        action.option_strings = [*action.option_strings, alias]
        self._option_string_actions[alias] = action
        self.aliases[alias.removeprefix("--")] = option.removeprefix("--")

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:  # noqa: ANN401 - jsonargparse's
        """Parse the text of a config file.

        Raises:
            UsageError: It has an option twice, or beside its section, where one of them would be lost.
        """
        try:
            values = yaml.load(content, UniqueKeys)
        except yaml.MarkedYAMLError:
            values = None  # said below
        except yaml.YAMLError as error:
            raise UsageError(f"the config file is not right: {error}") from error
        if isinstance(values, dict):
            check_names(values, self.aliases)
        parsed: Namespace = super().parse_string(content, *args, **kwargs)
        return parsed

    def split(self, words: list[str]) -> Arguments:
        """Tell options and their values from positional arguments.

        Raises:
            UsageError: There is no such option.
        """
        arguments = Arguments([], [])
        while words:
            word = words.pop(0)
            if word == "--":
                arguments.positionals += words
                break
            if word == "-" or not word.startswith("-"):
                arguments.positionals.append(word)
                continue
            name, equals, value = word.partition("=")
            self._check_known(name)
            values = [value] if equals else self._take_values(name, words)
            arguments.options.append((name, values))
        return arguments

    def _take_values(self, name: str, words: list[str]) -> list[str]:
        """Remove the values of an option from the words that follow it."""
        count = min(1, len(words))
        if name == "--print_config" or (name in HELP and words[:1] != ["all"]):
            count = 0
        elif getattr(self._option_string_actions.get(name), "nargs", None) == "+":
            count = next((index for index, word in enumerate(words) if word.startswith("--")), len(words))
        return [words.pop(0) for _ in range(count)]

    def _check_known(self, name: str) -> None:
        known = self._option_string_actions
        parents = (name[:end] for end, letter in enumerate(name) if letter == ".")
        is_entry = any(parent in options_of(self) for parent in parents)  # of a dict
        if name not in known and not is_entry and name != "--version":
            near = nearest(name, options_of(self)) or "; see its --help all"
            raise UsageError(f"{name} is not an option of `{command_of(self)}`{near}")

    def detect_data(self, arguments: Arguments) -> list[str]:
        """Turn a positional data set into --data.root; return its detected format, if none is given."""
        if self.data_position is None:
            return []
        root = arguments.value("--data.root")
        if len(arguments.positionals) > len(self._needed()):
            data = arguments.positionals.pop(self.data_position)
            if root is not None:
                raise UsageError(f"DATA is {data} and --data.root is {root}; give one of them")
            root = data
            arguments.options.append(("--data.root", [data]))
        name = arguments.value("--data.name")
        if root is None:
            return []
        if name not in NOT_LOCAL and not Path(root).exists():
            raise DataError(f"{root} does not exist; give the folder or table of the data set")
        is_set = not self.detects_format or name is not None or arguments.value("--resume") is not None
        return [] if is_set else [f"--data.name={detect_format(Path(root))}"]

    def _needed(self) -> list[argparse.Action]:
        """Positional arguments that must be given."""
        return [action for action in self._actions if not action.option_strings and action.nargs is None]

    def format_help(self, *_args: Any, **_kwargs: Any) -> str:  # noqa: ANN401 - argparse's
        """Format the help with every option."""
        return long_help(self, self._usage(), data=self.data_position is not None)

    def format_short_help(self) -> str:
        """Format the help with the options that matter most, by headings; with all if none are named."""
        if not self.important:
            return self.format_help()
        return short_help(self, self._usage(), self.important, data=self.data_position is not None)

    def _usage(self) -> str:
        names = [str(action.metavar or action.dest).upper() for action in self._needed()]
        if self._subparsers is not None:
            names = ["COMMAND ..."]
        elif self.data_position is not None:
            names.insert(self.data_position, "[DATA]")
        more = [
            action for action in self._actions if not action.option_strings and action.nargs in ("+", "*")
        ]
        names += [f"{action.dest.upper()} ..." for action in more]
        return " ".join([command_of(self), *names, "[--OPTION VALUE ...]"])


def check_names(values: Mapping[Any, Any], aliases: Mapping[str, str]) -> None:
    """Check that a config file has each option once, and in its section if that is there.

    Args:
        values: Of the file, or of a section.
        aliases: Second, shorter names of options, and their own.

    Raises:
        UsageError: It has not.
    """
    names = {str(key): aliases.get(key, str(key)) for key in values}
    for key, name in names.items():
        if list(names.values()).count(name) > 1:
            raise UsageError(f"the config file has '{name}' twice, once as '{key}'; give it once")
        for section in (name[:end] for end, letter in enumerate(name) if letter == "."):
            if section in names:
                *inner, last = name.removeprefix(f"{section}.").split(".")
                place = "".join(f"{{{part}: " for part in inner) + f"{{{last}: ...}}" + "}" * len(inner)
                raise UsageError(
                    f"the config file has '{key}' beside '{section}'; put it inside: `{section}: {place}`"
                )
    for inside in values.values():
        if isinstance(inside, dict):
            check_names(inside, {})


class _Help(argparse._HelpAction):
    """`--help`, and `--help all`."""

    def __init__(self, option_strings: Sequence[str], **kwargs: Any) -> None:  # noqa: ANN401 - argparse's
        super().__init__(option_strings, **kwargs)
        self.nargs = "?"

    def __call__(self, parser: Any, _namespace: Any, values: Any, _option: Any = None) -> None:  # noqa: ANN401
        """Print the help, and exit."""
        sys.stdout.write(parser.format_help() if values == "all" else parser.format_short_help())
        parser.exit()


def add_commands(parser: Parser, commands: Mapping[str, ModuleType]) -> None:
    """Give a parser commands: modules with `add_options`, which declares the options, and `run`."""
    subcommands = parser.add_subcommands()
    for name, command in commands.items():
        about = (command.run.__doc__ or "").splitlines()[0]
        sub = Parser(description=about)
        subcommands.add_subcommand(name, sub, help=about)
        command.add_options(sub)  # after it: `data` has commands of its own, to be added in level order


def takes_data(parser: Parser, position: int = 0, *, detects_format: bool = True) -> None:
    """Let a command take its data set as the positional argument at an index, or by --data.root."""
    parser.data_position, parser.detects_format = position, detects_format
