"""Files inside tars: a path may lead into one, as in `shards/train-000000.tar/000123.jpg`.

Whatever opens photographs asks `find_member` first. A member is read where it lies, by its place in the
tar, which is known from the list of the photographs beside a tar of our own, or from one pass over the
headers of any other. Reading is by `os.pread`, which has no place in the file to share: it is safe in
threads, and in forked workers that inherit the open tars; spawned ones open their own.
"""

import functools
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramstrans.data.reading.retry import is_file, open_retrying, reopen, retry
from ramstrans.errors import DataError, UnreadableImageError

MAX_OPEN_TARS = 128
"""That a process holds open at once; many systems allow it no more than 256 or 1024 files."""

_TAR_IN_PATH = re.compile(r"\.tar/")
_BLOCK = tarfile.BLOCKSIZE


class Entry(NamedTuple):
    """A file in a tar: its name, and where its content lies, in bytes."""

    name: str
    offset: int
    size: int


class TarIndex(NamedTuple):
    """Where the files of a tar lie, in arrays: a process may hold those of millions.

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
        """An index of entries in any order; of two with one name the last counts, as for tar itself."""
        by_name = {os.fsencode(entry.name): entry for entry in entries}
        names = sorted(by_name)
        places = [by_name[name] for name in names]
        return cls(
            np.array(names, dtype=np.bytes_),
            np.array([place.offset for place in places], np.int64),
            np.array([place.size for place in places], np.int64),
        )

    def find(self, name: str) -> Entry | None:
        """The entry of a name, or None.

        >>> index = TarIndex.of([Entry("wren.jpg", 2048, 7), Entry("crow.jpg", 512, 11)])
        >>> index.find("wren.jpg"), index.find("owl.jpg")
        (Entry(name='wren.jpg', offset=2048, size=7), None)
        """
        place = int(np.searchsorted(self.names, os.fsencode(name)))
        if place == len(self.names) or self.names[place] != os.fsencode(name):
            return None
        return Entry(name, int(self.offsets[place]), int(self.sizes[place]))


class Member(NamedTuple):
    """A file in a tar, there or not, and the state that the tar is in.

    Attributes:
        tar: The tar.
        name: In the tar, without a leading `./` or `/`.
        status: Of the tar.
    """

    tar: Path
    name: str
    status: os.stat_result

    @property
    def path(self) -> Path:
        """The path that leads to it."""
        return self.tar / self.name

    def size(self) -> int:
        """Its length in bytes; raises as `read`."""
        return self._entry().size

    def read(self) -> bytes:
        """Its content.

        Raises:
            UnreadableImageError: The tar has no such member, is no tar, or is damaged there.
            OSError: The tar cannot be read.
        """
        entry = self._entry()
        tar = _opened(self.tar, *self._version)
        block = tar.read(entry.offset - _BLOCK, _BLOCK + entry.size)
        if len(block) < _BLOCK + entry.size:
            raise UnreadableImageError(self.path, f"{self.tar.name} ends before it does; copy that tar again")
        # the header that stands before each content tells a tar that was changed, or listed wrongly
        if _size_in_header(block[:_BLOCK]) != entry.size:
            raise UnreadableImageError(
                self.path, f"{self.tar.name} does not hold it where it should; copy that tar again"
            )
        return block[_BLOCK:]

    @property
    def _version(self) -> tuple[int, ...]:
        """What differs once the tar has been changed or replaced."""
        status = self.status
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _entry(self) -> Entry:
        if not stat.S_ISREG(self.status.st_mode):
            raise UnreadableImageError(self.path, f"{self.tar.name} is not a regular file")
        try:
            entry = _index(self.tar, *self._version).find(self.name)
        except DataError as error:
            raise UnreadableImageError(self.path, f"its tar cannot be used ({error})") from error
        if entry is None:
            raise UnreadableImageError(self.path, f"{self.tar.name} holds no such file")
        return entry


def find_member(path: Path) -> Member | None:
    """The member of a tar that a path leads to, or None where it names a file as usual.

    Folders may be called `.tar` too. Whether the tar holds such a member is said when it is read.

    Raises:
        UnreadableImageError: There is no such tar.
        OSError: The system refuses to say what is there.
    """
    for match in _TAR_IN_PATH.finditer(path.as_posix()):
        tar = Path(match.string[: match.end() - 1])
        try:
            status = retry(tar.stat, tar)
        except FileNotFoundError as error:
            raise UnreadableImageError(path, f"there is no tar {tar.name}; put it back") from error
        if not stat.S_ISDIR(status.st_mode):
            return Member(tar, match.string[match.end() :], status)
    return None


def file_status(path: Path) -> os.stat_result:
    """The state of a file, or of the tar that it lies in; raises as `find_member`."""
    member = find_member(path)
    return retry(path.stat, path) if member is None else member.status


def tar_name(path: Path) -> str:
    """The part of a path up to its tar, without a look at the disk; empty where none is named.

    >>> tar_name(Path("shards/train-000000.tar/000123.jpg"))
    'shards/train-000000.tar'
    """
    match = _TAR_IN_PATH.search(path.as_posix())
    return match.string[: match.end() - 1] if match else ""


def list_of(tar: Path) -> Path:
    """Where the list of the photographs in a tar of our own is: beside it, one JSON object a line."""
    return tar.with_suffix(".jsonl")


def entries_of(tar: Path) -> Iterator[Entry]:
    """The files in a tar, in order, from one pass over its headers.

    Raises:
        DataError: It is no tar, is compressed, damaged or cut short, or cannot be read.
    """
    try:
        with open_retrying(tar) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # kept for nobody
                if info.isreg() and info.sparse is None:
                    name = PurePosixPath(info.name).as_posix().lstrip("/")
                    yield Entry(name, info.offset_data, info.size)
            stream.seek(archive.offset)
            # tarfile takes any header that it cannot read for the end
            if stream.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError(f"no header and no end at byte {archive.offset:,}")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{tar} is no whole tar, or a compressed one ({error}); unpack or copy it again"
        ) from error
    except OSError as error:
        raise DataError(f"{tar} cannot be read: {error.strerror or error}") from error


def listed_entries(tar: Path) -> Iterator[Entry]:
    """The photographs in a tar of our own, from its list.

    Raises:
        DataError: The list is damaged or cannot be read.
    """
    file = list_of(tar)
    try:
        for line in retry(file.read_bytes, file).splitlines():
            fields = json.loads(line)
            yield Entry(fields["file"], fields["offset"], fields["size"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file} is damaged; copy it again, or remove it to go without") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error


class _Opened:
    """A tar held open, until the last thread that reads it has let it go."""

    def __init__(self, tar: Path) -> None:
        self.tar = tar
        self.descriptor = retry(lambda: os.open(tar, os.O_RDONLY), tar)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from a place on; fewer where the file ends."""
        parts = []
        while size > 0 and (part := self._read(offset, size)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def _read(self, offset: int, size: int) -> bytes:
        def again() -> bytes:
            reopen(self.tar, self.descriptor)
            return os.pread(self.descriptor, size, offset)

        return retry(lambda: os.pread(self.descriptor, size, offset), self.tar, again)


# No locks of our own: one held by a thread during a fork would stay locked in the child.
@functools.lru_cache(maxsize=MAX_OPEN_TARS)
def _opened(tar: Path, *_version: int) -> _Opened:
    return _Opened(tar)


@functools.cache
def _index(tar: Path, *_version: int) -> TarIndex:
    return TarIndex.of(listed_entries(tar) if is_file(list_of(tar)) else entries_of(tar))


def _size_in_header(block: bytes) -> int:
    """The size that a tar's header gives; -1 where this is no header."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size
    except tarfile.HeaderError:
        return -1
