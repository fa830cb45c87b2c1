"""Tables of photographs among the inputs: their paths, and their columns for priors."""

from pathlib import Path

from ramstrans.data.image_priors import Cells
from ramstrans.inference.arguments import Arguments

TABLES = (".csv", ".tsv", ".xlsx", ".parquet", ".pq")


def with_tables(named: Arguments, *, with_cells: bool) -> tuple[Arguments, Cells]:
    """Replace each table by the photographs in its column `path`, relative to the table's folder.

    Args:
        named: The arguments.
        with_cells: Whether the other cells are needed; then a photograph has one row, or several alike.

    Returns:
        The arguments, and the other cells of each photograph.

    Raises:
        DataError: A table cannot be read, or has no column `path`.
    """
    names: list[str] = []
    cells: dict[Path, dict[str, str]] = {}
    for name in named.names:
        if not (name.lower().endswith(TABLES) and Path(name).is_file()):
            names.append(name)
            continue
        from ramstrans.data.datasets.table import read_cells, read_photographs  # they import pandas

        if with_cells:
            files, of_table = read_cells(Path(name), "path")
            cells |= of_table
        else:
            files = read_photographs(Path(name), "path")
        names += map(str, files)
    return named._replace(names=tuple(names)), cells
