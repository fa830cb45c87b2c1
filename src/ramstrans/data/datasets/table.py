"""A table of images: a CSV, TSV, Excel or Parquet file with paths, labels, and optional splits and boxes."""

import io
import logging
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ramstrans.data.config import DataConfig
from ramstrans.data.datasets.label_cells import (
    cell_text,
    find_label_columns,
    labels_in_cells,
    labels_in_columns,
)
from ramstrans.data.datasets.lists import SPLIT_NAMES, FolderListing, split_of
from ramstrans.data.reading.formats import has_image_suffix
from ramstrans.data.reading.retry import retry
from ramstrans.data.reading.text import WINDOWS, marked_encoding, warn_of_windows
from ramstrans.data.records import Box, ImageSet, Record, Split
from ramstrans.errors import DataError, first_few
from ramstrans.plain import LABEL_SEPARATOR

logger = logging.getLogger(__name__)

BOX_COLUMNS = ("x0", "y0", "x1", "y1")

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet", ".pq")

_PARQUET = (".parquet", ".pq")
_SEPARATORS = (",", ";", "\t")
_COLUMNS_HINT = "choose by --data.path_column, --data.label_column and --data.group_column"
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def read_table(
    path: Path,
    path_column: str = DataConfig.path_column,
    label_column: str = DataConfig.label_column,
    split_column: str = DataConfig.split_column,
    image_folder: Path | None = None,
    group_column: str | None = None,
    on_unlabelled: Literal["stop", "skip"] = DataConfig.on_unlabelled,
    multi_label: bool = False,
    label_separator: str = LABEL_SEPARATOR,
    label_columns: str | Sequence[str] | None = None,
) -> ImageSet:
    """Read a data set from a table with one row per image.

    Labels are read as text, so `007` and `NA` are class names; whole numbers stored as floats lose their
    `.0`. Text is UTF-8, UTF-16 with a byte-order mark, or else Windows-1252, separated by whichever of comma,
    semicolon and tab is most frequent in the header. Without the split column every image is a training
    image; `splits.hold_out` splits them. The columns `x0`, `y0`, `x1` and `y1`, all four or none, are the
    object's box in pixels; empty cells mean no box. This does not check whether the files are readable;
    `audit.files.find_unreadable` does.

    Args:
        path: A `.csv`, `.tsv`, `.xlsx`, `.parquet` or `.pq` file.
        path_column: Column of image paths, absolute or relative to the image folder. Backslashes may separate
            folders. A path without an image's suffix stands for the one image of that name.
        label_column: Column of class names.
        split_column: Column of splits, by any of the names in `lists.SPLIT_NAMES`.
        image_folder: Folder of the images; None: the table's.
        group_column: Column of what belongs together; empty cells: to no group. None: there are no groups.
        on_unlabelled: Whether a row without a label is an error, or is left out.
        multi_label: Whether an image may have several labels, or none: their names are in one cell, or in
            several rows of the same image, which become one record.
        label_separator: What stands between names in a cell, see `plain.split_labels`.
        label_columns: With `multi_label`: columns that are a label each, by names or patterns, see
            `label_cells.find_label_columns`; None: the names are in the label column.

    Returns:
        Classes sorted by name, records in the order of the rows.

    Raises:
        DataError: A column or row is missing or wrong; the message names it. Rows are counted from 1,
            without the header.
    """
    folder = path.parent if image_folder is None else image_folder
    labels_from = [label_column] if label_columns is None else []
    needed = (path_column, *labels_from, *([group_column] if group_column else []))
    table, files = _read_with_files(path, folder, needed, "stop" if multi_label else on_unlabelled)
    taken = (path_column, label_column, split_column, group_column, *BOX_COLUMNS)
    labels = (
        _several_labels(table, path, label_column, label_separator, label_columns, taken)
        if multi_label
        else [(label,) for label in _texts(table, path, label_column)]
    )
    class_names = _class_names(labels, path, label_column)
    label_of = {name: label for label, name in enumerate(class_names)}
    splits = _splits(table, path, split_column)
    boxes = _boxes(table, path)
    groups = _groups(table, group_column)
    _check_any_exists(files, path, folder, path_column)
    rows = zip(files, labels, splits, boxes, groups, strict=True)
    records = (
        Record(file, -1, split, box, group=group, labels=tuple(label_of[name] for name in names))
        for file, names, split, box, group in rows
    )
    if multi_label:
        return ImageSet(class_names, _one_per_file(records, path, table.index + 1))
    _warn_of_joined_names(class_names, path)
    one_label = (record._replace(label=record.classes[0], labels=None) for record in records)
    return ImageSet(class_names, tuple(one_label))


def read_photographs(path: Path, path_column: str = DataConfig.path_column) -> list[Path]:
    """Read the files of a table of photographs that need no labels, one for each row.

    Raises:
        DataError: As `read_table`.
    """
    return _read_with_files(path, path.parent, (path_column,), "stop", "of image files")[1]


