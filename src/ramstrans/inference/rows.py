"""Rows of predictions on their way into a file; an interrupted command goes on where it stopped.

Until the last row, those of `birds.csv` are in `birds.csv.partial`, line by line, and
`birds.csv.partial.json` holds what they depend on: the same command with the same model finds its rows there,
and only adds those that are missing. Parquet has no rows before its end, so its partial file is JSON Lines,
converted at last.
"""

import csv
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO

from ramstrans.errors import OutputError
from ramstrans.files import new_file, not_writable, write_file
from ramstrans.inference.arguments import name_of
from ramstrans.inference.prediction import Prediction
from ramstrans.inference.writers import column_names, to_json, to_row, write_parquet
from ramstrans.plain import counted, csv_text, utf8_text

logger = logging.getLogger(__name__)

MAX_FIELD = 2**31 - 1
"""Characters of one cell that are read again: a prediction set may name thousands of classes."""


class RowWriter:
    """Writes a line per prediction into a stream of text.

    Args:
        stream: The stream; it is flushed after each line if it is line-buffered.
        format_name: `csv`, `jsonl`, or `parquet`, whose rows go as JSON Lines into a file to be converted.
        num_labels: Columns of labels, and as many of probabilities, of a table.
        kept: Paths of the rows that an interrupted command left.
        num_unreadable: How many of those have an error.
        multi_label: Whether images may have several labels.
    """

    def __init__(
        self,
        stream: IO[str],
        format_name: str,
        num_labels: int,
        kept: tuple[str, ...] = (),
        num_unreadable: int = 0,
        *,
        multi_label: bool = False,
    ) -> None:
        self.num_rows, self.num_unreadable = len(kept), num_unreadable
        self.num_written = self.num_without_priors = 0
        self._stream, self._format, self._num_labels, self._kept = stream, format_name, num_labels, kept
        encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-")
        self._ascii_only = encoding not in ("utf-8", "utf8")
        if format_name == "csv" and not kept:
            stream.write(csv_text([column_names(num_labels, multi_label=multi_label)]))

    def write(self, prediction: Prediction) -> None:
        """Write one row."""
        values = to_json(prediction) if self._format == "jsonl" else to_row(prediction, self._num_labels)
        if self._format == "csv":
            self._stream.write(csv_text([values.values()]))
        else:
            self._stream.write(json.dumps(values, ensure_ascii=self._ascii_only, allow_nan=False) + "\n")
        self.num_rows += 1
        self.num_written += 1
        self.num_unreadable += prediction.error is not None
        self.num_without_priors += prediction.priors is not None and prediction.priors.matched is None

    def remaining(self, paths: Iterable[str | Path]) -> Iterator[str | Path]:
        """Yield the paths, in order, that have no row yet.

        Raises:
            OutputError: The rows are not those of the first paths; raised when that is reached.
        """
        inputs, num_kept = iter(paths), len(self._kept)
        first = list(islice(inputs, num_kept))
        for index, (path, kept) in enumerate(zip(first, self._kept, strict=False)):
            if utf8_text(name_of(Path(path))) != kept:
                raise OutputError(
                    f"row {index + 1} of the partial file is {kept}, but image {index + 1} is now "
                    f"{utf8_text(str(path))}: the images have changed; remove the partial file to begin again"
                )
        if len(first) < num_kept:
            raise OutputError(
                f"the partial file has {counted(num_kept, 'row')}, but there are only "
                f"{counted(len(first), 'image')} now; remove the partial file to begin again"
            )
        yield from inputs


