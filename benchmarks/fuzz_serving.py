"""Does a server survive what nobody should send? Broken images and requests, and schemathesis on its schema.

    python -m benchmarks.fuzz_serving RUN PHOTOGRAPH --requests 5000 --examples 800

starts `ramstrans serve RUN`, sends broken images, forms and JSON, then lets schemathesis (`pip install
schemathesis`) make requests from the server's own description. A status of 500 or a lost connection is a
fault; so is memory that grows, and another answer for PHOTOGRAPH afterwards.
"""

import argparse
import base64
import http.client
import io
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import psutil
from PIL import Image

from benchmarks.serving import server

JPEG = {"Content-Type": "image/jpeg"}
ODD = ["\0", "é", "../../etc/passwd", "a" * 300, "", '"', "%00", "\ud7ff", "-1", "1e9", "NaN", "true"]


def main() -> None:
    """Send all of it, and print a line per part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--requests", type=int, default=5000, help="broken ones of this script")
    parser.add_argument("--examples", type=int, default=800, help="of schemathesis per operation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", nargs="*", default=[], help="of the server")
    options = parser.parse_args()
    with server(options.run, *options.options) as (process, port):
        before = answer(port, options.photograph)
        memory = psutil.Process(process.pid).memory_info
        first = broken(port, options.photograph.read_bytes(), options.requests // 10, options.seed)
        sizes = [memory().rss / 1e6]
        for part in range(1, 10):
            first += broken(
                port, options.photograph.read_bytes(), options.requests // 10, options.seed + part
            )
            sizes.append(memory().rss / 1e6)
        print(f"broken requests: {sum(first.values())}, by status {dict(sorted(first.items()))}")
        print("memory after each tenth, MB:", *(f"{size:.0f}" for size in sizes))
        if options.examples:
            schemathesis(port, options.examples, options.seed)
        print(f"memory at the end: {memory().rss / 1e6:.0f} MB")
        after = answer(port, options.photograph)
        print("the answer afterwards is", "the same" if after == before else f"ANOTHER: {after}")
        print(counted(port))


def answer(port: int, photograph: Path) -> bytes:
    """The server's answer for one photograph."""
    status, body = post(port, photograph.read_bytes(), JPEG)
    assert status == 200, body
    return body


