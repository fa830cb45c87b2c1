"""What options share: checks of their numbers, their types in words and from JSON, those without effect."""

import contextlib
import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from ramstrans.errors import ConfigError, UsageError

Precision = Literal["fp32", "bf16", "fp16"]
"""Precisions of autocast."""

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

DURATION = r"(\d+(?:\.\d+)?)\s*(days?|d|hours?|h|minutes?|min|m|seconds?|sec|s)"
"""A number and its unit of time."""
SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class Bound(NamedTuple):
    """Which numbers an option may have: in words, for the error, and as a test."""

    allowed: str
    holds: Callable[[float], bool]


AT_LEAST_0 = Bound("0 or more", lambda value: value >= 0)
AT_LEAST_1 = Bound("1 or more", lambda value: value >= 1)
ABOVE_0 = Bound("more than 0", lambda value: value > 0)
FROM_0_TO_1 = Bound("a number in [0, 1]", lambda value: 0 <= value <= 1)
FROM_0_BELOW_1 = Bound("a number in [0, 1)", lambda value: 0 <= value < 1)
ABOVE_0_BELOW_1 = Bound("a number in (0, 1)", lambda value: 0 < value < 1)
ABOVE_0_TO_1 = Bound("a number in (0, 1]", lambda value: 0 < value <= 1)


def paths_from_text(config: Any, *names: str) -> None:  # noqa: ANN401
    """Make paths of fields that were given as text, in `__post_init__` of a frozen dataclass."""
    for name in names:
        if isinstance(getattr(config, name), str):
            object.__setattr__(config, name, Path(getattr(config, name)))


def check_name(where: str, value: object, hint: Any) -> None:  # noqa: ANN401 - a Literal
    """Raise unless a value is one of the names of a Literal.

    >>> check_name("component", "count", Literal["count", "soft"])
    """
    if value not in get_args(hint):
        raise ConfigError(f"{where} is {value!r:.60}; give {allowed(hint)}")


def check_names(prefix: str, config: object) -> None:
    """Raise unless every text of a config dataclass is a name that its type hint lists, if it lists names.

    `prefix` is what stands before a field's name in errors, e.g. `"data."`.

    Raises:
        ConfigError: Naming the first field whose name is not allowed.
    """
    kind: Any = type(config)
    for field, (hint, names) in _listed_names(kind).items():
        value = getattr(config, field)
        for text in value if isinstance(value, tuple | list) else (value,):
            if isinstance(text, str) and text not in names:
                raise ConfigError(f"{prefix}{field} is {text!r:.60}; give {allowed(hint, null=False)}")


@functools.cache
def _listed_names(kind: type[Any]) -> dict[str, tuple[Any, tuple[object, ...]]]:
    """Fields of a dataclass whose texts are those of a Literal: the type hint, and the names."""
    found = {}
    for field, hint in get_type_hints(kind).items():
        leaves = list(_leaves(hint))
        names = tuple(name for leaf in leaves if get_origin(leaf) is Literal for name in get_args(leaf))
        if names and str not in leaves and Path not in leaves:
            found[field] = (hint, names)
    return found


def _leaves(hint: Any) -> Iterable[Any]:  # noqa: ANN401 - any type hint
    """The types of a union, or of what a tuple holds."""
    if get_origin(hint) in (Union, UnionType, tuple):
        for part in get_args(hint):
            yield from _leaves(part)
    else:
        yield hint


def check_bounds(section: str, config: object, bounds: Mapping[str, Bound]) -> None:
    """Raise unless every number of a config dataclass is allowed; None always is.

    `section` is its name on the command line, e.g. `"data"`.

    Raises:
        ConfigError: Naming the first field whose value is not allowed.
    """
    for name, bound in bounds.items():
        value = getattr(config, name)
        if value is not None and not bound.holds(value):
            raise ConfigError(f"{section}.{name} is {value}; give {bound.allowed}")


def warn_ignored(section: str, config: Any, needs: Mapping[str, tuple[bool, str]]) -> None:  # noqa: ANN401
    """Warn about each option that was set but has no effect; call it in `__post_init__`.

    `needs` gives for each such field whether it has an effect, and the option that it needs.
    """
    for name, (has_effect, needed) in needs.items():
        if not has_effect and getattr(config, name) != getattr(type(config), name):
            # the caller of the dataclass, beyond __post_init__ and the generated __init__
            warnings.warn(f"{section}.{name} is ignored without {needed}", stacklevel=4)


