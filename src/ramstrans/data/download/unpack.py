"""Unpack archives safely: nothing outside the folder, no devices, no more than the disk holds.

Tar files go through the `data` filter of PEP 706 (https://peps.python.org/pep-0706/), which refuses devices
and links out of the folder and ignores owners. Zip files get the same checks here.
"""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath
from typing import IO, cast

from ramstrans.console import Progress, no_progress
from ramstrans.errors import DataError, OutputError
from ramstrans.files import not_writable

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")

_CHUNK = 2**20


class UnsafeArchiveError(Exception):
    """A member that must not be unpacked."""


_UNUSABLE = (
    *(UnsafeArchiveError, tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError),
    *(RuntimeError, UnicodeError),  # a zip file that is encrypted, or of an unknown version
)


def is_archive(name: str) -> bool:
    """Whether a file is an archive, by its name.

    >>> is_archive("images.TAR.GZ"), is_archive("setid.mat")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path, progress: Progress = no_progress) -> None:
    """Unpack a tar file, plain or gzipped, or a zip file, by its name.

    Args:
        archive: Its name ends with one of `SUFFIXES`.
        folder: An existing folder that nobody else writes to. An error leaves it half filled.
        progress: Reports bytes of a tar file, or unpacked ones of a zip file.

    Raises:
        DataError: It is damaged, or has a member that must not be unpacked.
        OutputError: The folder cannot be written, or its disk has too little space.
    """
    if not is_archive(archive.name):
        raise DataError(f"{archive} is not an archive; allowed are {' '.join(SUFFIXES)}")
    read = _unpack_zip if archive.name.lower().endswith(".zip") else _unpack_tar
    try:
        read(archive, folder, progress)
    except _UNUSABLE as error:
        raise DataError(f"{archive} was not unpacked: {error}; remove it and download it again") from error
    except OSError as error:
        raise not_writable(folder, error) from error


def check_space(folder: Path, num_bytes: int) -> None:
    """Raise unless a folder's disk has that much space.

    Raises:
        OutputError: It has less space.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise OutputError(
            f"{folder} has {free / 1e9:.1f} GB free, {num_bytes / 1e9:.1f} GB are needed; "
            "free some space, or give a folder on another disk"
        )


def _unpack_tar(archive: Path, folder: Path, progress: Progress) -> None:
    """Unpack in one pass to the last byte, so that gzip compares its checksum."""
    size = archive.stat().st_size
    with archive.open("rb") as raw:
        is_zipped = not archive.name.lower().endswith(".tar")
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if is_zipped else raw)
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as tar:
            for member in tar:
                _check_name(member.name)
                tar.extract(member, folder, filter="data")
                tar.members.clear()  # type: ignore[attr-defined] # 2.7 million would fill the memory
                progress(raw.tell(), size, f"unpacking {archive.name}")
        while stream.read(_CHUNK):
            pass


def _unpack_zip(archive: Path, folder: Path, progress: Progress) -> None:
    with zipfile.ZipFile(archive) as bundle:
        members = bundle.infolist()
        for member in members:
            _check_name(member.orig_filename)
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnsafeArchiveError(f"{member.filename!r} is a link, a device or a pipe")
        done, total = 0, sum(member.file_size for member in members)
        check_space(folder, total)
        for member in members:
            bundle.extract(member, folder)
            done += member.file_size
            progress(done, total, f"unpacking {archive.name}")


def _check_name(name: str) -> None:
    """Raise unless a member's path is relative and stays below the folder, on any system."""
    path = PureWindowsPath(name)
    if path.drive or path.root:
        raise UnsafeArchiveError(f"the path {name!r} is absolute")
    if ".." in path.parts or "\0" in name:
        raise UnsafeArchiveError(f"the path {name!r} has '..' or a zero byte in it")
