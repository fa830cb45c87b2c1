"""Archives that others made, unpacked so that nothing is written outside of a folder, nor without end.

Every member is written by us, never through a link. Links of a tar file are kept if, once everything lies
there, they lead to a file or folder inside. Rights and owners are not taken over.
"""

import contextlib
import gzip
import os
import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, BinaryIO, NamedTuple, Self, cast

from ramstrans.errors import DataError, OutputError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
"""Of the archives that can be unpacked."""

Progress = Callable[[int, int], None]
"""Called with the bytes of the archive that were read, and its size."""

_CHUNK = 2**20
_FREE_BYTES = 2**24
_HEADER_BYTES = 2**24
_MAX_DEPTH = 64
_ZIP_ENCRYPTED = 0x1 | 0x20 | 0x40

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,  # an OSError, but not one of the disk
    zlib.error,
    EOFError,
    UnicodeDecodeError,  # a zip file's names
    NotImplementedError,  # a zip file's version
)


class Limits(NamedTuple):
    """What an archive may come to, whatever it says of itself.

    Attributes:
        num_bytes: Of all that is in it, unpacked.
        num_members: Files, folders and links.
        ratio: Bytes unpacked for each byte of the archive; the first 16 MB are free.
    """

    num_bytes: int = 2 * 10**12
    num_members: int = 10_000_000
    ratio: float = 100


LIMITS = Limits()


class _UnsafeArchiveError(Exception):
    """What we do not unpack, in a few words."""


