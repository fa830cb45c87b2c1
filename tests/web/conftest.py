"""A real browser, and small web servers for it."""

import base64
import contextlib
import functools
import http.server
import io
import json
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from tests.http_server import serving

PAGE = files("ramstrans") / "web"
NAMES = ("017.Black_footed_Albatross", "Crow, <b>hooded</b>", "Jay")


@pytest.fixture
def open_page(chromium):
    """Opens an address; the page collects `outside` requests and `problems`, and no test may have any."""
    pages = []

    def open_page(url, **options):
        page = chromium.new_context(**options).new_page()
        page.set_default_timeout(30_000)
        page.outside, page.problems = [], []
        page.on("request", lambda sent: sent.url.startswith((url, "blob:")) or page.outside.append(sent.url))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda text: text.type == "error" and page.problems.append(text.text))
        page.goto(url)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        outside, problems = page.outside, page.problems
        page.context.close()
        assert (outside, problems) == ([], [])


@pytest.fixture(scope="module")
def serve():
    """Starts a server on this machine: a folder's files, unless `post` answers; gives its address."""
    with contextlib.ExitStack() as servers:
        yield (
            lambda folder, handler=None: (
                servers.enter_context(serving(functools.partial(handler or Quiet, directory=str(folder))))
                + "/"
            )
        )


@pytest.fixture(scope="module")
def page(chromium, serve):
    """The page without a source of answers, whose modules a test imports."""
    page = chromium.new_context().new_page()
    page.goto(serve(PAGE))
    yield page
    page.context.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and is silent."""

    def log_message(self, *_):
        pass


class Stub(Quiet):
    """The part of `ramstrans serve` that the page knows; the name of a photograph says what happens to it."""

    about = {  # noqa: RUF012 - no instance changes it
        "kind": "run",
        "classes": list(NAMES),
        "max_bytes": 1_000_000,
        "promises": {"coverage": 0.95, "reject": 0.05},
    }
    key = None  # what it wants
    busy = 2  # how often a busy server refuses
    seen: list = []  # noqa: RUF012 - of the class, since each request has an instance

    def do_GET(self):
        if self.path != "/model":
            return super().do_GET()
        given = self.headers["Authorization"]
        return self.say(200, self.about) if given == self.key else self.say(401, {"detail": "send a key"})

    def do_POST(self):
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = body.split(b'filename="')[1].split(b'"')[0].decode()
        type(self).seen.append((address.path, parse_qs(address.query), name, len(body)))
        status = {"large.jpg": 413, "odd.txt": 415, "broken.jpg": 422, "proxy.jpg": 504}.get(name, 200)
        if name == "busy.jpg" and type(self).busy:
            type(self).busy -= 1
            status = 503
        more = {"against": contrast()} if parse_qs(address.query).get("against") else {}
        refusal = [] if status == 504 else {"detail": f"about {name}"}
        self.say(status, {"predictions": [answer(name) | more]} if status == 200 else refusal)

    def say(self, status, values):
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 503:
            self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(content)


def contrast():
    """What the stub says about two classes: a picture of two looks."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 32), (0, 114, 178)).save(stream, "PNG")
    values = {"answer": NAMES[0], "class": NAMES[1], "probabilities": [0.9, 0.1], "differences": [1.0, 2.0]}
    return values | {"picture": base64.b64encode(stream.getvalue()).decode()}


UNSURE = {"low.jpg": (0.4, 0.1, 0.1), "close.jpg": (0.52, 0.4, 0.08)}


FURTHER = {
    "group.jpg": {
        "answer": {"name": "Corvidae", "rank": "family", "probability": 0.94},
        "priors": {
            "matched": "every photograph",
            "label_before": "Jay",
            "probability_before": 0.6,
            "changed": True,
        },
    },
    "no_rank.jpg": {"answer": {"name": None, "rank": "root", "probability": 1.0}},
    "two.jpg": {"present": list(NAMES[:2])},
    "neither.jpg": {"present": [], "probabilities": [0.2, 0.1, 0.05]},
    "alien.jpg": {
        **{"unknown": True, "unknown_score": 3.5, "set": list(NAMES)},
        "answer": {"name": "Corvidae", "rank": "family", "probability": 0.94},
    },
    "many.jpg": {"unknown": False, "unknown_score": 0.5, "set": [*"abcdefg"]},
    "other.jpg": {
        **{"unknown": False, "unknown_score": 0.5, "set": [NAMES[2]]},
        "priors": {
            **{"matched": "every photograph", "label_before": "Jay"},
            **{"probability_before": 0.6, "changed": True},
        },
    },
    "one_of.jpg": {"unknown": False, "unknown_score": 0.5, "set": list(NAMES[:2])},
    "only.jpg": {"unknown": False, "unknown_score": 0.5, "set": list(NAMES[:1])},
    "sure.jpg": {"answer": {"name": NAMES[0], "rank": "species", "probability": 0.9964}},
}
"""Of a model with ranks that is calibrated, one with several labels, and a server with priors."""


def answer(name):
    """What the stub says about a photograph of 200 x 100 pixels."""
    labels = list(NAMES)
    probabilities = list(UNSURE.get(name, (0.9964, 0.0031, 0.0005)))
    classes = {"labels": labels, "probabilities": probabilities}
    values = {"path": None, "name": name, "error": None, **classes, "scales": [], "saliency": None}
    values |= FURTHER.get(name, {})
    if name == "unreadable.jpg":
        return values | {"error": "truncated file", "labels": [], "probabilities": []}
    if name != "once.jpg":
        found = name != "flat.jpg"
        box = [50.0, 20.0, 150.0, 80.0] if found else [0.0, 0.0, 200.0, 100.0]
        first = {"labels": labels, "probabilities": [0.6, 0.3, 0.1], "box": box, "has_region": found}
        values["scales"] = [first, classes | {"box": None, "has_region": None}]
        values["saliency"] = [[0.0, 0.25, 0.5], [0.1, 1.0, 0.2]]
        values["view"] = [0, 0, 200, 100]
    else:
        values["scales"] = [classes | {"box": None, "has_region": None}]
    return values