def post(port: int, body: bytes, headers: dict[str, str], query: str = "") -> tuple[int, bytes]:
    """One request over a connection of its own; status 0 if there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", f"/predict{query}", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error).encode()
    finally:
        connection.close()


def broken(port: int, photograph: bytes, count: int, seed: int) -> Counter[int]:
    """Send broken requests; print those that are faults; returns how many had which status."""
    rng, statuses = random.Random(seed), Counter[int]()
    makers = (damaged_image, damaged_form, damaged_json, other_image, odd_request)
    for _ in range(count):
        body, headers, query = rng.choice(makers)(rng, photograph)
        status, text = post(port, body, headers, query)
        statuses[status] += 1
        if status in (0, 500):
            print(f"FAULT {status} {text[:200]!r} for {headers} {query} {body[:60]!r}")
    return statuses


Made = tuple[bytes, dict[str, str], str]


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes that are cut, changed, doubled or drawn."""
    data = bytearray(content)
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 1:
        for _ in range(rng.choice((1, 10, 1000))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    if kind == 2:
        start = rng.randrange(len(data))
        del data[start : start + rng.randrange(1, 2000)]
    if kind == 3:
        start = rng.randrange(len(data))
        data[start:start] = rng.randbytes(rng.randrange(1, 2000))
    return rng.randbytes(rng.randrange(3000)) if kind == 4 else bytes(data)


def damaged_image(rng: random.Random, photograph: bytes) -> Made:
    """The photograph, damaged, as the body."""
    return damaged(rng, photograph), JPEG, rng.choice(("", "?explain=true", "?saliency=true&top_k=3"))


def other_image(rng: random.Random, _photograph: bytes) -> Made:
    """A small image of any mode, size and format, often damaged; or one that is far too large."""
    if rng.random() < 0.05:
        return bomb(rng), {"Content-Type": "image/png"}, ""
    mode = rng.choice(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"))
    size = rng.choice((1, 2, 7, 30, 300)), rng.choice((1, 3, 20, 200))
    kind = rng.choice(("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"))
    stream = io.BytesIO()
    try:
        Image.new(mode, size).save(stream, kind)
    except (OSError, ValueError, KeyError):
        return b"no such mode", JPEG, ""
    content = stream.getvalue()
    if rng.random() < 0.5:
        content = damaged(rng, content)
    return content, {"Content-Type": f"image/{kind.lower()}"}, rng.choice(("", "?explain=1", "?saliency=1"))


def bomb(rng: random.Random) -> bytes:
    """A PNG whose header announces more pixels than there are."""
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[16:24] = rng.choice((50_000, 2**31 - 1, 0)).to_bytes(4) + rng.choice(
        (50_000, 1, 2**31 - 1)
    ).to_bytes(4)
    return bytes(data)


def damaged_form(rng: random.Random, photograph: bytes) -> Made:
    """A form with odd names and values, often damaged."""
    parts = []
    for _ in range(rng.randrange(5)):
        name = rng.choice(("files", "files", "file", "top_k", "explain", *ODD))
        file = f'; filename="{rng.choice(ODD)}"' if rng.random() < 0.6 else ""
        value = rng.choice((photograph[:3000], rng.choice(ODD).encode("utf-8", "replace"), b""))
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode("utf-8", "replace") + value + b"\r\n")
    body = b"".join(parts) + b"--b--\r\n"
    boundary = rng.choice(("; boundary=b", "; boundary=b", "; boundary=b", "", "; boundary=" + "c" * 200))
    headers = {"Content-Type": "multipart/form-data" + boundary}
    return (damaged(rng, body) if rng.random() < 0.4 else body), headers, ""


def damaged_json(rng: random.Random, photograph: bytes) -> Made:
    """JSON with odd values, often damaged."""
    image = base64.b64encode(damaged(rng, photograph)).decode()
    values = (image, "http://localhost/", *ODD, 1, None, [], {}, [[]], 1e308, "\ud800")
    body = {
        rng.choice(("images", "images", "images", "image", *ODD)): rng.choice(
            ([rng.choice(values) for _ in range(rng.randrange(4))], rng.choice(values))
        ),
        rng.choice(("top_k", "explain", "saliency", *ODD)): rng.choice(values),
    }
    text = json.dumps(body).encode("utf-8", "replace")
    if rng.random() < 0.1:
        text = b'{"images":' + b"[" * 100_000
    return (damaged(rng, text) if rng.random() < 0.3 else text), {"Content-Type": "application/json"}, ""


def odd_request(rng: random.Random, photograph: bytes) -> Made:
    """Odd types, queries and encodings."""
    kinds = (
        "",
        "text/html",
        "image/",
        "image/svg+xml",
        "*/*",
        "application/json; charset=x",
        ";",
        "multipart/x",
    )
    headers = {"Content-Type": rng.choice((*kinds, "application/octet-stream"))}
    if rng.random() < 0.2:
        headers["Content-Encoding"] = rng.choice(("gzip", "identity", "br"))
    query = rng.choice(
        ("?top_k=0", "?top_k=999999999999999999999", "?a=%ff", "?explain=maybe", "?saliency=", "?%00")
    )
    return rng.choice((b"", photograph[:500], b"x" * 100)), headers, query


def schemathesis(port: int, examples: int, seed: int) -> None:
    """Let schemathesis make requests of all kinds from the server's description, and print its summary."""
    line = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://127.0.0.1:{port}/openapi.json",
    ]
    line += ["--max-examples", str(examples), "--seed", str(seed), "--workers", "2", "--no-color"]
    line += ["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]
    line += ["--checks", "response_schema_conformance", "--mode", "all", "--phases", "fuzzing,coverage"]
    started = time.perf_counter()
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:], done.stderr[-1000:])
    print(f"schemathesis: exit code {done.returncode}, {time.perf_counter() - started:.0f} s")


def counted(port: int) -> str:
    """What the server itself has counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return "\n".join(
        line for line in lines if line.startswith(("ramstrans_requests_total", "ramstrans_images"))
    )


if __name__ == "__main__":
    main()