def read_cells(
    path: Path, path_column: str = DataConfig.path_column, image_folder: Path | None = None
) -> tuple[list[Path], dict[Path, dict[str, str]]]:
    """Read a table of photographs that need no labels: the file of each row, and by file its cells as text.

    Raises:
        DataError: As `read_table`; or a file is there twice with other cells.
    """
    table, files = _read_with_files(
        path, image_folder or path.parent, (path_column,), "stop", "of image files"
    )
    columns = [str(column) for column in table.columns if column != path_column]
    cells: dict[Path, dict[str, str]] = {}
    for row, (file, values) in enumerate(zip(files, table[columns].itertuples(index=False), strict=True)):
        texts = {name: cell_text(value) for name, value in zip(columns, values, strict=True)}
        if cells.setdefault(file, texts) != texts:
            raise _error(path, row + 1, f"{file} has other cells in an earlier row; give it one row")
    return files, cells


def _several_labels(
    table: pd.DataFrame,
    path: Path,
    column: str,
    separator: str,
    columns: str | Sequence[str] | None,
    taken: Sequence[str | None],
) -> list[tuple[str, ...]]:
    """The labels of each row, of which there may be any number."""
    if columns is not None:
        found = find_label_columns(table, path, columns, taken)
        logger.info("%s: %d label columns, %s", path, len(found), first_few(list(map(str, found)), 5))
        labels = labels_in_columns(table, path, found)
        there = {name for some in labels for name in some}
        if empty := [f"'{column}'" for column in found if str(column).strip() not in there]:
            logger.warning("%s: left out, as no image has them: %s", path, first_few(empty, 5))
        return labels
    labels = labels_in_cells(table, column, separator)
    if not any(labels):
        raise DataError(f"{path}: '{column}' is empty in every row; give names, or --data.label_columns")
    return labels


def _class_names(labels: Sequence[tuple[str, ...]], path: Path, column: str) -> tuple[str, ...]:
    """All labels of all rows, sorted."""
    names = tuple(sorted({name for some in labels for name in some}))
    if twice := [name for name in names if f"{name}.0" in names]:
        raise DataError(
            f"{path}: '{column}' has both '{twice[0]}' and '{twice[0]}.0'; write a class in one way"
        )
    return names


def _warn_of_joined_names(class_names: Sequence[str], path: Path) -> None:
    """Warn of a class name that looks like several."""
    if joined := [name for name in class_names if LABEL_SEPARATOR in name]:
        logger.warning(
            "%s: '%s' is one class; if it is several labels, give --data.multi_label true", path, joined[0]
        )


def _one_per_file(records: Iterable[Record], path: Path, rows: Iterable[int]) -> tuple[Record, ...]:
    """The records, those of the same image joined, in the order of the first ones."""
    by_file: dict[Path, Record] = {}
    for record, row in zip(records, rows, strict=True):
        by_file[record.path] = _joined(by_file.get(record.path), record, path, row)
    return tuple(by_file.values())


def _joined(before: Record | None, record: Record, path: Path, row: int) -> Record:
    """One record of two rows about the same image: the labels of both."""
    for name in ("split", "group", "box") if before is not None else ():
        if getattr(before, name) != getattr(record, name):
            raise _error(
                path,
                row,
                f"{record.path} has another {name} in an earlier row; give an image one split, group and "
                "box, or leave the column out",
            )
    labels = {*record.classes, *(() if before is None else before.classes)}
    return record._replace(labels=tuple(sorted(labels)))


def _read_with_files(
    path: Path, folder: Path, needed: tuple[str, ...], on_unlabelled: str, hint: str = _COLUMNS_HINT
) -> tuple[pd.DataFrame, list[Path]]:
    """Read the table, and the file of each row.

    Text that is not UTF-8 holds either the very bytes of the files' names or Windows-1252: files decide.
    """
    content = _content(path)
    is_windows = path.suffix.lower() not in (*_PARQUET, ".xlsx") and not _is_unicode(content)
    for encoding in (None, WINDOWS) if is_windows else (None,):
        table = _parse(content, path, encoding)
        _check_columns(table, path, needed, hint)
        if on_unlabelled == "skip":
            table = _labelled(table, path, needed[1])
        files = _files(table, path, folder, needed[0])
        odd = (file for file in files if not str(file).isprintable())
        if not is_windows or encoding or any(os.path.exists(file) for file in odd):  # noqa: PTH110
            break
    if is_windows and encoding:
        warn_of_windows(path)
    return table, files


