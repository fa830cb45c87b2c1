"""The parser's errors in words: what came, what is allowed, and what may have been meant."""

import argparse
import difflib
import re
from collections.abc import Callable, Iterable
from typing import Literal, get_args, get_origin

from jsonargparse import ArgumentParser

from ramstrans.options import allowed


def nearest(word: str, known: Iterable[str]) -> str:
    """Format the known words that resemble one, or end in its last part or its initials: `; did you mean a?`.

    >>> nearest("--lr", ["--training.lr", "--seed"]), nearest("--training.learning_rate", ["--training.lr"])
    ('; did you mean --training.lr?', '; did you mean --training.lr?')
    """
    known = list(known)
    last = word.removeprefix("--").rpartition(".")[2]
    initials = "".join(part[:1] for part in re.split("[-_]", last))
    ends = [name for name in known if name.rpartition(".")[2] in (last, initials)]
    close = ends or difflib.get_close_matches(word, known, n=2)
    return f"; did you mean {' or '.join(close[:2])}?" if close else ""


def options_of(parser: ArgumentParser) -> list[str]:
    """The long options of a parser, those of its sections as a whole left out."""
    names = [name for name in parser._option_string_actions if name.startswith("--")]
    sections = {name.rpartition(".")[0] for name in names}
    return [name for name in names if name not in sections]


def command_of(parser: ArgumentParser) -> str:
    """The command of a parser as one types it."""
    return parser.prog.replace(" [options]", "")


def in_words(parser: ArgumentParser, message: str) -> str:
    """Say a parser's message in plain words, with the way to the help."""
    for pattern, rewrite in REWRITES.items():
        if found := re.search(pattern, message, re.DOTALL):
            return rewrite(parser, found)
    return f"{message.strip().rstrip('.')}; see `{command_of(parser)} --help`"


def _wrong_value(parser: ArgumentParser, found: re.Match[str]) -> str:
    key, value = found[1], found[2].strip()
    action = next((one for one in parser._actions if one.dest == key), None)
    hint = getattr(action, "_typehint", None)
    name = f"--{key}" if action is None or action.option_strings else key.upper()
    if hint is None:
        return f"{name} is '{value}', which is not allowed; see `{command_of(parser)} --help all`"
    near = nearest(value, map(str, get_args(hint))) if get_origin(hint) is Literal else ""
    return f"{name} is '{value}'; give {allowed(hint)}{near}"


def _missing(parser: ArgumentParser, found: re.Match[str]) -> str:
    command, names = command_of(parser), []
    for name in found[1].split(", "):
        *path, last = name.split(".")
        command = " ".join([command_of(parser), *path])
        names.append(last.upper())
    return f"`{command}` needs {' and '.join(names)}; see `{command} --help`"


def _no_command(parser: ArgumentParser, _found: re.Match[str]) -> str:
    *parents, _ = _found[1].split(".")
    command = " ".join([command_of(parser), *parents])
    return f"`{command}` needs a command; `{command} --help` lists them"


def _wrong_choice(_parser: ArgumentParser, found: re.Match[str]) -> str:
    choices = re.findall(r"'([^']*)'", found[3])
    what = "the command" if found[1].endswith("subcommand") else found[1].rpartition(".")[2].upper()
    return f"{what} is '{found[2]}'; give {allowed(Literal[tuple(choices)])}{nearest(found[2], choices)}"


def _unknown_key(parser: ArgumentParser, found: re.Match[str]) -> str:
    commands = next(one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    command = commands.choices[found[1]]
    near = nearest(found[2], (name.removeprefix("--") for name in options_of(command)))
    return f"the config file has '{found[2]}', which `{command_of(command)}` does not know{near}"


EXAMPLES = {
    "data": "--data.root photographs",
    "model": "--model.backbone convnext_tiny",
    "training": "--training.epochs 20",
}
"""Of sections of options: one of them."""


def _section(_parser: ArgumentParser, found: re.Match[str]) -> str:
    example = f", e.g. {EXAMPLES[found[1]]}" if found[1] in EXAMPLES else ""
    return f"--{found[1]} is a section of options, and '{found[2]}' none of them; give one{example}"


REWRITES: dict[str, Callable[[ArgumentParser, re.Match[str]], str]] = {
    r'key "config": File does not exist: \'(.*?)\'': lambda _parser, found: (
        f"--config {found[1]} does not exist; give a YAML file, or the name of a config that comes along"
    ),
    r'key "(\w+)": Unable to load config [\'"](.*?)[\'"]': _section,
    r"^Problems parsing config: (.*)$": lambda _parser, found: f"the config file is not YAML: {found[1]}",
    r"^Unexpected config: (.*?)\s*$": lambda _parser, found: (
        f"the config file holds '{found[1]}'; give options, e.g. `training: {{epochs: 20}}`"
    ),
    r'key "([^"]+)":.*(?:Got|Given) value: (.*)$': _wrong_value,
    r'key "([^"]+)":\s+Not of type \w+: (.*?) does not conform': _wrong_value,
    r"arguments are required: (.*)$": _missing,
    r'expected "([\w.]+)" to be one of': _no_command,
    r"argument ([\w.-]+): invalid choice: '?(.*?)'? \(choose from (.*)\)": _wrong_choice,
    r"argument (--[\w.]+): expected one argument": lambda parser, found: (
        f"{found[1]} needs a value; give "
        f"{allowed(getattr(parser._option_string_actions.get(found[1]), '_typehint', str))}"
    ),
    r"^Subcommand '(\w+)' does not accept option '([^']+)'": _unknown_key,
    r"[Uu]nrecognized arguments: (.*)$": lambda parser, found: (
        f"{found[1]} is one argument too many for `{command_of(parser)}`; see its --help"
    ),
}
"""Patterns of jsonargparse's and argparse's messages, and what is said instead."""