def is_archive(name: str) -> bool:
    """Whether a file is one to be unpacked, by its name.

    >>> is_archive("images.TAR.GZ"), is_archive("setid.mat")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


@contextlib.contextmanager
def new_folder(root: Path) -> Iterator[Path]:
    """A temporary folder beside `root` that takes its place at the end; on an error nothing is left of it.

    Args:
        root: Folder to make; may exist if it is empty.

    Raises:
        OutputError: It holds something, or cannot be written.
    """
    check_new(root)
    partial = root.parent / f".{root.name}-{uuid.uuid4().hex[:8]}.partial"
    try:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise _not_writable(root, error) from error
        yield partial
        try:
            partial.replace(root)
        except OSError as error:
            raise _not_writable(root, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_new(root: Path) -> None:
    """Check that a folder can be made, or is empty.

    Raises:
        OutputError: It holds something, is a file, or a disk is mounted there, which cannot be renamed over.
    """
    try:
        if root.is_mount():
            raise OutputError(f"{root} is where a disk is mounted; give a new folder in it")
        if root.exists() and any(root.iterdir()):
            raise OutputError(f"{root} is not empty; give a new folder, or remove this one first")
    except OSError as error:
        raise _not_writable(root, error) from error


def unpack(
    archive: Path,
    folder: Path,
    limits: Limits = LIMITS,
    progress: Progress = lambda *_: None,
) -> int:
    """Unpack a tar file, plain or gzipped, or a zip file, by its name.

    The folder must be one that nobody else writes to; on an error it is left half filled.

    Args:
        archive: Its name ends as one of `SUFFIXES`.
        folder: Where to; exists. A file that is there already is replaced.
        limits: What it may come to.
        progress: Called now and then.

    Returns:
        The number of files, folders and links.

    Raises:
        DataError: It is damaged, or holds what no data set needs: a path or a link out of the folder,
            a device, an encrypted file, or more than the limits allow.
        OutputError: The folder cannot be written, say because the disk is full.
    """
    if not is_archive(archive.name):
        raise DataError(f"{archive} is no archive that can be unpacked; allowed are {' '.join(SUFFIXES)}")
    read = _unpack_zip if archive.name.lower().endswith(".zip") else _unpack_tar
    try:
        return read(archive, _Writer(folder, limits), limits, progress)
    except _UnsafeArchiveError as error:
        raise DataError(f"{archive} was not unpacked: {error}; get it from elsewhere") from error
    except _DAMAGE as error:
        raise DataError(f"{archive} is damaged ({error}); remove it and download it again") from error
    except OSError as error:
        raise _not_writable(folder, error) from error


class _Writer:
    """Writes members into a folder: never outside, never through a link, never more than allowed."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.num_members = 0
        self._folder = folder
        self._limits = limits
        self._num_bytes = 0
        self._folders = {folder}
        self._links: list[Path] = []

    def place(self, name: str, num_bytes: int) -> Path:
        """Where a member goes, the folder above it made; counts it."""
        if num_bytes < 0:
            raise _UnsafeArchiveError(f"{name!r} says it has {num_bytes} bytes")
        self.num_members += 1
        self._num_bytes += num_bytes
        if self.num_members > self._limits.num_members:
            raise _UnsafeArchiveError(f"it holds more than {self._limits.num_members} members")
        if self._num_bytes > self._limits.num_bytes:
            raise _UnsafeArchiveError(f"it holds more than {self._limits.num_bytes} bytes")
        path = self.inside(name)
        if path != self._folder:
            self._make_folders(path.parent, name)
        return path

    def inside(self, name: str) -> Path:
        """The path of a member's name, which may not lead out of the folder by itself."""
        windows = PureWindowsPath(name)
        if windows.drive or windows.root:
            raise _UnsafeArchiveError(f"the path {name!r} is absolute")
        if ".." in windows.parts:
            raise _UnsafeArchiveError(f"the path {name!r} holds '..'")
        if "\\" in name or "\0" in name:
            raise _UnsafeArchiveError(f"the path {name!r} holds a backslash or a zero byte")
        if len(windows.parts) > _MAX_DEPTH:  # shutil.rmtree calls itself for each
            raise _UnsafeArchiveError(f"the path {name[:99]!r} ... is more than {_MAX_DEPTH} folders deep")
        return self._folder / name

    def folder(self, name: str) -> None:
        """Make a folder."""
        self._make_folders(self.place(name, 0), name)

    def file(self, name: str, num_bytes: int, content: IO[bytes]) -> None:
        """Write a file."""
        path = self._free(name, num_bytes)
        remaining = num_bytes
        with path.open("xb") as stream:
            while remaining and (chunk := content.read(min(_CHUNK, remaining))):
                stream.write(chunk)
                remaining -= len(chunk)
        if remaining:
            raise EOFError(f"{name!r} lacks {remaining} of its {num_bytes} bytes")

    def symbolic_link(self, name: str, target: str) -> None:
        """Make a link; `check_links` must follow."""
        if not target or PureWindowsPath(target).drive or PureWindowsPath(target).root:
            raise _UnsafeArchiveError(f"the link {name!r} leads to {target!r}, outside of the folder")
        path = self._free(name, 0)
        path.symlink_to(target)
        self._links.append(path)

    def hard_link(self, name: str, target: str) -> None:
        """Give a second name to a file that came before."""
        source = self.inside(target)
        path = self._free(name, 0)
        if source != self._folder:
            self._make_folders(source.parent, target)
        if not source.exists() or not stat.S_ISREG(source.lstat().st_mode):
            raise _UnsafeArchiveError(f"the link {name!r} leads to {target!r}, which is no file of it")
        os.link(source, path)

    def check_links(self) -> None:
        """Check that every link leads to what lies inside."""
        folder = self._folder.resolve()
        for link in self._links:
            if not link.is_symlink():  # a later member took its place
                continue
            try:
                is_inside = link.resolve(strict=True).is_relative_to(folder)
            except (OSError, RuntimeError):  # nothing there, or round and round
                is_inside = False
            if not is_inside:
                name, target = link.relative_to(self._folder), os.fspath(link.readlink())
                raise _UnsafeArchiveError(f"the link '{name}' leads to {target!r}, which is nothing inside")

    def _free(self, name: str, num_bytes: int) -> Path:
        """A free place: as in tar, a later file takes the place of an earlier one of its name."""
        path = self.place(name, num_bytes)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(path.lstat().st_mode):
                raise _UnsafeArchiveError(f"{name!r} is both a folder and none")
            path.unlink()
        return path

    def _make_folders(self, path: Path, name: str) -> None:
        """Make a folder and those above it; none may be a link or a file."""
        if path in self._folders:
            return
        current = self._folder
        for part in path.relative_to(self._folder).parts:
            current /= part
            if current in self._folders:
                continue
            try:
                current.mkdir()
            except FileExistsError as error:  # an earlier archive's folder, or none
                if not stat.S_ISDIR(current.lstat().st_mode):
                    raise _UnsafeArchiveError(f"the path {name!r} leads through a link or a file") from error
            self._folders.add(current)


