"""Which photographs a user means: files, folders, or a list of paths on standard input."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from ramstrans.data.datasets.image_folder import IMAGE_SUFFIXES
from ramstrans.errors import DataError, UsageError

STDIN = "-"


def expand_inputs(arguments: Sequence[str | Path], stdin: Iterable[str]) -> Iterator[Path]:
    """The photographs that the arguments name, in their order.

    A file, missing or not, stands for itself, so that the one that cannot be read is reported where it
    belongs. A folder stands for all images in it and below, sorted by path, hidden ones and links to
    folders left out. `-` stands for the paths on standard input, one a line, which are read as they are
    needed.

    Args:
        arguments: Files, folders and `-`.
        stdin: Lines of standard input; looked at for `-` only.

    Returns:
        An iterator over paths; the arguments themselves are checked at once.

    Raises:
        UsageError: Nothing was given, or `-` twice.
        DataError: A folder holds no images.

    >>> list(map(str, expand_inputs(["wren.jpg", "-"], ["crow.png", "owl.png"])))
    ['wren.jpg', 'crow.png', 'owl.png']
    """
    names = [str(argument) for argument in arguments]
    if not names:
        raise UsageError(
            "no photographs were given; name files or folders, or - for a list on standard input"
        )
    if names.count(STDIN) > 1:
        raise UsageError("- was given twice; standard input can be read only once")
    for name in names:
        if name != STDIN and _is_folder(Path(name)) and next(_images(Path(name)), None) is None:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{name} holds no images ({suffixes}); name a folder with some, or files")
    lines = (line for line in (line.rstrip("\r\n") for line in stdin) if line.strip())
    listed = chain.from_iterable(lines if name == STDIN else (name,) for name in names)
    return chain.from_iterable(map(_expand, map(Path, listed)))


def _expand(path: Path) -> Iterator[Path]:
    """A file as itself, a folder as its images; a folder without any as itself, to be reported."""
    images = _images(path) if _is_folder(path) else iter(())
    first = next(images, path)
    return chain((first,), images)


def _images(folder: Path) -> Iterator[Path]:
    """All images in a folder and below, sorted by path, one folder listed at a time."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        yield folder  # not ours to list: reported like a file that cannot be read
        return
    for entry in entries:
        if _is_folder(entry):
            if not entry.is_symlink():  # it may lead back here
                yield from _images(entry)
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            yield entry


def _is_folder(path: Path) -> bool:
    """Whether this is a folder; False where the system refuses to say, e.g. for a name too long."""
    try:
        return path.is_dir()
    except OSError:
        return False
