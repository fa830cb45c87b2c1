"""What a cluster predicts, cut into partitions: a file of rows for each, whole or not there at all.

Paths are cut into slices, a Parquet table by its row groups, and a tar is a partition of its own: of 10^9
photographs in tables or tars, nothing but the names of those passes through the process that starts it all.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from ramstrans.errors import DataError, OutputError
from ramstrans.files import new_file, write_file
from ramstrans.inference.batches import BatchPredictor
from ramstrans.plain import counted

logger = logging.getLogger(__name__)

TABLES = (".parquet", ".pq", ".csv")
SETTINGS_FILE, DONE_FILE = "_partitions.json", "_SUCCESS"
"""Names that readers of a folder of Parquet files leave out, as they begin with an underscore."""

Item = tuple[str | None, bytes | None]
"""Path and content of a photograph; without content the file is read."""

Row = dict[str, Any]
"""Values by column; one that is missing is empty."""


@dataclass(frozen=True)
class Partition:
    """Photographs that are predicted together, described in few bytes.

    Attributes:
        index: From 0, in the order of the inputs.
        source: A `.tar` or Parquet file; empty for paths.
        paths: The files, if there is no source.
        row_group: Of a Parquet file; None for others.
        start: First row there.
        stop: Row after the last one; None: all.
    """

    index: int
    source: str = ""
    paths: tuple[str, ...] = ()
    row_group: int | None = None
    start: int = 0
    stop: int | None = None

    def to_json(self) -> str:
        """As text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Partition":
        """Read `to_json`."""
        values = json.loads(text)
        return cls(**values | {"paths": tuple(values["paths"])})

    @property
    def name(self) -> str:
        """Of its file."""
        return f"part-{self.index:06d}.parquet"

    def items(self) -> Iterator[Item]:
        """The photographs, in order.

        Raises:
            DataError: The source cannot be read.
        """
        if not self.source:
            yield from ((path, None) for path in self.paths)
        elif self.row_group is None:
            yield from _of_tar(self.source)
        else:
            yield from _of_table(self.source, self.row_group, self.start, self.stop)


class Written(NamedTuple):
    """A partition that is on the disk, by its index: its number of rows, and how many have an error."""

    partition: int
    num_rows: int
    num_unreadable: int


def partitions_of(names: Iterable[str | Path], size: int) -> list[Partition]:
    """Cut inputs into partitions.

    Args:
        names: Files, as `expand_inputs` lists them; `.parquet` and `.csv` are tables, `.tar` WebDatasets.
        size: Most rows per partition; a tar is always one.

    Raises:
        DataError: A table cannot be read, or has neither paths nor bytes.
    """
    partitions: list[Partition] = []
    for pieces in _pieces(names, size):
        partitions.append(Partition(len(partitions), **pieces))
    return partitions


def _pieces(names: Iterable[str | Path], size: int) -> Iterator[dict[str, Any]]:
    """The fields of each partition, those of paths that follow each other together."""
    paths: list[str] = []
    for name in map(str, names):
        suffix = Path(name).suffix.lower()
        is_file = suffix in (".tar", *TABLES) and Path(name).is_file()
        if is_file and suffix != ".csv":
            yield from _slices(paths, size)
            paths = []
            yield from [{"source": name}] if suffix == ".tar" else _of_row_groups(name, size)
            continue
        paths += _csv_paths(Path(name)) if is_file else [name]
        while len(paths) >= size:
            yield {"paths": tuple(paths[:size])}
            paths = paths[size:]
    yield from _slices(paths, size)


def _slices(paths: Sequence[str], size: int) -> Iterator[dict[str, Any]]:
    yield from ({"paths": tuple(paths[start : start + size])} for start in range(0, len(paths), size))


def _of_row_groups(name: str, size: int) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(name) as file:
            _image_columns(name, file.schema_arrow)
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    except (OSError, ArrowException) as error:
        raise DataError(
            f"{name} cannot be read as Parquet ({error}); copy it again, or leave it out"
        ) from error
    for group, count in enumerate(counts):
        for start in range(0, count, size):
            yield {"source": name, "row_group": group, "start": start, "stop": min(start + size, count)}


def _image_columns(name: str, schema: Any) -> list[str]:  # noqa: ANN401 - a pyarrow.Schema
    """The columns of a table that are read: `path` and `bytes`, or the `image` of Hugging Face's tables."""
    columns = [column for column in ("path", "bytes") if column in schema.names] or [
        column for column in ("image",) if column in schema.names
    ]
    if not columns:
        raise DataError(
            f"{name} has the columns {', '.join(schema.names)}; a table of photographs has path, "
            "bytes, or image"
        )
    return columns


def _of_table(name: str, row_group: int, start: int, stop: int | None) -> Iterator[Item]:
    from pyarrow import ArrowException, parquet

    folder, row = Path(name).parent, 0
    try:
        with parquet.ParquetFile(name) as file:
            columns = _image_columns(name, file.schema_arrow)
            for batch in file.iter_batches(64, row_groups=[row_group], columns=columns):
                first = min(max(start - row, 0), len(batch))
                last = len(batch) if stop is None else max(stop - row, first)
                for values in batch.slice(first, last - first).to_pylist():
                    yield _item(values.get("image") or values, folder)
                row += len(batch)
                if stop is not None and row >= stop:
                    break
    except (OSError, ArrowException) as error:
        raise DataError(f"{name} cannot be read ({error}); copy it again, or leave it out") from error


def _item(values: Mapping[str, Any], folder: Path) -> Item:
    """Path and content of a row; a path that is to be read is relative to the table's folder."""
    path, content = values.get("path"), values.get("bytes")
    return (path and str(folder / path) if content is None else path), content


