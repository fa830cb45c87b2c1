"""Files inside tars: a path may lead into one, as in `shards/train-000000.tar/000123.jpg`.

A member is read by its offset in the tar, known from the list beside a shard of ours, or from one pass over
the headers of any other tar. Each read opens the tar, as it would open an image file.
"""

import functools
import json
import os
import re
import stat
import tarfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramstrans.data.reading.retry import open_retrying
from ramstrans.errors import DataError, UnreadableImageError

_TAR_IN_PATH = re.compile(r"\.tar/")
_BLOCK = tarfile.BLOCKSIZE
_LIST_BEGINS = b'{"file"'
_index_lock = threading.Lock()


class Entry(NamedTuple):
    """A file in a tar: its name, and the offset and size of its content in bytes."""

    name: str
    offset: int
    size: int


class TarIndex(NamedTuple):
    """The files of a tar, in arrays: a process may hold the indices of millions of files.

    Attributes:
        names: (N,) bytes, sorted.
        offsets: (N,) int64, of their contents, in bytes.
        sizes: (N,) int64, in bytes.
    """

    names: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "TarIndex":
        """Index entries in any order; of two with the same name the last one counts, as for tar itself."""
        by_name = dict(sorted({os.fsencode(entry.name): entry for entry in entries}.items()))
        offsets = np.array([entry.offset for entry in by_name.values()], np.int64)
        sizes = np.array([entry.size for entry in by_name.values()], np.int64)
        return cls(np.array(list(by_name), dtype=np.bytes_), offsets, sizes)

    def find(self, name: str) -> Entry | None:
        """The entry with a name, or None.

        >>> index = TarIndex.of([Entry("wren.jpg", 2048, 7), Entry("crow.jpg", 512, 11)])
        >>> index.find("wren.jpg"), index.find("owl.jpg")
        (Entry(name='wren.jpg', offset=2048, size=7), None)
        """
        index = int(np.searchsorted(self.names, os.fsencode(name)))
        if index == len(self.names) or self.names[index] != os.fsencode(name):
            return None
        return Entry(name, int(self.offsets[index]), int(self.sizes[index]))


class Member(NamedTuple):
    """A file in a tar; it may turn out to be missing when it is read.

    Attributes:
        tar: The tar.
        name: Its name there, without a leading `./` or `/`.
        status: The tar's.
    """

    tar: Path
    name: str
    status: os.stat_result

    def size(self) -> int:
        """Its length in bytes; raises as `read`."""
        return self._entry().size

    def read(self) -> bytes:
        """Its content.

        Raises:
            UnreadableImageError: The tar has no such member, is not a tar, or is damaged there.
            OSError: The tar cannot be read.
        """
        entry = self._entry()
        with self.tar.open("rb") as stream:
            stream.seek(entry.offset - _BLOCK)
            header, content = stream.read(_BLOCK), stream.read(entry.size)
        if len(content) < entry.size:
            raise self._error(f"{self.tar.name} ends before it does; copy that tar again")
        # the header before each content shows whether the tar has changed, or its list is wrong
        if _size_in_header(header) != entry.size:
            raise self._error(f"{self.tar.name} does not hold it where it should; copy that tar again")
        return content

    def _entry(self) -> Entry:
        status = self.status
        if not stat.S_ISREG(status.st_mode):
            raise self._error(f"{self.tar.name} is not a regular file")
        version = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        try:
            entry = _index(self.tar, version).find(self.name)
        except DataError as error:
            raise self._error(f"its tar cannot be used ({error})") from error
        if entry is None:
            raise self._error(f"{self.tar.name} holds no such file")
        return entry

    def _error(self, reason: str) -> UnreadableImageError:
        return UnreadableImageError(self.tar / self.name, reason)


def find_member(path: Path) -> Member | None:
    """The member of a tar that a path leads to, or None for an ordinary path; folders may be called `.tar`.

    Raises:
        UnreadableImageError: There is no such tar.
        OSError: The tar cannot be examined.
    """
    for match in _TAR_IN_PATH.finditer(path.as_posix()):
        tar = Path(match.string[: match.end() - 1])
        try:
            status = tar.stat()
        except FileNotFoundError as error:
            raise UnreadableImageError(path, f"there is no tar {tar.name}; put it back") from error
        if not stat.S_ISDIR(status.st_mode):
            return Member(tar, match.string[match.end() :], status)
    return None


def file_status(path: Path) -> os.stat_result:
    """The status of a file, or of the tar that contains it; raises as `find_member`."""
    member = find_member(path)
    return path.stat() if member is None else member.status


def list_of(tar: Path) -> Path:
    """The list beside a shard of ours, one JSON object per line and image."""
    return tar.with_suffix(".jsonl")


def has_list(tar: Path) -> bool:
    """Whether there is such a list; predictions for a tar may have its name, too."""
    try:
        with list_of(tar).open("rb") as stream:
            return stream.read(len(_LIST_BEGINS)) == _LIST_BEGINS
    except FileNotFoundError:
        return False


def entries_of(tar: Path) -> Iterator[Entry]:
    """The files in a tar, in order, from one pass over its headers.

    Raises:
        DataError: It is not a tar, is compressed, damaged or cut short, or cannot be read.
    """
    try:
        with open_retrying(tar) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # or it keeps them all
                if info.isreg() and info.sparse is None:
                    name = PurePosixPath(info.name).as_posix().lstrip("/")
                    yield Entry(name, info.offset_data, info.size)
            stream.seek(archive.offset)
            # tarfile takes any header that it cannot read for the end
            if stream.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError(f"no header and no end at byte {archive.offset:,}")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{tar} is not a complete, uncompressed tar ({error}); unpack or copy it again"
        ) from error
    except OSError as error:
        raise DataError(f"{tar} cannot be read: {error.strerror or error}") from error


def _listed_entries(file: Path) -> Iterator[Entry]:
    """The images in a shard of ours, from its list."""
    try:
        for line in file.read_bytes().splitlines():
            fields = json.loads(line)
            yield Entry(fields["file"], fields["offset"], fields["size"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file} is damaged; copy it again, or remove it to go without") from error


def _index(tar: Path, version: tuple[int, ...]) -> TarIndex:
    """The index of a tar; the version differs once the tar has been changed or replaced."""
    with _index_lock:  # one pass for all threads
        return _read_index(tar, version)


@functools.cache
def _read_index(tar: Path, _version: tuple[int, ...]) -> TarIndex:
    return TarIndex.of(_listed_entries(list_of(tar)) if has_list(tar) else entries_of(tar))


def _size_in_header(block: bytes) -> int:
    """The size in a tar header; -1 if it is not one."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size
    except tarfile.HeaderError:
        return -1