@contextmanager
def resumable_file(
    target: Path,
    format_name: str,
    num_labels: int,
    settings: Mapping[str, Any],
    *,
    overwrite: bool = False,
    multi_label: bool = False,
) -> Iterator[RowWriter]:
    """Open a writer whose rows become the file `target` at the end; on any error they stay in `.partial`.

    The error gets a note that says so. If there is a partial file already, it is continued.

    Args:
        target: The file; its folder is created if necessary.
        format_name: See `RowWriter`.
        num_labels: See `RowWriter`.
        settings: What the rows depend on, as plain values.
        overwrite: Whether a partial file with other settings is begun again.
        multi_label: See `RowWriter`.

    Raises:
        OutputError: A file cannot be written, or the partial file has other settings.
    """
    partial, mark = partial_files(target)
    settings = {"format": format_name, "top_k": num_labels, **settings}
    is_begun = partial.exists() and _continues(partial, mark, settings, overwrite=overwrite)
    writer: RowWriter | None = None
    try:
        if not is_begun:
            write_file(mark, json.dumps(settings).encode(), hint="give another file")
            partial.write_bytes(b"")
        with _appended(partial, format_name, num_labels, multi_label=multi_label) as writer:
            yield writer
        if format_name == "parquet":
            with partial.open(encoding="utf-8") as lines, new_file(target) as file:
                write_parquet(map(json.loads, lines), file, num_labels, multi_label=multi_label)
            partial.unlink()
        else:
            partial.replace(target)
        mark.unlink()
    except OutputError:
        raise
    except OSError as error:
        refused = not_writable(target, error, "free its disk or give another file")
        _note(refused, partial, writer)
        raise refused from error
    except BaseException as error:
        _note(error, partial, writer)
        raise
    finally:
        if not is_begun and (writer is None or not writer.num_rows):
            for path in (partial, mark):
                with suppress(OSError):
                    path.unlink()


def partial_files(target: Path) -> tuple[Path, Path]:
    """The files that hold the rows of an interrupted command, and what they depend on.

    >>> [path.name for path in partial_files(Path("birds.csv"))]
    ['birds.csv.partial', 'birds.csv.partial.json']
    """
    return target.with_name(f"{target.name}.partial"), target.with_name(f"{target.name}.partial.json")


def _continues(partial: Path, mark: Path, settings: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Whether a partial file has these settings; False if it may be replaced.

    Raises:
        OutputError: It has others.
    """
    try:
        before = json.loads(mark.read_bytes())
    except (OSError, ValueError):
        before = {}
    changed = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    if not changed:
        return True
    if overwrite:
        logger.info("%s is of another command (%s differs); beginning again", partial, ", ".join(changed))
        return False
    raise OutputError(
        f"{partial} holds the rows of another command that was interrupted ({', '.join(changed)} differs); "
        "remove it, or --overwrite true to begin again"
    )


@contextmanager
def _appended(partial: Path, format_name: str, num_labels: int, *, multi_label: bool) -> Iterator[RowWriter]:
    """Open a writer behind the whole rows of a partial file; see `resumable_file`."""
    columns = column_names(num_labels, multi_label=multi_label)
    paths, num_unreadable, size = _read_rows(partial, format_name, columns)
    os.truncate(partial, size)  # the last line may be cut off
    with partial.open("a", encoding="utf-8", newline="", buffering=1) as stream:
        if paths:
            logger.info("going on after the %s of %s", counted(len(paths), "row"), partial)
        yield RowWriter(
            stream, format_name, num_labels, tuple(paths), num_unreadable, multi_label=multi_label
        )
        os.fsync(stream.fileno())


def _note(error: BaseException, partial: Path, writer: RowWriter | None) -> None:
    """Add to the error what is kept."""
    if writer is not None and writer.num_rows:
        error.add_note(f"{counted(writer.num_rows, 'row')} kept in {partial}; the same command goes on there")


def _read_rows(partial: Path, format_name: str, columns: list[str]) -> tuple[list[str], int, int]:
    """Paths of the rows that are whole, how many of them have an error, and where they end, in bytes."""
    paths: list[str] = []
    num_unreadable = size = 0
    with partial.open("rb") as stream:
        rows = _csv_rows(stream, columns) if format_name == "csv" else _json_rows(stream)
        for path, error, end in rows:
            paths.append(path)
            num_unreadable += bool(error)
            size = end
    return paths, num_unreadable, size


def _json_rows(stream: BinaryIO) -> Iterator[tuple[str, str | None, int]]:
    """Path, error and end of each row of JSON Lines."""
    for line in stream:
        if not line.endswith(b"\n"):
            return
        values = json.loads(line)
        yield values["path"], values["error"], stream.tell()


def _csv_rows(stream: BinaryIO, columns: list[str]) -> Iterator[tuple[str, str, int]]:
    """Path, error and end of each row of a CSV file, whose fields may hold newlines."""
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in stream:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield line.decode()

    csv.field_size_limit(MAX_FIELD)
    for row in csv.reader(lines()):
        if len(row) != len(columns):
            return
        if row != columns:
            yield row[0], row[1], end
