"""A table of images: a CSV, TSV or Parquet file with paths, labels, and optional splits and boxes."""

import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ramstrans.data.config import DataConfig
from ramstrans.data.datasets.lists import SPLIT_NAMES
from ramstrans.data.reading.retry import open_retrying
from ramstrans.data.records import Box, ImageSet, Record, Split
from ramstrans.errors import DataError

logger = logging.getLogger(__name__)

BOX_COLUMNS = ("x0", "y0", "x1", "y1")

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")


def read_table(
    path: Path,
    path_column: str = DataConfig.path_column,
    label_column: str = DataConfig.label_column,
    split_column: str = DataConfig.split_column,
    group_column: str | None = None,
    on_unlabelled: Literal["stop", "skip"] = DataConfig.on_unlabelled,
) -> ImageSet:
    """Read a data set from a table with one row per image.

    Labels are read as text, so `007` and `NA` are class names. Without the split column every image is a
    training image; `splits.hold_out` splits them. The columns `x0`, `y0`, `x1` and `y1`, all four or none,
    are the object's box in pixels; empty cells mean no box. This does not check whether the files are
    readable; `audit.files.find_unreadable` does.

    Args:
        path: A `.csv`, `.tsv`, `.parquet` or `.pq` file.
        path_column: Column of image paths, absolute or relative to the table's folder.
        label_column: Column of class names.
        split_column: Column of `train`, `val` (also `valid`, `validation`) or `test`.
        group_column: Column of what belongs together; empty cells: to no group. None: there are no groups.
        on_unlabelled: Whether a row without a label is an error, or is left out.

    Returns:
        Classes sorted by name, records in the order of the rows.

    Raises:
        DataError: A column or row is missing or wrong; the message names it. Rows are counted from 1,
            without the header.
    """
    table = _read(path)
    _check_columns(table, path, (path_column, label_column, *([group_column] if group_column else [])))
    if on_unlabelled == "skip":
        table = _labelled(table, path, label_column)
    labels = list(_texts(table, path, label_column))
    class_names = tuple(sorted(set(labels)))
    label_of = {name: label for label, name in enumerate(class_names)}
    files = [path.parent / text for text in _texts(table, path, path_column)]
    splits = _splits(table, path, split_column)
    boxes = _boxes(table, path)
    groups = table[group_column].fillna("").astype(str).str.strip() if group_column else [""] * len(files)
    if files and not any(os.path.exists(file) for file in files):  # noqa: PTH110 - False for odd names too
        raise DataError(
            f"{path}: none of its {len(files)} images exist, such as {files[0]}; "
            f"paths in '{path_column}' are absolute or relative to the table's folder"
        )
    records = (
        Record(file, label_of[label], split, box, group=group)
        for file, label, split, box, group in zip(files, labels, splits, boxes, groups, strict=True)
    )
    return ImageSet(class_names, tuple(records))


def _read(path: Path) -> pd.DataFrame:
    suffix = path.suffix.lower()
    if suffix not in (*_SEPARATORS, *_PARQUET):
        raise DataError(
            f"{path} is not a table; give a {', '.join((*_SEPARATORS, *_PARQUET))} file (--data.root)"
        )
    try:
        with open_retrying(path) as stream:
            if suffix in _PARQUET:
                return pd.read_parquet(stream)
            return pd.read_csv(
                stream, sep=_SEPARATORS[suffix], dtype=str, keep_default_na=False, encoding="utf-8-sig"
            )
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the table's file (--data.root)") from error
    except (OSError, ValueError) as error:  # pandas' and Arrow's own errors are ValueErrors
        raise DataError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from error


def _check_columns(table: pd.DataFrame, path: Path, needed: tuple[str, ...]) -> None:
    missing = [column for column in needed if column not in table.columns]
    if missing:
        there = ", ".join(f"'{column}'" for column in table.columns)
        raise DataError(
            f"{path} has no column '{missing[0]}'; it has {there or 'none'} "
            "(choose by --data.path_column, --data.label_column and --data.group_column)"
        )


def _labelled(table: pd.DataFrame, path: Path, label_column: str) -> pd.DataFrame:
    """The rows that have a label; they keep their numbers. The others are counted in the log."""
    has_label = table[label_column].fillna("").astype(str).str.strip() != ""
    if not has_label.all():
        num_without = int((~has_label).sum())
        logger.warning("%s: %d of %d rows have no label and are left out", path, num_without, len(table))
    return table[has_label]


def _texts(table: pd.DataFrame, path: Path, column: str) -> Iterator[str]:
    """Yield the cells of a column as text without surrounding blanks; an empty one is an error."""
    for row, cell, is_missing in zip(table.index + 1, table[column], table[column].isna(), strict=True):
        text = "" if is_missing else str(cell).strip()
        if not text:
            raise _error(path, row, f"'{column}' is empty; fill it in or remove the row")
        yield text


def _splits(table: pd.DataFrame, path: Path, column: str) -> list[Split]:
    if column not in table.columns:
        return ["train"] * len(table)
    splits = []
    for row, text in zip(table.index + 1, _texts(table, path, column), strict=True):
        if text.lower() not in SPLIT_NAMES:
            raise _error(path, row, f"'{column}' is '{text}'; allowed are {', '.join(SPLIT_NAMES)}")
        splits.append(SPLIT_NAMES[text.lower()])
    return splits


def _boxes(table: pd.DataFrame, path: Path) -> list[Box | None]:
    there = [column for column in BOX_COLUMNS if column in table.columns]
    if not there:
        return [None] * len(table)
    if missing := [column for column in BOX_COLUMNS if column not in there]:
        raise DataError(
            f"{path} has the box columns {', '.join(there)} but not {', '.join(missing)}; "
            "give all four or none"
        )
    cells = zip(*(table[column] for column in BOX_COLUMNS), strict=True)
    return [_box(row_cells, path, row) for row, row_cells in zip(table.index + 1, cells, strict=True)]


def _box(cells: tuple[Any, ...], path: Path, row: int) -> Box | None:
    try:
        x0, y0, x1, y1 = (math.nan if pd.isna(cell) or cell == "" else float(cell) for cell in cells)
    except (TypeError, ValueError) as error:
        raise _error(path, row, f"the box is {', '.join(map(str, cells))}; give four numbers") from error
    if all(math.isnan(number) for number in (x0, y0, x1, y1)):
        return None
    if not (-math.inf < x0 < x1 < math.inf and -math.inf < y0 < y1 < math.inf):
        raise _error(
            path,
            row,
            f"the box is {x0:g}, {y0:g}, {x1:g}, {y1:g}; give x0 < x1 and y0 < y1, or leave all four empty",
        )
    return x0, y0, x1, y1


def _error(path: Path, row: int, what: str) -> DataError:
    return DataError(f"{path}, row {row}: {what}")