def parse_bytes(text: str) -> int:
    """Parse an amount of memory with its unit into bytes.

    Raises:
        UsageError: It is not an amount of memory.

    >>> parse_bytes("12GB"), parse_bytes("1.5 GiB")
    (12000000000, 1610612736)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MGT]i?B)\s*", text, re.IGNORECASE)
    count = round(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if count < 1:
        raise UsageError(f"'{text}' is not an amount of memory; give e.g. 12GB, 80GiB or 500MB")
    return count


def parse_duration(text: str) -> float:
    """Parse a length of time with its units into seconds.

    Raises:
        UsageError: It is not a length of time.

    >>> parse_duration("2h"), parse_duration("1h30m"), parse_duration("90min"), parse_duration("1.5 d")
    (7200.0, 5400.0, 5400.0, 129600.0)
    """
    is_duration = re.fullmatch(rf"\s*(?:{DURATION}\s*)+", text, re.IGNORECASE)
    parts = re.findall(DURATION, text, re.IGNORECASE) if is_duration else []
    seconds = sum(float(count) * SECONDS[unit[0].lower()] for count, unit in parts)
    if not seconds:
        raise UsageError(f"'{text}' is not a length of time; give e.g. 2h, 90min, 1h30m or 3d")
    return seconds


TYPES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    NoneType: "null",
}

RESTRICTED = {"PositiveInt": "a whole number, 1 or more", "NonNegativeInt": "a whole number, 0 or more"}
"""Numbers of jsonargparse.typing."""

COUNTS = {2: "two", 3: "three"}


def allowed(hint: Any, *, null: bool = True) -> str:  # noqa: ANN401 - any type hint
    """Describe the values that a type hint allows; with `null` False, those other than null.

    >>> allowed(Literal["cpu", "cuda"] | None)
    'cpu, cuda or null'
    >>> allowed(int | tuple[int, int])
    'a whole number or a list of two, e.g. [448, 336]'
    >>> allowed(tuple[Literal["crow", "wren", "jay"], ...])
    'a list, e.g. [crow,wren]'
    """
    choices = [choice for choice in dict.fromkeys(_choices(hint)) if null or choice != "null"]
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)


def _choices(hint: Any) -> Iterable[str]:  # noqa: ANN401 - any type hint
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        yield from map(str, parts)
    elif origin is tuple:
        count = "" if parts[-1] is ... else f" of {COUNTS[len(parts)]}"
        example = {2: "[448, 336]", 3: "[0.5, 0.5, 0.5]"}[len(parts)] if count else "[1.0, 0.5]"
        if get_origin(parts[0]) is Literal:
            example = f"[{','.join(get_args(parts[0])[:2])}]"
        yield f"a list{count}, e.g. {example}"
    elif origin is dict:
        yield "names and values, e.g. {depth: 6}"
    elif parts:
        for part in parts:
            yield from _choices(part)
    else:
        name = getattr(hint, "__name__", str(hint))
        yield TYPES.get(hint) or RESTRICTED.get(name, name)


def typed(value: object, hint: object, where: str) -> object:
    """Convert a value of JSON to the Python value that a type hint asks for, dataclasses and tuples included.

    Args:
        value: As `json.loads` gives it.
        hint: What is asked for.
        where: What the value is, for the error.

    Raises:
        ConfigError: It is of another type, or fields are missing or unknown.

    >>> typed([1, 2], tuple[float, ...], "sizes")
    (1.0, 2.0)
    """
    origin, options = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _typed_dataclass(value, hint, where)
    if origin is tuple and isinstance(value, list):
        hints = options[:1] * len(value) if options[-1] is ... else options
        if len(hints) == len(value):
            return tuple(typed(entry, inner, where) for entry, inner in zip(value, hints, strict=True))
    if origin in {Union, UnionType}:
        for option in options:
            with contextlib.suppress(ConfigError):
                return typed(value, option, where)
    if hint is float and type(value) is int:
        return float(value)
    fits = (
        hint is Any
        or (hint is NoneType and value is None)
        or (hint in {bool, int, float, str} and type(value) is hint)
        or (origin is Literal and value in options)
        or (origin is dict and isinstance(value, dict))
    )
    if fits:
        return value
    raise ConfigError(f"{where} is {value!r:.60}, not {allowed(hint)}; fix it or copy the folder again")


def _typed_dataclass(values: dict[str, object], kind: type, where: str) -> object:
    """Build a dataclass from exactly its fields."""
    hints = get_type_hints(kind)
    names = [entry.name for entry in dataclasses.fields(kind)]
    missing = [name for name in names if name not in values]
    unknown = [name for name in values if name not in names]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise ConfigError(f"{where} {problem}; copy the folder again, or use the ramstrans that wrote it")
    return kind(**{name: typed(values[name], hints[name], f"{where}.{name}") for name in names})
