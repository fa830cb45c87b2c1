"""A web server on this machine that does what publishers' servers do, and what they should not."""

import contextlib
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import NamedTuple

from ramstrans.data.download.registry import DatasetSource, PublishedFile


class Fault(NamedTuple):
    """What one request meets instead of the file.

    Attributes:
        status: An answer without the file; 0 sends it.
        headers: Of the answer, in addition; None leaves one out.
        send: Bytes of the body after which the connection is closed; None is all of it.
        wait: Seconds of silence after those bytes.
        ignore_range: Send the whole file whatever is asked for.
        ignore_condition: Send the range even if the file has changed.
        body: Bytes in the place of the file's.
        is_chunked: Send it without saying how long it is.
        then: Called once the answer is sent.
    """

    status: int = 0
    headers: Mapping = MappingProxyType({})
    send: int | None = None
    wait: float = 0
    ignore_range: bool = False
    ignore_condition: bool = False
    body: bytes | None = None
    is_chunked: bool = False
    then: object = None


class Web:
    """What the server serves, and what it was asked for.

    Attributes:
        files: Content by path.
        faults: What the next requests meet, in order.
        always: What every other request meets.
        requests: (path, Range, If-Range) of each request.
    """

    def __init__(self):
        self.files = {}
        self.faults = []
        self.always = Fault()
        self.requests = []
        self.address = ""
        self.stop = threading.Event()

    def url(self, path):
        return f"{self.address}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        web = self.web
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        web.requests.append((self.path, asked, condition))
        fault = web.faults.pop(0) if web.faults else web.always
        content = web.files.get(self.path)
        self.close_connection = True
        if fault.status:
            return self.answer(fault.status, b"no", fault)
        if content is None:
            return self.answer(404, b"no", fault)
        tag, start = f'"{hashlib.md5(content).hexdigest()}"', 0
        if asked and not fault.ignore_range and (condition == tag or fault.ignore_condition):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.answer(416, b"", fault)
        headers = {"ETag": tag, "Last-Modified": formatdate(0, usegmt=True)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:] if fault.body is None else fault.body
        return self.answer(206 if start else 200, body, fault, headers)

    def answer(self, status, body, fault, headers=None):
        self.send_response(status)
        length = {"Transfer-Encoding": "chunked"} if fault.is_chunked else {"Content-Length": str(len(body))}
        for name, value in (length | (headers or {}) | dict(fault.headers)).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        sent = body[: fault.send]
        if fault.is_chunked and sent:
            sent = b"%x\r\n%s\r\n" % (len(sent), sent)
            if fault.send is None:
                sent += b"0\r\n\r\n"
        with contextlib.suppress(OSError):  # whoever asked may have gone
            self.wfile.write(sent)
            self.wfile.flush()
        if fault.wait:
            self.web.stop.wait(fault.wait)
        if fault.then:
            fault.then()


@contextlib.contextmanager
def serving():
    """A server in threads of its own, until the end of the block."""
    web = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"web": web}))
    web.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        web.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def tarred(**files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return stream.getvalue()


CONTENTS = {
    "/images.tgz": tarred(images__wren=b"wren" * 99, images__crow=b"crow"),
    "/lists.zip": zipped(train=b"1", test=b"2"),
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


def publication_of(web):
    """The set of those three files, of which `lists.zip` has no published checksum."""
    images, lists, ids = (
        PublishedFile(web.url(name), len(content), {"sha256": hashlib.sha256(content).hexdigest()})
        for name, content in CONTENTS.items()
    )
    lists = lists._replace(num_bytes=26_000, checksums={}, is_size_exact=False, into="lists")
    files = (images, lists, ids)
    return DatasetSource("Birds", "cub", "https://example.org", "none", files, ("images/wren",))