def _content(path: Path) -> bytes:
    suffix = path.suffix.lower()
    if suffix in _ARCHIVES:
        raise DataError(f"{path} is an archive; unpack it and give its folder (--data.root)")
    try:
        if suffix in TABLE_SUFFIXES:
            return retry(path.read_bytes, path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the table's file (--data.root)") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read as a table: {error.strerror or error}") from error
    what = "is not a table" if path.exists() else "does not exist"
    raise DataError(f"{path} {what}; give a folder or a {', '.join(TABLE_SUFFIXES)} file (--data.root)")


def _is_unicode(content: bytes) -> bool:
    try:
        content.decode(marked_encoding(content) or "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """A table with rows by number, and without the types whose cells take none but their own values."""
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index(drop=table.index.name is None)
    own = [name for name in table.columns if pd.api.types.is_extension_array_dtype(table[name].dtype)]
    return table.astype(dict.fromkeys(own, object))


def _parse(content: bytes, path: Path, encoding: str | None) -> pd.DataFrame:
    """Parse the content of a table; text without an encoding is Unicode, or has bytes of names in it."""
    suffix, stream = path.suffix.lower(), io.BytesIO(content)
    options: dict[str, Any] = {"dtype": object, "keep_default_na": False}
    table: pd.DataFrame
    try:
        if suffix in _PARQUET:
            table = _plain(pd.read_parquet(stream))
        elif suffix == ".xlsx":
            table = pd.read_excel(stream, engine="openpyxl", **options)
        else:
            errors = "strict" if encoding else "surrogateescape"
            text = content.decode(encoding or marked_encoding(content) or "utf-8", errors)
            separator = max(_SEPARATORS, key=text.split("\n", maxsplit=1)[0].count)
            table = pd.read_csv(io.StringIO(text), sep=separator, encoding_errors=errors, **options)
            if not isinstance(table.index, pd.RangeIndex):
                raise ValueError(
                    f"its rows have more cells, separated by '{separator}', than its header; put names that "
                    "hold it in quotes"
                )
    except ImportError as error:
        raise DataError(
            f'{path}: Excel files need `pip install "ramstrans[excel]"`; or save it as .csv'
        ) from error
    # pandas' and Arrow's own errors are ValueErrors; an .xlsx file is a zip file
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from error
    return table


def _files(table: pd.DataFrame, path: Path, folder: Path, column: str) -> list[Path]:
    """The image file of each row."""
    listing, files = FolderListing(), []
    for row, text in zip(table.index + 1, _texts(table, path, column), strict=True):
        file = folder / text
        if "\\" in text and not os.path.exists(file):  # noqa: PTH110 - False for odd names too
            file = folder / text.replace("\\", "/")
        if not has_image_suffix(file.name):
            found = [] if file in listing else listing.images(file)
            if len(found) > 1:
                raise _error(path, row, f"'{text}' stands for {' and '.join(found)}; give it with its suffix")
            file = file.with_name(found[0]) if found else file
        files.append(file)
    return files


def _check_columns(table: pd.DataFrame, path: Path, needed: tuple[str, ...], hint: str) -> None:
    missing = [column for column in needed if column not in table.columns]
    if missing:
        there = ", ".join(f"'{column}'" for column in table.columns)
        raise DataError(f"{path} has no column '{missing[0]}'; it has {there or 'none'} ({hint})")


def _check_any_exists(files: Sequence[Path], path: Path, folder: Path, path_column: str) -> None:
    if files and not any(os.path.exists(file) for file in files):  # noqa: PTH110 - False for odd names too
        raise DataError(
            f"{path}: none of its {len(files)} images exist, such as {files[0]}; paths in '{path_column}' "
            f"are absolute or relative to {folder} (choose by --data.image_folder)"
        )


def _labelled(table: pd.DataFrame, path: Path, label_column: str) -> pd.DataFrame:
    """The rows that have a label; they keep their numbers. The others are counted in the log."""
    has_label = table[label_column].fillna("").astype(str).str.strip() != ""
    if not has_label.all():
        num_without = int((~has_label).sum())
        logger.warning("%s: %d of %d rows have no label and are left out", path, num_without, len(table))
    return table[has_label]


def _texts(table: pd.DataFrame, path: Path, column: str) -> Iterator[str]:
    """Yield the cells of a column as text without surrounding blanks; an empty one or a list is an error."""
    for row, cell, is_missing in zip(table.index + 1, table[column], table[column].isna(), strict=True):
        if isinstance(cell, list | tuple | np.ndarray):
            hint = "give one value, or --data.multi_label true if these are labels"
            raise _error(path, row, f"'{column}' holds a list; {hint}")
        text = "" if is_missing else cell_text(cell)
        if not text:
            raise _error(path, row, f"'{column}' is empty; fill it in or remove the row")
        yield text


def _splits(table: pd.DataFrame, path: Path, column: str) -> list[Split]:
    if column not in table.columns:
        return ["train"] * len(table)
    splits = []
    for row, text in zip(table.index + 1, _texts(table, path, column), strict=True):
        split = split_of(text)
        if split is None:
            raise _error(path, row, f"'{column}' is '{text}'; allowed are {', '.join(SPLIT_NAMES)}")
        splits.append(split)
    return splits


def _groups(table: pd.DataFrame, column: str | None) -> list[str]:
    return table[column].fillna("").astype(str).str.strip().tolist() if column else [""] * len(table)


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
