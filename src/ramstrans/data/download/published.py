"""A published data set into a new folder: its files downloaded, checked and unpacked."""

import re
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from ramstrans.console import Progress
from ramstrans.data.download.fetch import Fetched, Say, check_space, fetch
from ramstrans.data.download.registry import REGISTRY, DatasetSource, PublishedFile
from ramstrans.data.download.unpack import check_new, is_archive, new_folder, unpack
from ramstrans.errors import DataError, OutputError
from ramstrans.files import write_file

_RECORDED = re.compile(r"([0-9a-f]{64})  (.+)")


def download_data_set(
    name: str,
    root: Path,
    *,
    keep_archives: bool = False,
    say: Say = lambda _: None,
    progress: Progress = lambda *_: None,
) -> None:
    """Download a published data set and unpack it into a new folder, which appears once it is whole.

    Its files come into `ROOT.archives` beside it, where an interrupted download goes on the next time, and
    which is removed at the end. The SHA-256 of a file without a published checksum is written to
    `ROOT.sha256` beside it, as sha256sum does; a later download must have it.

    Args:
        name: A key of `REGISTRY`.
        root: Folder to make; may exist if it is empty.
        keep_archives: Whether `ROOT.archives` stays.
        say: Told the terms, each retry, and what else there is to know.
        progress: Told how far it is, in bytes.

    Raises:
        DataError: There is no direct download (says how to get it), or a file cannot be had or unpacked.
        OutputError: The folder holds something or cannot be written, or the disk has too little room.
    """
    publication = REGISTRY[name]
    if not publication.files:
        raise DataError(
            f"{publication.title} cannot be downloaded directly: {publication.directions}; "
            f"then read it by --data.name {publication.layout} --data.root FOLDER"
        )
    root = root.resolve()
    check_new(root)
    archives = root.with_name(f"{root.name}.archives")
    say(f"{publication.title}: {_gigabytes(publication.num_bytes)} to download, see {publication.page}")
    say(f"terms: {publication.terms}")
    try:
        archives.mkdir(parents=True, exist_ok=True)
        with FileLock(archives / ".lock", timeout=0):
            check_new(root)  # again: whoever held the lock before may have made it
            _check_room(publication, archives)
            fetched = _fetch_all(publication, root, archives, say, progress)
            _unpack_all(publication, root, fetched, say, progress)
            _record_unpublished(publication, root, fetched, say)
        if not keep_archives:
            shutil.rmtree(archives)
    except Timeout as error:
        raise OutputError(
            f"another download into {root} is going on; wait for it, or give another folder"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{root} cannot be written: {error.strerror or error}; give another folder"
        ) from error


def _check_room(publication: DatasetSource, archives: Path) -> None:
    """Photographs do not get smaller in an archive, so what is unpacked takes as much again, at least."""
    missing = sum(max(0, file.num_bytes - _size_there(archives / file.name)) for file in publication.files)
    check_space(archives, missing + publication.num_bytes)


def _size_there(path: Path) -> int:
    """How much has come of a file."""
    for candidate in (path, path.with_name(f"{path.name}.part")):
        if candidate.is_file():
            return candidate.stat().st_size
    return 0


def _fetch_all(
    publication: DatasetSource, root: Path, archives: Path, say: Say, progress: Progress
) -> list[Fetched]:
    record = _record_of(root)
    known, fetched = _read_record(record), []
    for file in publication.files:
        checksums, origin = file.checksums, "the catalogue"
        if not checksums and file.name in known:
            checksums, origin = {"sha256": known[file.name]}, f"{record}, from the first download,"
        result = fetch(
            file.url,
            archives / file.name,
            checksums,
            file.num_bytes if file.is_size_exact else None,
            origin=origin,
            say=say,
            progress=progress,
        )
        checked = f"{', '.join(checksums)} as {origin} has it" if checksums else "no checksum to compare with"
        retries = f", {result.num_retries} retries" if result.num_retries else ""
        say(f"{file.name}: {'downloaded' if result.is_new else 'was there already'}{retries}; {checked}")
        fetched.append(result)
    return fetched


def _unpack_all(
    publication: DatasetSource, root: Path, fetched: list[Fetched], say: Say, progress: Progress
) -> None:
    with new_folder(root) as partial:
        for file, result in zip(publication.files, fetched, strict=True):
            _place(file, result.path, partial, progress)
        for path in publication.holds:
            if not (partial / path).exists():
                say(f"{root} holds no {path}: the publisher may have changed the set since we last looked")


def _place(file: PublishedFile, path: Path, folder: Path, progress: Progress) -> None:
    """Unpack an archive, or copy what is none."""
    target = folder / file.into
    target.mkdir(exist_ok=True)
    if is_archive(file.name):
        unpack(path, target, progress=lambda done, total: progress(done, total, f"unpacking {file.name}"))
    else:
        shutil.copyfile(path, target / file.name)


def _record_unpublished(publication: DatasetSource, root: Path, fetched: list[Fetched], say: Say) -> None:
    """Write down the checksums of files that had none: they are trusted once they could be unpacked."""
    record = _record_of(root)
    known = _read_record(record)
    new = {
        file.name: result.sha256
        for file, result in zip(publication.files, fetched, strict=True)
        if not file.checksums and file.name not in known
    }
    if new:
        lines = (f"{sha256}  {name}\n" for name, sha256 in (known | new).items())
        write_file(record, "".join(lines).encode())
        say(f"no checksum is published of {', '.join(new)}: wrote theirs to {record}, for the next download")


def _record_of(root: Path) -> Path:
    return root.with_name(f"{root.name}.sha256")


def _read_record(record: Path) -> dict[str, str]:
    """SHA-256 by name of the files of earlier downloads."""
    known: dict[str, str] = {}
    try:
        lines = record.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return known
    except UnicodeDecodeError as error:
        raise DataError(f"{record} is no text; remove it") from error
    for number, line in enumerate(lines, start=1):
        found = _RECORDED.fullmatch(line)
        if found is None:
            raise DataError(f"{record}, line {number}: not a SHA-256 and a name; mend it, or remove the file")
        known[found[2]] = found[1]
    return known


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
