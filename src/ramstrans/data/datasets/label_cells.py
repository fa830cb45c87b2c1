"""Several labels per image in a table: names in a cell, rows of the same image, or a column per label."""

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ramstrans.errors import DataError, first_few
from ramstrans.plain import split_labels

PRESENT, ABSENT = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")
"""Cells of a label's own column, in any case."""


def cell_text(cell: Any) -> str:  # noqa: ANN401 - whatever a table holds
    """A cell as text; a whole number that is stored as a float loses its `.0`, an empty one is "".

    >>> cell_text(7.0), cell_text(" wren "), cell_text(float("nan"))
    ('7', 'wren', '')
    """
    if pd.isna(cell):
        return ""
    is_whole = isinstance(cell, float | np.floating) and math.isfinite(cell) and cell == int(cell)
    return str(int(cell) if is_whole else cell).strip()


def labels_in_cells(table: pd.DataFrame, column: str, separator: str) -> list[tuple[str, ...]]:
    """The labels of each row by their names in one cell; a cell of Parquet may hold a list.

    Whole numbers stored as floats lose their `.0`.
    """
    return [
        tuple(dict.fromkeys(filter(None, map(cell_text, cell))))
        if isinstance(cell, list | tuple | np.ndarray)
        else split_labels(cell_text(cell), separator)
        for cell in table[column]
    ]


def find_label_columns(
    table: pd.DataFrame, path: Path, asked: str | Sequence[str], taken: Iterable[str | None]
) -> list[str]:
    """The columns that labels have of their own: by name, or by patterns such as `has_*`.

    Args:
        table: The table.
        path: Its file.
        asked: Names and patterns, in a list or separated by commas.
        taken: Columns of paths, splits and so on, which patterns leave out.

    Raises:
        DataError: There is no such column.
    """
    patterns = [part.strip() for part in asked.split(",")] if isinstance(asked, str) else list(asked)
    others, found = set(taken), []
    for pattern in patterns:
        named = [name for name in table.columns if name == pattern]
        named = named or [
            name for name in table.columns if fnmatchcase(str(name), pattern) and name not in others
        ]
        if not named:
            there = first_few([f"'{name}'" for name in table.columns], 10)
            raise DataError(f"{path} has no column '{pattern}' (data.label_columns); it has {there}")
        found += named
    return list(dict.fromkeys(found))


def labels_in_columns(table: pd.DataFrame, path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The labels of each row by columns of 0 and 1.

    Raises:
        DataError: A cell holds something else.
    """
    is_present = np.column_stack([_is_present(table, path, column) for column in columns])
    names = [str(column).strip() for column in columns]
    return [tuple(names[index] for index in np.flatnonzero(row)) for row in is_present]


def _is_present(table: pd.DataFrame, path: Path, column: str) -> np.ndarray:
    """(N,) bool, whether each row has the label of a column."""
    texts = [cell_text(cell).lower() for cell in table[column]]
    for row, text in zip(table.index + 1, texts, strict=True):
        if text not in PRESENT + ABSENT:
            raise DataError(
                f"{path}, row {row}: '{column}' is '{text}'; a label's own column (data.label_columns) holds "
                "1, true or yes where the image has it, and 0, false, no or nothing where not"
            )
    return np.array([text in PRESENT for text in texts], dtype=bool)
