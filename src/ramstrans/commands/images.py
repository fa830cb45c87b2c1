"""What commands that take images share: their arguments, and folders that are filled by partitions."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ramstrans.commands.options import Parser
from ramstrans.console import progress_of_many

if TYPE_CHECKING:
    from ramstrans.inference.arguments import Arguments
    from ramstrans.inference.partitions import Partition, PartitionFolder, Written

logger = logging.getLogger(__name__)

INPUTS = "Image files, folders, patterns such as 'photos/*.jpg', or - for paths on standard input."


def takes_images(
    parser: Parser, command: Callable[..., int], about: str = INPUTS, nargs: Literal["+", "*"] = "+"
) -> None:
    """Let a command take images, after what else its function needs; its other parameters are options."""
    parser.add_function_arguments(command, as_group=False, as_positional=True, skip={"inputs"})
    parser.add_argument("inputs", nargs=nargs, type=str, help=about)


def paths_of(named: "Arguments") -> tuple[Iterable[str | Path], int]:
    """The image files that arguments name, and how many; 0 if a list on standard input is still to come."""
    from ramstrans.data.reading.text import read_paths
    from ramstrans.inference.arguments import STDIN, expand_inputs

    paths = expand_inputs(named.names, read_paths(sys.stdin.buffer))
    if STDIN in named.names:
        return paths, 0
    listed = [str(path) for path in paths]
    return listed, len(listed)


def unique_paths(named: "Arguments") -> list[Path]:
    """The image files that arguments name, each once, in order."""
    unique: dict[str, Path] = {}
    for path in paths_of(named)[0]:
        unique.setdefault(os.path.abspath(path), Path(path))  # noqa: PTH100 - links stay
    return list(unique.values())


def fill_folder(
    folder: "PartitionFolder",
    named: "Arguments",
    write: Callable[[Sequence["Partition"]], Iterable["Written"]],
    doing: str,
    *,
    rows: str = "",
) -> None:
    """Write the partitions that a folder does not have yet, and say what it holds then.

    Args:
        folder: Perhaps with partitions that an interrupted command left.
        named: The arguments that its partitions are of.
        write: Writes partitions, and yields each once it is on the disk.
        doing: For the progress, e.g. `predicting`.
        rows: What is said of each row.

    Raises:
        DataError: Nothing could be read, or one of the arguments does not exist.
    """
    from ramstrans.inference.arguments import check_any_read
    from ramstrans.inference.partitions import summary

    written = folder.written()
    if written:
        logger.info("going on after %s", summary(written))
    done = {entry.partition for entry in written}
    rest = [partition for partition in folder.partitions if partition.index not in done]
    with progress_of_many() as progress:
        for entry in write(rest) if rest else ():
            written.append(entry)
            progress(len(written), len(folder.partitions), f"{doing} partitions")
    folder.finish(written)
    logger.info("%s: %s%s", folder.root, summary(written), rows)
    num_rows, num_unreadable = (sum(entry[column] for entry in written) for column in (1, 2))
    check_any_read(named, num_rows, num_rows - num_unreadable)
