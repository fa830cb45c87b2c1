"""Predictions as CSV, JSON lines or Parquet, written as they come; a file is whole or not there."""

import csv
import json
import math
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from ramstrans.errors import OutputError, UsageError
from ramstrans.inference.predictor import Prediction

ROWS_IN_GROUP = 8192  # of a Parquet file; as many rows wait in memory
REGION_COLUMNS = ("region_x0", "region_y0", "region_x1", "region_y1", "has_region")


def column_names(num_labels: int) -> list[str]:
    """Columns of a table of predictions; the region is the first scale's.

    >>> column_names(2)[:6]
    ['path', 'error', 'label_1', 'label_2', 'probability_1', 'probability_2']
    """
    places = range(1, num_labels + 1)
    names = [f"{kind}_{place}" for kind in ("label", "probability") for place in places]
    return ["path", "error", *names, *REGION_COLUMNS]


def to_row(prediction: Prediction, num_labels: int) -> dict[str, Any]:
    """A prediction as one row of a table; None where there is nothing to say.

    >>> to_row(Prediction(Path("a.jpg"), ("wren",), (0.75,), ()), 2)["probability_1"]
    0.75
    """
    row: dict[str, Any] = dict.fromkeys(column_names(num_labels))
    row["path"], row["error"] = _path_text(prediction.path), prediction.error and _text(prediction.error)
    answers = zip(prediction.labels, prediction.probabilities, strict=True)
    for place, (label, probability) in enumerate(list(answers)[:num_labels], start=1):
        row[f"label_{place}"], row[f"probability_{place}"] = _text(label), _number(probability, 6)
    if prediction.scales and (box := prediction.scales[0].box) is not None:
        region = (*(_number(side, 2) for side in box), prediction.scales[0].has_region)
        row.update(zip(REGION_COLUMNS, region, strict=True))
    return row


def to_json(prediction: Prediction) -> dict[str, Any]:
    """A prediction, all scales, as plain values for JSON.

    >>> to_json(Prediction(Path("a.jpg"), (), (), (), "empty file"))
    {'path': 'a.jpg', 'error': 'empty file', 'labels': [], 'probabilities': [], 'scales': []}
    """

    def answer(labels: tuple[str, ...], probabilities: tuple[float, ...]) -> dict[str, Any]:
        return {
            "labels": [_text(label) for label in labels],
            "probabilities": [_number(probability, 6) for probability in probabilities],
        }

    return {
        "path": _path_text(prediction.path),
        "error": prediction.error and _text(prediction.error),
        **answer(prediction.labels, prediction.probabilities),
        "scales": [
            answer(scale.labels, scale.probabilities)
            | {"box": scale.box and [_number(side, 2) for side in scale.box], "has_region": scale.has_region}
            for scale in prediction.scales
        ],
    }


def _path_text(path: Path | None) -> str | None:
    return None if path is None else _text(str(path))


def _text(text: str) -> str:
    """Text that UTF-8 can hold; bytes of a file name that are no UTF-8 are shown as escapes."""
    return text.encode(errors="backslashreplace").decode()


