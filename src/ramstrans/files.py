"""Files and folders that appear whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ramstrans.errors import OutputError


def write_file(path: Path, content: bytes, *, sync: bool = True, hint: str = "give another folder") -> None:
    """Write a file under a temporary name beside it, then rename: no reader ever sees half of it.

    Missing folders are created; an existing file is replaced. The options are those of `new_file`.

    Raises:
        OutputError: It cannot be written; nothing of it is left.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_file(Path(folder, "new", "note.txt"), b"wren")
    ...     Path(folder, "new", "note.txt").read_text()
    'wren'
    """
    with new_file(path, sync=sync, hint=hint) as stream:
        stream.write(content)


DRAFTS = ".*.tmp"
"""Names of files that are being written, see `new_file`."""


@contextmanager
def new_file(path: Path, *, sync: bool = True, hint: str = "give another file") -> Iterator[BinaryIO]:
    """Open a stream to a temporary file that becomes `path` at the end, and is removed on any error.

    Its folder is created if necessary. With `sync` it waits until the disk has it all.

    Raises:
        OutputError: It cannot be written; nothing of it is left. The message ends with the hint.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        raise not_writable(path, error, hint) from error
    finally:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def new_folder(root: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `root`, new or empty so far; an error leaves nothing behind.

    A link to an empty folder leads to what is written.

    Raises:
        OutputError: It is not empty, or cannot be written.
    """
    check_new_folder(root)
    root = root.resolve()
    draft = root.parent / f".{root.name}-{uuid.uuid4().hex[:8]}.partial"
    try:
        with _writing(root):
            draft.mkdir(parents=True)
        yield draft
        with _writing(root):
            draft.replace(root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_new_folder(root: Path) -> None:
    """Raise unless a folder can be created, or is empty.

    Raises:
        OutputError: It is not empty, is a file, or is a mount point, which cannot be replaced by a rename.
    """
    with _writing(root):
        if root.resolve().is_mount():  # `.` alone is its own parent, as a mount point is
            raise OutputError(f"{root} is a mount point; give a new folder in it")
        if root.exists() and any(root.iterdir()):
            raise OutputError(f"{root} is not empty; give a new folder, or remove this one first")


def check_output(
    path: Path | None,
    *,
    overwrite: bool = False,
    suffixes: tuple[str, ...] = (),
    option: str = "--output",
) -> None:
    """Raise, before any work is done, unless the file of an option may be written; None passes.

    It must have one of the `suffixes`, if any are given.

    Raises:
        OutputError: As `check_outputs`, or it has another suffix.
    """
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise OutputError(f"{option} {path} must end in {' or '.join(suffixes)}; rename it")
    check_outputs((path,), overwrite=overwrite, option=option)


def check_outputs(paths: Iterable[Path], *, overwrite: bool = False, option: str = "--output") -> None:
    """Raise, before any work is done, unless a command may write all of these files.

    Raises:
        OutputError: One would be written twice, exists and may not be overwritten, is a folder, or lies where
            nothing can be written.

    >>> check_outputs((Path("0.png"), Path("./0.png")))
    Traceback (most recent call last):
    ramstrans.errors.OutputError: 0.png would be written twice; give inputs with different names
    """
    seen: set[Path] = set()
    for path in paths:
        place = path.resolve()
        if place in seen:
            raise OutputError(f"{path} would be written twice; give inputs with different names")
        seen.add(place)
        if path.is_dir():
            raise OutputError(f"{option} {path} is a folder; give a file")
        if path.exists() and not overwrite:
            raise OutputError(f"{option} {path} exists; give another, or --overwrite true to replace it")
        _check_writable(path.parent, path)


def check_output_folder(folder: Path | None, mark: str, *, overwrite: bool = False, hint: str = "") -> None:
    """Raise, before any work is done, unless the folder of `--output` may be filled; None passes.

    It is new or empty, or may be overwritten and holds the `mark`, a file by which its kind is known. The
    hint says what else to do if it exists.

    Raises:
        OutputError: It may not be filled, or cannot be written.
    """
    if folder is None:
        return
    _check_writable(folder, folder)
    if not (folder.is_dir() and any(not path.match(DRAFTS) for path in folder.iterdir())):
        return  # another process may be about to write the mark
    if not overwrite:
        raise OutputError(f"--output {folder} exists; give another, or --overwrite true to replace it{hint}")
    if not (folder / mark).exists():
        raise OutputError(
            f"--output {folder} has no {mark}, so it is not this command's; give another folder"
        )


def _check_writable(folder: Path, output: Path) -> None:
    """Raise OutputError unless a folder, or the nearest one above it that exists, can be written to."""
    nearest = _nearest(folder)
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise OutputError(f"--output {output}: {nearest} is not a folder that you can write to; give another")


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it, that exists."""
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


def make_folder(folder: Path, *, empty: bool = False, hint: str = "give another folder") -> None:
    """Create a folder, unless it is there; with `empty`, delete what it holds first.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        if empty and folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(folder, error, hint) from error


def check_room(path: Path, needed: int, what: str) -> None:
    """Raise unless the disk of a path, which need not exist yet, has room for so many bytes.

    Raises:
        OutputError: It has less.
    """
    folder = _nearest(path)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"the disk of {folder} has {free / 1e6:,.0f} MB left; {what} take {needed / 1e6:,.0f} MB: "
            "free some, or give a folder on another disk"
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_writable(path, error) from error


def not_writable(path: Path, error: OSError, hint: str = "give another folder") -> OutputError:
    """The error for a path that cannot be written."""
    return OutputError(f"{path} cannot be written ({error.strerror or type(error).__name__}); {hint}")
