"""One file from the web onto the disk, whole or not at all: resumed where it broke off, retried, checked.

What has come of a file lies beside its place as `.part`, and goes on later by a range request
(https://www.rfc-editor.org/rfc/rfc9110#section-14) on the condition that the publisher's file is still
the same: its entity tag or date, kept in `.part.json`, is sent along as `If-Range`.

urllib does it: the client that huggingface_hub brings along is another one from release to release.
"""

import hashlib
import json
import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ramstrans import __version__
from ramstrans.console import Progress, no_progress
from ramstrans.errors import DataError, OutputError
from ramstrans.files import write_file

Say = Callable[[str], None]
"""Told a line."""

MAX_RETRIES = 5
"""In a row, with less than `_STEP_BYTES` coming between them."""

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""

_MAX_WAIT = 300.0
_CHUNK = 2**18
_STEP_BYTES = 2**20
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class Fetched(NamedTuple):
    """What became of a download.

    Attributes:
        path: The file.
        sha256: Its SHA-256, in hexadecimal.
        num_retries: Connections that broke or were refused.
        is_new: Whether it was downloaded; False if it lay there already.
    """

    path: Path
    sha256: str
    num_retries: int
    is_new: bool


class _TransientError(Exception):
    """A connection that may do better next time; `wait` is how long the server asks to wait, in seconds."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Part:
    """What has come of a file, hashed as it comes, and what tells whether the rest still belongs to it.

    Args:
        url: Where it comes from.
        path: Where the whole file will be.
        algorithms: `hashlib`'s names of the digests to compute.

    Attributes:
        size: Bytes that have come.
        total: Bytes in all, or None where the server does not say.
        validator: The entity tag or date of the publisher's file, or None: it cannot be resumed then.
        is_pieced: Whether it was resumed.
    """

    def __init__(self, url: str, path: Path, algorithms: Iterable[str]) -> None:
        self.url = url
        self.path = path
        self.file = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.json")
        self._algorithms = tuple(algorithms)
        self._forget()

    def _forget(self) -> None:
        self.size = 0
        self.total: int | None = None
        self.validator: str | None = None
        self.is_pieced = False
        self._hashes = _new_hashes(self._algorithms)

    def recall(self, progress: Progress) -> None:
        """Take up what an earlier run left, if it can be resumed."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            url, validator, total = note["url"], note["validator"], note["total"]
            size = self.file.stat().st_size
            is_of_use = url == self.url and validator and (total is None or size <= total)
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # not a note that we wrote
            return
        if not is_of_use:
            return
        self.validator, self.total, self.is_pieced = validator, total, size > 0
        for chunk in _chunks_of(self.file):
            self.add(chunk)
            progress(self.size, size, f"checking {self.file.name}")

    def begin(self, validator: str | None, total: int | None) -> None:
        """Start from nothing."""
        self._forget()
        self.validator, self.total = validator, total
        self.file.write_bytes(b"")
        note = {"url": self.url, "validator": validator, "total": total}
        write_file(self._note, json.dumps(note).encode())

    def add(self, chunk: bytes) -> None:
        """Count and hash bytes that were written."""
        self.size += len(chunk)
        for one in self._hashes.values():
            one.update(chunk)

    def digests(self) -> dict[str, str]:
        """Hexadecimal digests of what has come."""
        return {name: one.hexdigest() for name, one in self._hashes.items()}

    def remove(self) -> None:
        """Remove all traces."""
        self._forget()
        for path in (self.file, self._note):
            path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Put the whole file into its place."""
        self.file.replace(self.path)
        self._note.unlink(missing_ok=True)


def fetch(
    url: str,
    path: Path,
    checksums: Mapping[str, str] = MappingProxyType({}),
    num_bytes: int | None = None,
    *,
    origin: str = "the catalogue",
    timeout: float = TIMEOUT,
    say: Say = lambda _: None,
    progress: Progress = no_progress,
) -> Fetched:
    """Download one file, unless it lies there already with these checksums.

    It goes on where an earlier call broke off, tries again where the connection fails, says so each time,
    and is renamed into its place once it is whole and its checksums are right.

    Args:
        url: An http or https address.
        path: The file to write, in a folder that exists; replaced if it has other checksums.
        checksums: Hexadecimal digests by `hashlib`'s names; all must be right.
        num_bytes: Its exact size, if that is known.
        origin: Who says so, for messages.
        timeout: Seconds without a byte after which to try again.
        say: Told of each retry.
        progress: Told how far it is.

    Raises:
        DataError: It cannot be had, or is another file than it should be.
        OutputError: It cannot be written; what has come is kept for the next time.
    """
    wanted = _Expected(checksums, num_bytes, origin)
    algorithms = {"sha256", *checksums}
    part = _Part(url, path, algorithms)
    try:
        if path.exists():
            digests = _digests_of(path, algorithms, progress)
            problem = wanted.problem(path.stat().st_size, digests)
            if problem is None:
                return Fetched(path, digests["sha256"], 0, is_new=False)
            say(f"{path}: {problem}; it is downloaded anew")
        part.recall(progress)
        num_retries = _complete(part, wanted, timeout, say, progress)
        if part.is_pieced and (problem := wanted.problem(part.size, part.digests())):
            say(f"{path.name}: {problem}; it came in pieces that may not fit: downloaded anew")
            part.remove()
            num_retries += 1 + _complete(part, wanted, timeout, say, progress)
        if problem := wanted.problem(part.size, part.digests()):
            part.remove()
            raise DataError(f"{url}: {problem}; do not use it, ask the publisher what has changed")
        sha256 = part.digests()["sha256"]
        part.finish()
    except OSError as error:  # of the disk: those of the network are others by now
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; make room or give another folder, "
            "what has come is kept"
        ) from error
    return Fetched(path, sha256, num_retries, is_new=True)


class _Expected(NamedTuple):
    """What a file should be, and who says so."""

    checksums: Mapping[str, str]
    num_bytes: int | None
    origin: str

    def problem(self, num_bytes: int, digests: Mapping[str, str]) -> str | None:
        """What is wrong with a file, in a few words."""
        if self.num_bytes not in (None, num_bytes):
            return f"it has {num_bytes} bytes, not {self.num_bytes} as {self.origin} has it"
        for name, expected in self.checksums.items():
            if digests[name] != expected.lower():
                return f"its {name} is {digests[name]}, not {expected} as {self.origin} has it"
        return None


def _complete(part: _Part, wanted: _Expected, timeout: float, say: Say, progress: Progress) -> int:
    """Receive until all is there; returns the number of retries."""
    num_retries = num_failures = 0
    while part.size != part.total:
        before = part.size
        try:
            _receive(part, wanted, timeout, say, progress)
            part.total = part.size
        except _TransientError as error:
            num_failures = num_failures + 1 if part.size - before < _STEP_BYTES else 1
            if num_failures > MAX_RETRIES:
                raise DataError(
                    f"{part.url}: {error}, {num_failures} times in a row; check the network and run this "
                    f"again, it goes on where it stopped ({part.size} bytes have come)"
                ) from error
            num_retries += 1
            wait = min(max(error.wait, 2.0 ** (num_failures - 1)), _MAX_WAIT)
            say(f"{part.path.name}: {error} after {part.size} bytes; retry {num_retries} in {wait:g} s")
            time.sleep(wait)
    return num_retries


def _receive(part: _Part, wanted: _Expected, timeout: float, say: Say, progress: Progress) -> None:
    """Append what one connection brings."""
    with _request(part, timeout) as response:
        _match(part, response, say)
        total = wanted.num_bytes if part.total is None else part.total
        if wanted.num_bytes not in (None, total):
            raise DataError(
                f"{part.url}: it has {total} bytes, not {wanted.num_bytes} as {wanted.origin} has it; "
                "ask the publisher what has changed"
            )
        check_space(part.file.parent, (total or 0) - part.size)
        with part.file.open("ab") as stream:
            for chunk in _chunks(response):
                stream.write(chunk)
                part.add(chunk)
                if total is not None and part.size > total:
                    raise DataError(f"{part.url}: more than its {total} bytes came; ask the publisher")
                progress(part.size, total or 0, f"downloading {part.path.name}")
    if total is not None and part.size < total:
        raise _TransientError("the connection broke")


def _request(part: _Part, timeout: float) -> HTTPResponse:
    """Ask for the file, or for the rest of it."""
    headers = {"User-Agent": f"ramstrans/{__version__}"}
    if part.size and part.validator:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.validator}
    try:
        response: HTTPResponse = urlopen(Request(part.url, headers=headers), timeout=timeout)
    except HTTPError as error:
        with error:
            raise _refusal(part, error) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DataError(
                f"{part.url}: its certificate cannot be trusted ({reason}); check your clock"
            ) from error
        raise _TransientError(f"no connection ({str(reason) or type(reason).__name__})") from error
    schemes = ("https:",) if part.url.startswith("https:") else ("http:", "https:")
    if not response.url.startswith(schemes):
        response.close()
        raise DataError(f"{part.url}: it leads to {response.url}, which is not safe; ask the publisher")
    return response


def _refusal(part: _Part, error: HTTPError) -> Exception:
    """What to raise where the server answers with an error."""
    if error.code == 416:  # less is there than has come already
        part.remove()
        return _TransientError("the publisher's file has changed")
    if error.code in _PASSING:
        after = error.headers.get("Retry-After", "")
        return _TransientError(
            f"the server answers {error.code} {error.reason}", int(after) if after.isdecimal() else 0
        )
    return DataError(
        f"{part.url}: the server answers {error.code} {error.reason}; if you can get the file in another "
        f"way, put it at {part.path} and run this again"
    )


def _match(part: _Part, response: HTTPResponse, say: Say) -> None:
    """Begin anew unless the answer is the rest of what has come."""
    validator = _validator(response.headers)
    if response.status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if part.size and found and int(found[1]) == part.size and validator in (None, part.validator):
            part.total, part.is_pieced = int(found[2]), True
            return
        part.remove()
        raise _TransientError("the server sent something else than the rest of the file")
    if response.status != 200:
        raise DataError(f"{part.url}: the server answers {response.status}, with no file; ask the publisher")
    if part.size:
        say(f"{part.path.name}: from the start, as the file has changed or its server cannot resume")
    length = response.headers.get("Content-Length", "")
    part.begin(validator, int(length) if length.isdecimal() else None)


def _validator(headers: Message) -> str | None:
    """A strong entity tag or else a date, which `If-Range` takes."""
    tag: str | None = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """What comes, as it comes."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, HTTPException) as error:
            raise _TransientError(f"the connection broke ({str(error) or type(error).__name__})") from error
        if not chunk:
            return
        yield chunk


def _chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _digests_of(path: Path, algorithms: Iterable[str], progress: Progress) -> dict[str, str]:
    hashes = _new_hashes(algorithms)
    done, total = 0, path.stat().st_size
    for chunk in _chunks_of(path):
        done += len(chunk)
        for one in hashes.values():
            one.update(chunk)
        progress(done, total, f"checking {path.name}")
    return {name: one.hexdigest() for name, one in hashes.items()}


def _new_hashes(algorithms: Iterable[str]) -> "dict[str, hashlib._Hash]":
    return {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}


def check_space(folder: Path, num_bytes: int) -> None:
    """Check that a folder's disk has room for so many bytes.

    Raises:
        OutputError: It has not.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise OutputError(
            f"{folder} has {free / 1e9:.1f} GB free, {num_bytes / 1e9:.1f} GB are needed; "
            "make room, or give a folder on another disk"
        )
