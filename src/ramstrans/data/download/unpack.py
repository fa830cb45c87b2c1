"""Unpack archives safely: nothing outside the folder, no links out of it, no devices.

Tar files go through the `data` filter of PEP 706 (https://peps.python.org/pep-0706/), which also ignores
owners. `zipfile` itself writes regular files and folders only, and none outside.
"""

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from ramstrans.console import Progress, no_progress
from ramstrans.errors import DataError
from ramstrans.files import not_writable

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")

_CHUNK = 2**20
_UNUSABLE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError),
    *(RuntimeError, UnicodeError),  # a zip file that is encrypted, or of an unknown version
)


def unpack(archive: Path, folder: Path, progress: Progress = no_progress) -> None:
    """Unpack a tar file, plain or gzipped, or a zip file, by its name.

    Args:
        archive: Its name ends with one of `SUFFIXES`, in any case.
        folder: An existing folder that nobody else writes to. An error leaves it half filled.
        progress: Reports bytes of a tar file, or unpacked ones of a zip file.

    Raises:
        DataError: It is damaged, or has a member that must not be unpacked.
        OutputError: The folder cannot be written.
    """
    members = _unpack_zip if archive.name.lower().endswith(".zip") else _unpack_tar
    try:
        for done, total in members(archive, folder):
            progress(done, total, f"unpacking {archive.name}")
    except _UNUSABLE as error:
        raise DataError(f"{archive} was not unpacked: {error}; remove it and download it again") from error
    except OSError as error:
        raise not_writable(folder, error) from error


def _unpack_tar(archive: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Unpack in one pass to the last byte, so that gzip compares its checksum."""
    size = archive.stat().st_size
    with archive.open("rb") as raw:
        is_plain = archive.name.lower().endswith(".tar")
        stream = cast("IO[bytes]", raw if is_plain else gzip.GzipFile(fileobj=raw))
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as tar:
            for member in tar:
                tar.extract(member, folder, filter="data")
                tar.members.clear()  # type: ignore[attr-defined] # 2.7 million would fill the memory
                yield raw.tell(), size
        while stream.read(_CHUNK):
            pass


def _unpack_zip(archive: Path, folder: Path) -> Iterator[tuple[int, int]]:
    with zipfile.ZipFile(archive) as bundle:
        done, total = 0, sum(member.file_size for member in bundle.infolist())
        for member in bundle.infolist():
            if not member.filename:
                raise zipfile.BadZipFile("a file without a name")  # zipfile itself ends in an IndexError
            bundle.extract(member, folder)
            done += member.file_size
            yield done, total