def _csv_paths(name: Path) -> list[str]:
    from ramstrans.data.datasets.table import read_photographs  # it imports pandas

    return list(map(str, read_photographs(name, "path")))


def _of_tar(name: str) -> Iterator[Item]:
    from ramstrans.data.reading.formats import has_image_suffix
    from ramstrans.data.reading.listing import is_hidden
    from ramstrans.data.reading.tars import entries_of

    yield from (
        (f"{name}/{entry.name}", None)
        for entry in entries_of(Path(name))
        if has_image_suffix(entry.name) and not is_hidden(entry.name)
    )


class PartitionFolder:
    """The folder of a prediction: `part-000000.parquet`, ..., and what they depend on.

    Args:
        root: The folder.
        settings: What the rows depend on, as plain values.
        partitions: All of them.
        overwrite: Whether other rows there are replaced; other files stay.

    Raises:
        OutputError: The folder holds something else, or is finished.
    """

    def __init__(
        self, root: Path, settings: Mapping[str, Any], partitions: Sequence[Partition], *, overwrite: bool
    ) -> None:
        self.root, self.partitions = root, partitions
        digest = hashlib.sha256(
            "\n".join(map(Partition.to_json, partitions)).encode(errors="backslashreplace")
        )
        values = {**settings, "inputs": digest.hexdigest(), "num_partitions": len(partitions)}
        mark, is_there = root / SETTINGS_FILE, root.exists()
        if is_there and (not root.is_dir() or (any(root.iterdir()) and not mark.is_file())):
            raise OutputError(f"--output {root} is not a folder of predictions; give another")
        goes_on = is_there and not (root / DONE_FILE).exists() and _settings_in(mark) == values
        if not is_there or not mark.is_file() or (overwrite and not goes_on):
            for file in _own_files(root):
                file.unlink()
            write_file(mark, json.dumps(values).encode())
        before = _settings_in(mark)
        if before is None:
            raise OutputError(f"--output {root} is not a folder of predictions; give another")
        changed = [name for name in {**before, **values} if before.get(name) != values.get(name)]
        if changed:
            raise OutputError(
                f"--output {root} holds rows of another command ({', '.join(changed)} differs); give another "
                "folder, or --overwrite true"
            )
        if (root / DONE_FILE).exists():
            raise OutputError(f"--output {root} is finished; give another folder, or --overwrite true")

    def written(self) -> list[Written]:
        """The partitions that an interrupted command left, which are whole; drafts of others are removed."""
        for draft in self.root.glob(".part-*.tmp"):
            draft.unlink(missing_ok=True)
        return [
            counts_of(self.root / partition.name, partition.index)
            for partition in self.partitions
            if (self.root / partition.name).exists()
        ]

    def finish(self, written: Iterable[Written]) -> None:
        """Write the mark of a folder that has all its rows."""
        counts = list(written)
        totals = {"num_rows": sum(entry.num_rows for entry in counts)}
        totals["num_unreadable"] = sum(entry.num_unreadable for entry in counts)
        write_file(self.root / DONE_FILE, json.dumps(totals).encode())


def _own_files(root: Path) -> Iterator[Path]:
    """The files that a folder of predictions is made of, its mark last."""
    for pattern in (DONE_FILE, ".part-*.tmp", "part-*.parquet", SETTINGS_FILE):
        yield from sorted(root.glob(pattern))


def _settings_in(mark: Path) -> dict[str, Any] | None:
    """What the rows of a folder depend on; None if that cannot be read."""
    try:
        values: dict[str, Any] = json.loads(mark.read_bytes())
    except (OSError, ValueError):
        return None
    return values


def counts_of(path: Path, index: int) -> Written:
    """Rows, and rows with an error, of a file."""
    from pyarrow import parquet

    errors = parquet.read_table(path, columns=["error"])["error"]
    return Written(index, len(errors), len(errors) - errors.null_count)


def write_partition(partition: Partition, predictor: BatchPredictor, root: Path) -> Written:
    """Predict a partition into its file; see `write_rows`."""
    from ramstrans.inference.writers import write_parquet

    write = partial(write_parquet, num_labels=predictor.num_labels, multi_label=predictor.multi_label)
    return write_rows(partition, root, predictor.rows, write)


def write_rows(
    partition: Partition,
    root: Path,
    rows_of: Callable[[Iterable[Item]], Iterable[Row]],
    write: Callable[[Iterable[Row], IO[bytes]], None],
) -> Written:
    """Write a partition's file, which appears whole; a source that breaks has a row that says so.

    Args:
        partition: The photographs.
        root: The folder of the file.
        rows_of: The rows of photographs, with a column `error`.
        write: Writes rows into a file that is open, as Parquet.

    Raises:
        OutputError: The file cannot be written.
    """
    problems: list[str] = []

    def items() -> Iterator[Item]:
        try:
            yield from partition.items()
        except DataError as error:
            problems.append(str(error))

    def rows() -> Iterator[Row]:
        yield from rows_of(items())
        yield from ({"path": partition.source, "error": problem} for problem in problems)

    with new_file(root / partition.name, sync=False) as stream:
        write(rows(), stream)
    return counts_of(root / partition.name, partition.index)


def summary(written: Sequence[Written]) -> str:
    """Rows, partitions and unreadable photographs in a line."""
    total, unreadable = (sum(entry[column] for entry in written) for column in (1, 2))
    return (
        f"{counted(total, 'image')} in {counted(len(written), 'partition')}, {unreadable} of them unreadable"
    )
