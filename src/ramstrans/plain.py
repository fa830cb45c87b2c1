"""Python values as plain ones: JSON's own types, lines of CSV, labels in a cell, text that UTF-8 can hold."""

import csv
import dataclasses
import io
import math
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ramstrans.errors import ConfigError

LABEL_SEPARATOR = ";"
"""Stands between the labels of an image in one cell."""


def to_plain(value: Any, where: str = "value") -> Any:  # noqa: ANN401 - any tree of values
    """Convert a tree of values to JSON's own types.

    Dataclasses become dicts, arrays and tuples lists, paths strings, and numbers that are not finite None.

    Raises:
        ConfigError: JSON cannot hold one of the values; the message says where it is, below `where`.

    >>> import numpy as np
    >>> to_plain({"root": Path("birds"), "crop": (7, 5), "loss": np.float32("nan")})
    {'root': 'birds', 'crop': [7, 5], 'loss': None}
    """
    numpy = sys.modules.get("numpy")  # which has been imported where there are values of it
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        value = value.tolist()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry, where) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{where} is a {type(value).__name__}, which JSON cannot hold; give plain values")


def utf8_text(text: str) -> str:
    r"""Replace what UTF-8 cannot hold, such as undecodable bytes in a file name, by escapes.

    >>> utf8_text("b\udce9d.jpg")
    'b\\udce9d.jpg'
    """
    return text.encode(errors="backslashreplace").decode()


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    r"""Format lines of a CSV file; None gives an empty field.

    >>> csv_text([["a, b.jpg", None, 0.5]])
    '"a, b.jpg",,0.5\n'
    """
    stream = io.StringIO()
    plain = csv.writer(stream, lineterminator="\n")
    quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = list(row)
        # before Python 3.13 a lone carriage return is not quoted, and a reader takes it for a line's end
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoting if has_return else plain).writerow(cells)
    return stream.getvalue()


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the singular for one.

    >>> counted(1, "image"), counted(7, "image"), counted(3, "class")
    ('1 image', '7 images', '3 classes')
    """
    plural = noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{number} {noun if number == 1 else plural}"


def split_labels(text: str, separator: str = LABEL_SEPARATOR) -> tuple[str, ...]:
    r"""The names in a cell, each once, without surrounding blanks; empty ones do not count.

    A backslash before a separator, or before another backslash, makes it part of a name.

    >>> split_labels("wren; crow;;wren"), split_labels(r"heron\; grey;owl"), split_labels("")
    (('wren', 'crow'), ('heron; grey', 'owl'), ())
    """
    if "\\" not in text:
        parts = text.split(separator)
    else:
        parts = [""]
        for escaped, ends, other in re.findall(
            rf"\\(\\|{re.escape(separator)})|({re.escape(separator)})|(.)", text, re.DOTALL
        ):
            if ends:
                parts.append("")
            else:
                parts[-1] += escaped or other
    return tuple(dict.fromkeys(name for part in parts if (name := part.strip())))


def join_labels(names: Iterable[str], separator: str = LABEL_SEPARATOR) -> str:
    r"""Names in one cell, which `split_labels` takes apart again.

    >>> join_labels(["wren", "heron; grey"])
    'wren;heron\\; grey'
    """
    escape = re.compile(rf"\\(?=\\|{re.escape(separator)}|$)|{re.escape(separator)}")
    return separator.join(escape.sub(r"\\\g<0>", name) for name in names)
