"""What `--help` prints: the options that matter most, or all, with what is allowed and the default."""

import argparse
import json
import textwrap
from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser

from ramstrans.commands.words import command_of, options_of
from ramstrans.options import allowed

DATA_HELP = "Folder or table of the data set; its format is detected. The same as --data.root."

WIDTH, INDENT = 100, 26
"""Columns of the help, and of its left part."""

OWN = ("--help", "--config", "--print_config", "--version")
"""Options whose help says what they take."""


def short_help(
    parser: ArgumentParser, usage: str, important: Mapping[str, tuple[str, ...]], *, data: bool
) -> str:
    """Format the help with the options that matter most, by headings.

    Args:
        parser: Of the command.
        usage: Its first line.
        important: Heading -> options.
        data: Whether the data set may be given as DATA.
    """
    lines = _head(parser, usage)
    if data:
        lines += ["", *entry("DATA", DATA_HELP)]
    defaults = parser.get_defaults()
    for heading, names in important.items():
        lines += ["", f"{heading}:"]
        for name in names:
            action = parser._option_string_actions[name]
            default = defaults.get(action.dest)
            lines += entry(name, _text(action) + ("" if default is None else f" [{default}]"))
    lines += ["", f"all {len(options_of(parser))} options: {command_of(parser)} --help all"]
    return "\n".join(lines) + "\n"


def long_help(parser: ArgumentParser, usage: str, *, data: bool) -> str:
    """Format the help with every command and option; see `short_help`."""
    lines = [*_head(parser, usage), *_arguments(parser, data=data)]
    defaults, known = parser.get_defaults(), set(options_of(parser))
    for group in parser._action_groups:
        shown = (action for action in group._group_actions if action.help != argparse.SUPPRESS)
        actions = [action for action in shown if known & set(action.option_strings)]
        lines += ["", f"{group.title or 'options'}:"] if actions else []
        for action in actions:
            lines += entry(", ".join(action.option_strings), _text(action) + _values(action, defaults))
    return "\n".join(lines) + "\n"


def entry(name: str, text: str) -> list[str]:
    """Format an option and its help, the help beside or below."""
    lines = textwrap.wrap(" ".join(text.split()), WIDTH - INDENT) or [""]
    start = f"  {name}".ljust(INDENT)
    head = [start + lines.pop(0)] if len(start) == INDENT and start.endswith(" ") else [start]
    return head + [" " * INDENT + line for line in lines]


def _head(parser: ArgumentParser, usage: str) -> list[str]:
    return [f"usage: {usage}", "", *textwrap.wrap(parser.description or "", WIDTH)]


def _arguments(parser: ArgumentParser, *, data: bool) -> list[str]:
    """What is given without a name: arguments, or commands."""
    arguments, commands = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                commands += entry(choice.dest, _text(choice))
        elif not action.option_strings:
            arguments += entry(action.dest.upper(), _text(action))
    if data:
        arguments += entry("DATA", DATA_HELP)
    lines = ["", *arguments] if arguments else []
    return [*lines, "", "commands:", *commands] if commands else lines


def _text(action: argparse.Action) -> str:
    if "--print_config" in action.option_strings:
        return "Print all options as YAML, and exit."
    return (action.help or "").replace("%%", "%")


def _values(action: argparse.Action, defaults: Any) -> str:  # noqa: ANN401 - jsonargparse's namespace
    """What an option takes, and its default if it has one: ` [fp32, bf16 or fp16; default: fp32]`."""
    if set(action.option_strings) & set(OWN):
        return ""
    hint, default = getattr(action, "_typehint", None) or action.type, defaults.get(action.dest)
    if default is None:
        return f" [{allowed(hint, null=False)}]"
    shown = json.dumps(default, default=str).replace('"', "")
    return f" [{allowed(hint)}; default: {shown}]"
