"""Command-line arguments that name images: patterns that the shell left alone, URLs, what does not exist."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ramstrans.data.reading.listing import LeftOut, images_below
from ramstrans.data.reading.tars import find_member
from ramstrans.errors import DataError, UnreadableImageError, UsageError, first_few
from ramstrans.plain import counted

STDIN = "-"

_is_folder = os.path.isdir  # False where Path.is_dir raises, e.g. because the name is too long
_URL = re.compile(r"(?:https?|ftps?|sftp|s3|gs|az|hdfs|hf|file|data):/", re.IGNORECASE)
"""`Path` takes the second slash away. A folder's name may end in a colon, too."""


class Arguments(NamedTuple):
    """What command-line arguments name.

    Attributes:
        names: The arguments, each pattern replaced by what it matches, in order.
        missing: Those that name nothing that exists.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...]


def resolve_arguments(arguments: Iterable[str | Path]) -> Arguments:
    """Expand patterns, such as `'photos/*.jpg'`, that no file or folder is called, and find what is missing.

    What a pattern matches is sorted; `**` matches folders of any depth. A pattern without a match and a name
    without a file stay in the list, so that they are reported among the others.
    """
    names: list[str] = []
    missing: list[str] = []
    for argument in map(str, arguments):
        is_there = argument == STDIN or _exists(argument)
        is_pattern = not is_there and glob.has_magic(argument)
        matches = sorted(glob.glob(argument, recursive=True)) if is_pattern else []  # noqa: PTH207
        names += matches or [argument]
        missing += [] if is_there or matches else [argument]
    return Arguments(tuple(names), tuple(missing))


def name_of(path: Path) -> str:
    """The name that was given for a path: a URL has its second slash again.

    >>> name_of(Path("https://birds.org/wren.jpg")), name_of(Path("birds/wren.jpg"))
    ('https://birds.org/wren.jpg', 'birds/wren.jpg')
    """
    scheme, text = _URL.match(str(path)), str(path)
    return f"{scheme[0]}/{text[scheme.end() :]}" if scheme else text


def why_missing(path: Path) -> str:
    """Why a path that does not exist names no image, and what to do.

    >>> why_missing(Path("wren.jpg")), why_missing(Path("https://birds.org/wren.jpg"))
    ('no such file', 'a URL; download it and name the file')
    >>> why_missing(Path("birds/*.jpg"))
    'no file matches this pattern'
    """
    if _URL.match(str(path)):
        return "a URL; download it and name the file"
    return "no file matches this pattern" if glob.has_magic(str(path)) else "no such file"


def check_any_read(arguments: Arguments, num_images: int, num_read: int) -> None:
    """Raise, once all rows are written, if a named input does not exist or nothing could be read.

    Raises:
        DataError: Exit code 3.

    >>> check_any_read(Arguments(("a.jpg",), ()), 1, 1)
    >>> check_any_read(Arguments(("a.jpg", "b.jpg"), ("b.jpg",)), 2, 1)
    Traceback (most recent call last):
    ramstrans.errors.DataError: b.jpg: no such file; 1 image was read all the same
    """
    if arguments.missing:
        reasons = [f"{name}: {why_missing(Path(name))}" for name in arguments.missing]
        rest = f"{counted(num_read, 'image')} {'was' if num_read == 1 else 'were'} read all the same"
        raise DataError(f"{first_few(reasons)}; {rest if num_read else 'nothing was read'}")
    if num_images == 0:
        raise DataError("the list of images is empty; put a path on each line")
    if num_read == 0:
        raise DataError(f"nothing could be read of {counted(num_images, 'image')}; each row has the reason")


def _exists(name: str) -> bool:
    """Whether a file, folder or member of a tar has this name; True if only reading it can tell."""
    try:
        Path(name).stat()
    except (FileNotFoundError, NotADirectoryError):
        try:
            return find_member(Path(name)) is not None
        except UnreadableImageError:
            return False
    except (OSError, ValueError):
        return True
    return True


def expand_inputs(arguments: Sequence[str | Path], listed: Iterable[str] = ()) -> Iterator[Path]:
    """List the image files that command-line arguments stand for, in order.

    A file stands for itself even if it is missing, so that it is reported among the others. A folder stands
    for all images in it and below, sorted by path, without hidden ones and links to folders; once it is
    listed, one warning counts what was left out, by kind. `-` stands for the `listed` paths, those on
    standard input, which are read as they are needed. The arguments themselves are checked at once.

    Raises:
        UsageError: No arguments, or `-` twice.
        DataError: A folder contains no images.

    >>> list(map(str, expand_inputs(["wren.jpg", "-"], ["crow.png", "owl.png"])))
    ['wren.jpg', 'crow.png', 'owl.png']
    """
    names = [str(argument) for argument in arguments]
    if not names:
        raise UsageError(
            "no images were given; name files or folders, tables with rows, or - for a list on standard input"
        )
    if names.count(STDIN) > 1:
        raise UsageError("- was given twice; standard input can be read only once")
    for name in names:
        if name != STDIN and _is_folder(name):
            _check_folder(Path(name))
    paths = chain.from_iterable(listed if name == STDIN else (name,) for name in names)
    return chain.from_iterable(map(_expand, map(Path, paths)))


def _expand(path: Path) -> Iterator[Path]:
    """List a file as itself, a folder as its images; one without images as itself, to be reported."""
    if not _is_folder(path):
        yield path
        return
    left_out, unlisted = LeftOut(), []
    images = images_below(path, left_out, lambda folder, _error: unlisted.append(folder))
    is_empty = True
    for image in images:
        is_empty = False
        yield image
    # no permission to list them: reported like files that cannot be read
    yield from unlisted or ([path] if is_empty else ())
    left_out.log(path)


def _check_folder(folder: Path) -> None:
    """Raise unless there is an image in a folder, or a folder that cannot be listed, which is reported."""
    left_out, unlisted = LeftOut(), []
    images = images_below(folder, left_out, lambda inner, _error: unlisted.append(inner))
    if next(images, None) is None and not unlisted:
        only = f", only {left_out}" if left_out else ""
        raise DataError(f"{folder} contains no images{only}; name a folder with some, or files")