def _number(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


class Writer(Protocol):
    """Writes one prediction after the other to an open stream."""

    binary: bool

    def __init__(self, stream: IO[Any], num_labels: int) -> None: ...

    def write(self, prediction: Prediction) -> None:
        """Add one prediction."""

    def close(self) -> None:
        """Write what is still waiting; the stream stays open."""


class CsvWriter:
    """A header, then a line for each prediction; empty fields where there is nothing to say."""

    binary = False

    def __init__(self, stream: IO[Any], num_labels: int) -> None:
        self._num_labels = num_labels
        self._rows = csv.DictWriter(stream, column_names(num_labels), lineterminator="\n")
        self._rows.writeheader()

    def write(self, prediction: Prediction) -> None:
        """Add one line."""
        self._rows.writerow(to_row(prediction, self._num_labels))

    def close(self) -> None:
        """Nothing waits."""


class JsonLinesWriter:
    """One JSON object a line, with all scales."""

    binary = False

    def __init__(self, stream: IO[Any], num_labels: int) -> None:
        del num_labels  # lists are as long as they are
        self._stream = stream

    def write(self, prediction: Prediction) -> None:
        """Add one line."""
        self._stream.write(json.dumps(to_json(prediction), ensure_ascii=False, allow_nan=False) + "\n")

    def close(self) -> None:
        """Nothing waits."""


class ParquetWriter:
    """The columns of the CSV, typed, in row groups."""

    binary = True

    def __init__(self, stream: IO[Any], num_labels: int) -> None:
        import pyarrow
        from pyarrow import parquet

        def kind(column: str) -> Any:  # noqa: ANN401 - pyarrow has no types for mypy
            if column == "has_region":
                return pyarrow.bool_()
            return pyarrow.float64() if column.startswith(("probability_", "region_")) else pyarrow.string()

        self._num_labels = num_labels
        self._schema = pyarrow.schema([(name, kind(name)) for name in column_names(num_labels)])
        self._table = pyarrow.Table
        self._file = parquet.ParquetWriter(stream, self._schema)
        self._waiting: list[dict[str, Any]] = []

    def write(self, prediction: Prediction) -> None:
        """Add one row."""
        self._waiting.append(to_row(prediction, self._num_labels))
        if len(self._waiting) >= ROWS_IN_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the footer."""
        if self._waiting:
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        self._file.write_table(self._table.from_pylist(self._waiting, self._schema))
        self._waiting = []


FORMATS: dict[str, type[Writer]] = {"csv": CsvWriter, "jsonl": JsonLinesWriter, "parquet": ParquetWriter}
SUFFIXES = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def choose_format(target: Path | None, name: str | None) -> str:
    """The format asked for by name, else the one of the file's suffix, else CSV on standard output.

    >>> choose_format(Path("birds.parquet"), None), choose_format(None, None)
    ('parquet', 'csv')

    Args:
        target: The file; None for standard output.
        name: `csv`, `jsonl` or `parquet`.

    Raises:
        UsageError: An unknown name or suffix, or Parquet on standard output.
    """
    if name is not None and name not in FORMATS:
        raise UsageError(f"--format is '{name}'; give {', '.join(FORMATS)}")
    if name is None and target is not None and target.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--output {target} has no known suffix ({', '.join(SUFFIXES)}); rename it or give --format"
        )
    chosen = name or (SUFFIXES[target.suffix.lower()] if target is not None else "csv")
    if target is None and FORMATS[chosen].binary:
        raise UsageError(f"--format {chosen} cannot go to standard output; give --output FILE")
    return chosen


@contextmanager
def open_writer(
    target: Path | None, format_name: str | None, num_labels: int, *, overwrite: bool = False
) -> Iterator[Writer]:
    """A writer of predictions to a file, or to standard output.

    Args:
        target: The file, which appears when all is written, and only then; None for standard output.
        format_name: See `choose_format`.
        num_labels: Number of label and probability columns.
        overwrite: Replace a file that exists.

    Raises:
        UsageError: See `choose_format`.
        OutputError: The file exists or cannot be written.
    """
    kind = FORMATS[choose_format(target, format_name)]
    opened = (
        nullcontext(sys.stdout) if target is None else _draft(target, binary=kind.binary, overwrite=overwrite)
    )
    with opened as stream:
        writer = kind(stream, num_labels)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def _draft(target: Path, *, binary: bool, overwrite: bool) -> Iterator[IO[Any]]:
    """A stream to a temporary file beside the target, renamed to it at the end, removed on any error."""
    if target.is_dir():
        raise OutputError(f"--output {target} is a folder; give a file")
    if target.exists() and not overwrite:
        raise OutputError(f"--output {target} exists; give another, or --overwrite true to replace it")
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") if binary else draft.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        draft.replace(target)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(f"--output {target} cannot be written ({reason}); give another file") from error
    finally:
        with suppress(OSError):
            draft.unlink()
