"""Text that others wrote, such as lists and tables, by one rule: encodings, and separators of paths.

With a byte-order mark it is UTF-8, UTF-16 (PowerShell) or UTF-32. Otherwise it is UTF-8 or, with a warning,
Windows-1252. A list of paths may end each path with a newline or, as `find -print0` does, with a zero byte.
"""

import codecs
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

WINDOWS = "cp1252"

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CHUNK = 65536


def marked_encoding(start: bytes) -> str | None:
    """Return the encoding that a byte-order mark announces, or None.

    >>> marked_encoding("wren".encode("utf-16")), marked_encoding(b"wren")
    ('utf-16', None)
    """
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)


def decode_text(content: bytes, file: Path) -> str:
    """Decode a whole text file.

    Raises:
        UnicodeDecodeError: It is not text in any of the encodings.
    """
    try:
        return content.decode(marked_encoding(content) or "utf-8")
    except UnicodeDecodeError:
        text = content.decode(WINDOWS)
        warn_of_windows(file)
        return text


def warn_of_windows(file: Path) -> None:
    """Log that a file was taken for Windows-1252."""
    logger.warning("%s is not UTF-8; it is read as Windows-1252", file)


def read_paths(stream: BinaryIO) -> Iterator[str]:
    r"""Yield the paths of a list as they are needed, without blank lines.

    Bytes that are not UTF-8 are those of the files' names.

    >>> import io
    >>> list(read_paths(io.BytesIO(b"a.jpg\r\n\nb.jpg"))), list(read_paths(io.BytesIO(b"a\n.jpg\0b.jpg\0")))
    (['a.jpg', 'b.jpg'], ['a\n.jpg', 'b.jpg'])
    """
    rest, ends = b"", b""
    read = getattr(stream, "read1", stream.read)  # what a pipe holds now, without waiting for more
    while chunk := read(_CHUNK):
        rest += chunk
        if not ends and (encoding := marked_encoding(rest)) not in (None, "utf-8-sig"):
            yield from _lines((rest + stream.read()).decode(encoding or "", errors="replace").split("\n"))
            return
        ends = ends or next((end for end in (b"\0", b"\n") if end in rest), b"")
        if ends:
            *whole, rest = rest.removeprefix(codecs.BOM_UTF8).split(ends)
            yield from _lines([os.fsdecode(path) for path in whole], strips=ends == b"\n")
    yield from _lines([os.fsdecode(rest.removeprefix(codecs.BOM_UTF8))], strips=ends != b"\0")


def _lines(lines: list[str], *, strips: bool = True) -> Iterator[str]:
    for line in lines:
        path = line.rstrip("\r\n") if strips else line
        if path.strip():
            yield path
