"""Read a table of ranks: a line per class, its groups from fine to coarse."""

import csv
import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

from ramstrans.calibration.taxonomy import Taxonomy, taxonomy_of
from ramstrans.errors import DataError, first_few
from ramstrans.plain import counted

logger = logging.getLogger(__name__)

_SEPARATORS = (",", ";", "\t")

Rows = dict[str, tuple[str, ...]]
"""The cells behind each class."""


def read_rank_table(path: Path, class_names: Sequence[str]) -> Taxonomy:
    """Read a taxonomy from a table (CSV): its header names the ranks, its first column is the class.

    Further columns go from fine to coarse. An empty cell means that the class has no such rank. Classes that
    the model lacks are left out, and counted.

    Args:
        path: The table.
        class_names: Of the model, in label order.

    Raises:
        DataError: The header or a line is wrong, a class of the model is missing or there twice, a group lies
            in two groups, names are above each other in a circle, or no rank divides the classes.
    """
    header, lines = read_lines(path)
    _check_header(path, header, class_names)
    rows = _rows(path, header, lines)
    missing = [f"'{name}'{_nearest(name, rows)}" for name in class_names if name not in rows]
    if missing:
        raise DataError(
            f"{path} has no line for {len(missing)} of the model's {len(class_names)} classes: "
            f"{first_few(missing)}; add them"
        )
    own = set(class_names)
    if others := [f"'{name}'" for name in rows if name not in own]:
        logger.warning(
            "%s: left out, as the model does not have %s: %s",
            *(path, "this class" if len(others) == 1 else "these classes", first_few(others)),
        )
    known = {name: rows[name] for name in class_names}
    _check_circles(path, known)
    _check_nested(path, header, known)
    found = taxonomy_of(header, list(known.values()), source=path.name)
    if found is None:
        raise DataError(
            f"{path}: {', '.join(header[1:])} put all classes of the model into one group, which says "
            "nothing; add a rank that divides them"
        )
    if left_out := [rank for rank in header if rank not in found.ranks]:
        logger.info("%s: all classes are in one group of %s, left out", path, " and ".join(left_out))
    return found


def read_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a text table, and number and cells of each line that is not blank.

    It is separated by whichever of comma, semicolon and tab is most frequent in the header.

    Raises:
        DataError: It cannot be read, or is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); give a text table") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
    separator = max(_SEPARATORS, key=text.split("\n", maxsplit=1)[0].count)
    reader, lines = csv.reader(io.StringIO(text), delimiter=separator), []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                lines.append((reader.line_num, stripped))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; save it as CSV again") from error
    if not lines:
        raise DataError(f"{path} is empty; give a line per class")
    return lines[0][1], lines[1:]


def _check_header(path: Path, header: Sequence[str], class_names: Sequence[str]) -> None:
    hint = "the header names the ranks, e.g. class,genus,family"
    if header[0] in class_names:
        raise DataError(f"{path} begins with the class '{header[0]}'; {hint}")
    if len(header) < 2:
        raise DataError(f"{path} has one column only, '{header[0]}'; {hint}")
    if "" in header or len(set(header)) < len(header):
        what = "a column without a name" if "" in header else "two columns of one name"
        raise DataError(f"{path} has {what} ({', '.join(header)}); {hint}")


def _rows(path: Path, header: Sequence[str], lines: Iterable[tuple[int, list[str]]]) -> Rows:
    rows: Rows = {}
    for number, (name, *groups) in lines:
        if len(groups) + 1 != len(header):
            raise DataError(
                f"{path}, line {number}: {counted(len(groups) + 1, 'cell')}, and the header has "
                f"{len(header)}: {', '.join(header)}; leave cells empty, but do not leave them out"
            )
        if not name:
            raise DataError(f"{path}, line {number}: '{header[0]}' is empty; name the class")
        if name in rows:
            raise DataError(f"{path}, line {number}: '{name}' is there twice; remove one line")
        rows[name] = tuple(groups)
    return rows


def _check_nested(path: Path, header: Sequence[str], rows: Rows) -> None:
    """Raise if a group lies in two groups of the same rank, or has one for some of its classes only."""
    for index, rank in enumerate(header[1:-1]):
        seen: dict[str, tuple[str, tuple[str, ...]]] = {}
        for name, groups in rows.items():
            if not groups[index]:
                continue
            before, above = seen.setdefault(groups[index], (name, groups[index + 1 :]))
            for upper, one, other in zip(header[index + 2 :], above, groups[index + 1 :], strict=True):
                if one != other:
                    raise DataError(
                        f"{path}: {rank} '{groups[index]}' is in {_in(upper, one)} by '{before}' and in "
                        f"{_in(upper, other)} by '{name}'; correct one"
                    )


def _in(rank: str, group: str) -> str:
    return f"{rank} '{group}'" if group else f"no {rank}"


def _check_circles(path: Path, rows: Rows) -> None:
    """Raise if a name is above itself, at whatever ranks; one may be repeated at the next rank."""
    above: dict[str, set[str]] = {}
    for name, groups in rows.items():
        chain = [name, *filter(None, groups)]
        for lower, upper in pairwise(chain):
            if lower != upper:
                above.setdefault(lower, set()).add(upper)
    done: set[str] = set()
    for start in above:
        way: list[str] = []
        waiting: list[Iterator[str]] = [iter((start,))]
        while waiting:
            found = next(waiting[-1], None)
            if found is None:
                waiting.pop()
                if way:
                    done.add(way.pop())
            elif found in way:
                circle = " < ".join(f"'{each}'" for each in [*way[way.index(found) :], found])
                raise DataError(f"{path}: the ranks form a circle, {circle}; correct one of these lines")
            elif found not in done:
                way.append(found)
                waiting.append(iter(above.get(found, ())))


def _nearest(name: str, rows: Rows) -> str:
    """A class of the table that may be meant."""
    near = get_close_matches(name, rows, 1, 0.8)
    return f" (is it '{near[0]}'?)" if near else ""