class _LimitedReader:
    """A stream that is not read far beyond what the limits allow, not even within a header.

    `stream` has the unpacked bytes, `raw` is the archive that they come from.

    Attributes:
        header_bytes: What the next header may still have; None while a file's content is read.
    """

    def __init__(
        self, stream: IO[bytes], raw: BinaryIO, limits: Limits, report: Callable[[int], None]
    ) -> None:
        self.header_bytes: int | None = _HEADER_BYTES
        self._stream = stream
        self._raw = raw
        self._limits = limits
        self._report = report
        self._num_bytes = 0

    def read(self, size: int) -> bytes:
        """Some of the next bytes; none at the end."""
        chunk = self._stream.read(min(size, _CHUNK))
        self._num_bytes += len(chunk)
        _check_ratio(self._num_bytes, self._raw.tell(), self._limits)
        if self.header_bytes is not None:
            self.header_bytes -= len(chunk)
            if self.header_bytes < 0:  # which tarfile would have kept in memory
                raise _UnsafeArchiveError(f"it holds a header of more than {_HEADER_BYTES} bytes")
        self._report(self._raw.tell())
        return chunk


class _StrictTarInfo(tarfile.TarInfo):
    """A header; a damaged or missing one is an error, where tarfile would take it for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        """The next header."""
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # the two empty blocks at the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _check_ratio(num_bytes: int, num_packed: int, limits: Limits) -> None:
    if num_bytes > _FREE_BYTES + limits.ratio * num_packed:
        raise _UnsafeArchiveError(f"it unpacks to more than {limits.ratio:g} times its size")


def _unpack_tar(archive: Path, writer: _Writer, limits: Limits, report: Progress) -> int:
    """One pass from the first byte to the last, so that gzip's checksum is checked as well."""
    with _opened(archive) as raw:
        total = os.fstat(raw.fileno()).st_size
        is_zipped = not archive.name.lower().endswith(".tar")
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if is_zipped else raw  # type: ignore[assignment]
        metered = _LimitedReader(stream, raw, limits, lambda done: report(done, total))
        with tarfile.open(
            fileobj=cast("BinaryIO", metered), mode="r|", bufsize=2**18, tarinfo=_StrictTarInfo
        ) as tar:
            while (member := _next_member(tar, metered)) is not None:
                _write_member(tar, member, writer)
        while metered.read(_CHUNK):
            pass
    writer.check_links()
    return writer.num_members


def _next_member(tar: tarfile.TarFile, metered: _LimitedReader) -> tarfile.TarInfo | None:
    tar.members = []  # type: ignore[attr-defined] # which would grow with each of millions
    metered.header_bytes = _HEADER_BYTES
    member = tar.next()
    metered.header_bytes = None
    return member


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, writer: _Writer) -> None:
    if member.issparse():
        raise _UnsafeArchiveError(f"{member.name!r} is a sparse file")
    if member.isdir():
        writer.folder(member.name)
    elif member.isreg():
        content = tar.extractfile(member)
        assert content is not None, "as it is for every regular file"
        writer.file(member.name, member.size, content)
    elif member.issym():
        writer.symbolic_link(member.name, member.linkname)
    elif member.islnk():
        writer.hard_link(member.name, member.linkname)
    else:
        raise _UnsafeArchiveError(f"{member.name!r} is a device, a pipe, or of an unknown kind")


def _unpack_zip(archive: Path, writer: _Writer, limits: Limits, report: Progress) -> int:
    """The list of members comes first: what it adds up to is checked before anything is written."""
    with _opened(archive) as raw, zipfile.ZipFile(raw) as bundle:
        members, num_packed = bundle.infolist(), os.fstat(raw.fileno()).st_size
        num_bytes = sum(member.file_size for member in members)
        _check_ratio(num_bytes, num_packed, limits)  # of the whole: members may share their packed bytes
        done = 0
        for member in members:
            _write_zipped(bundle, member, writer)
            done += member.file_size
            report(num_packed * done // max(num_bytes, 1), num_packed)
    return writer.num_members


def _write_zipped(bundle: zipfile.ZipFile, member: zipfile.ZipInfo, writer: _Writer) -> None:
    name = member.orig_filename  # as it stands in the file: `filename` ends at the first zero byte
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _UnsafeArchiveError(f"{name!r} is a link, device or pipe")
    if member.flag_bits & _ZIP_ENCRYPTED:
        raise _UnsafeArchiveError(f"{name!r} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _UnsafeArchiveError(f"{name!r} is packed by another method than deflate")
    if name.endswith("/"):
        writer.folder(name)
        return
    with bundle.open(member) as content:
        writer.file(name, member.file_size, content)


def _opened(archive: Path) -> BinaryIO:
    try:
        return archive.open("rb")
    except OSError as error:
        raise DataError(f"{archive} cannot be read: {error.strerror}") from error


def _not_writable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder} cannot be written: {error.strerror or error}; give another folder")
