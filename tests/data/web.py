"""A web server on this machine that behaves as publishers' servers do, and as they should not."""

import contextlib
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import NamedTuple

from ramstrans.data.download.registry import DatasetSource, PublishedFile
from tests import http_server


class Fault(NamedTuple):
    """What one request meets instead of the file.

    Attributes:
        status: An answer without the file; 0 sends it.
        headers: Further headers of the answer; None leaves one out.
        send: Bytes of the body after which the connection closes; None sends all of it.
        ignore_range: Send the whole file whatever is requested.
        body: Bytes to send instead of the file's.
    """

    status: int = 0
    headers: Mapping = MappingProxyType({})
    send: int | None = None
    ignore_range: bool = False
    body: bytes | None = None


class Web:
    """What the server serves, and the requests it got.

    Attributes:
        files: Content by path.
        faults: What the next requests meet, in order.
        always: What every other request meets.
        requests: (path, Range) of each request.
    """

    def __init__(self):
        self.files = {}
        self.faults = []
        self.always = Fault()
        self.requests = []
        self.address = ""

    def url(self, path):
        return f"{self.address}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        web, requested = self.web, self.headers.get("Range")
        web.requests.append((self.path, requested))
        fault = web.faults.pop(0) if web.faults else web.always
        content = web.files.get(self.path)
        self.close_connection = True
        if fault.status or content is None:
            return self.answer(fault.status or 404, b"no", fault)
        if requested is None or fault.ignore_range:
            return self.answer(200, content if fault.body is None else fault.body, fault)
        start = int(requested.removeprefix("bytes=").removesuffix("-"))
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return self.answer(206, content[start:], fault, span)

    def answer(self, status, body, fault, headers=MappingProxyType({})):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers) | dict(fault.headers)).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have gone
            self.wfile.write(body[: fault.send])
            self.wfile.flush()


@contextlib.contextmanager
def serving():
    """A server in threads of its own, until the end of the block."""
    web = Web()
    with http_server.serving(type("Bound", (Handler,), {"web": web})) as web.address:
        yield web


def tarred(files, mode="w:gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return stream.getvalue()


CONTENTS = {
    "/images.tgz": tarred({"images/wren": b"wren" * 99, "images/crow": b"crow"}),
    "/lists.zip": zipped({"train": b"1", "test": b"2"}),
    "/setid.mat": b"ids",
}
UNPACKED = {
    "images/wren": b"wren" * 99,
    "images/crow": b"crow",
    "lists/train": b"1",
    "lists/test": b"2",
    "setid.mat": b"ids",
}


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def source_of(web):
    """The data set of those three files; `lists.zip` has no published checksum."""
    images, lists, ids = (
        PublishedFile(web.url(name), len(content), {"sha256": hashlib.sha256(content).hexdigest()})
        for name, content in CONTENTS.items()
    )
    files = (images, lists._replace(num_bytes=26_000, checksums={}, extract_to="lists"), ids)
    return DatasetSource("Birds", "cub", "https://example.org", "none", files)
