"""Download one file over HTTP, with retries, resuming and checksums; it appears whole or not at all.

A partial file is kept as `NAME.part`; the rest is requested by range
(https://www.rfc-editor.org/rfc/rfc9110#section-14). The checksum verifies that both pieces belong to the same
file, so a file without a published checksum always starts over.

This module uses urllib because the HTTP client of huggingface_hub changes between releases.
"""

import hashlib
import logging
import time
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ramstrans import __version__
from ramstrans.console import Progress, no_progress
from ramstrans.data.download.registry import PublishedFile
from ramstrans.errors import DataError
from ramstrans.files import not_writable

logger = logging.getLogger(__name__)

MAX_RETRIES = 5
"""Consecutive failures, each after less than `_PROGRESS_BYTES`."""

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""

_MAX_PAUSE = 300.0
_CHUNK = 2**18
_PROGRESS_BYTES = 2**20
_RETRIED_CODES = frozenset({408, 425, 429, 500, 502, 503, 504})
_BROKEN = (URLError, HTTPException, SSLError, ConnectionError, TimeoutError)
"""Errors of a connection; those of the disk are other kinds of `OSError`."""


def fetch(file: PublishedFile, folder: Path, progress: Progress = no_progress) -> Path:
    """Download one file into a folder, unless it exists with the published checksums.

    Args:
        file: Its address, size and checksums, all of which must match.
        folder: An existing folder; a file of that name with other checksums is replaced.
        progress: Reports bytes received and in total.

    Returns:
        The file.

    Raises:
        DataError: The server does not deliver the file, or delivers another one.
        OutputError: It cannot be written; the partial file is kept for the next call.
    """
    path = folder / file.name
    try:
        if path.exists():
            problem = _problem(file, path, progress)
            if problem is None:
                logger.info("%s: already there", path.name)
                return path
            logger.warning("%s: %s; downloading it again", path, problem)
        part = path.with_name(f"{path.name}.part")
        _complete(file, part, progress)
        part.replace(path)
    except OSError as error:
        raise not_writable(
            path, error, "free some space or give another folder; the partial file is kept"
        ) from error
    checked = f"{' and '.join(file.checksums)} as published" if file.checksums else "no checksum is published"
    logger.info("%s: downloaded, %s", path.name, checked)
    return path


def _complete(file: PublishedFile, part: Path, progress: Progress) -> None:
    """Receive and check a file in as many attempts as it takes."""
    failures = 0
    while True:
        if not file.checksums:
            part.unlink(missing_ok=True)
        before, pause = _size(part), 0
        try:
            _receive(file, part, progress)
            problem = _problem(file, part, progress)
            if problem is None:
                return
            part.unlink()
            if before == 0:
                raise DataError(f"{file.url}: {problem}; ask the publisher what has changed")
            reason = f"starting over, as the pieces do not fit ({problem})"
        except HTTPError as error:
            error.close()
            reason = f"the server responds {error.code} {error.reason}"
            if error.code not in _RETRIED_CODES:
                raise DataError(
                    f"{file.url}: {reason}; if you can get the file in another way, put it at "
                    f"{part.with_suffix('')} and run this again"
                ) from error
            asked = error.headers.get("Retry-After", "")
            pause = int(asked) if asked.isdecimal() else 0
        except _BROKEN as error:
            cause = getattr(error, "reason", error)
            reason = f"the connection failed ({str(cause) or type(cause).__name__})"
        failures = failures + 1 if _size(part) - before < _PROGRESS_BYTES else 1
        if failures > MAX_RETRIES:
            raise DataError(
                f"{file.url}: {reason}, {failures} times in a row; check the network and run this again"
            )
        seconds = min(max(pause, 2.0 ** (failures - 1)), _MAX_PAUSE)
        logger.warning("%s: %s, %d bytes so far; retry in %g s", file.name, reason, _size(part), seconds)
        time.sleep(seconds)


def _receive(file: PublishedFile, part: Path, progress: Progress) -> None:
    """Append as much of the rest of a file as one connection delivers."""
    size = _size(part)
    if file.exact_size is not None and size >= max(file.exact_size, 1):
        return
    headers = {"User-Agent": f"ramstrans/{__version__}"} | ({"Range": f"bytes={size}-"} if size else {})
    with urlopen(Request(file.url, headers=headers), timeout=TIMEOUT) as response:
        if file.url.startswith("https:") and not response.url.startswith("https:"):
            raise DataError(f"{file.url}: it redirects to {response.url}, which is not safe")
        if response.status != 206:
            size = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
            part.unlink()
            raise ConnectionError("the server did not send the rest; starting over")
        total = file.exact_size if response.length is None else size + response.length
        if file.exact_size not in (None, total):
            raise DataError(f"{file.url}: it has {total} bytes, not {file.exact_size} as published")
        with part.open("ab" if size else "wb") as stream:
            while chunk := response.read1(_CHUNK):
                stream.write(chunk)
                size += len(chunk)
                progress(size, total or 0, f"downloading {file.name}")
                if total is not None and size > total:
                    raise DataError(f"{file.url}: it sends more than {total} bytes; ask the publisher")
    if total is not None and size < total:
        raise ConnectionError("it ended early")


def _problem(file: PublishedFile, path: Path, progress: Progress) -> str | None:
    """Describe how a file on disk differs from the published one; None if it does not."""
    size, done = _size(path), 0
    if file.exact_size not in (None, size):
        return f"it has {size} bytes, not {file.exact_size} as published"
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in file.checksums}
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            done += len(chunk)
            for digest in hashes.values():
                digest.update(chunk)
            progress(done, size, f"checking {path.name}")
    for name, expected in file.checksums.items():
        if (found := hashes[name].hexdigest()) != expected.lower():
            return f"its {name} is {found}, not {expected} as published"
    return None


def _size(path: Path) -> int:
    """Return the bytes in a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0
