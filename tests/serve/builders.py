"""An application in this process, and an engine that does what a test says."""

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
from PIL import Image

from ramstrans.errors import UnreadableImageError, UsageError
from ramstrans.inference.prediction import Prediction, ScalePrediction
from ramstrans.serve.app import create_app
from ramstrans.serve.engine import Answer
from ramstrans.serve.limits import Limits

JPEG = {"Content-Type": "image/jpeg"}
SALIENCY = np.array([[0.0, 1.0], [2.0, 4.0]], np.float32)


class FakeEngine:
    """Knows three classes; an image is its bytes, unreadable if they start with `x`; waits while closed."""

    max_pixels = 1000
    multi_label = False

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.error = None

    def about(self):
        return {"kind": "fake", "classes": list("abc"), "multi_label": self.multi_label}

    def read(self, content):
        if content.startswith(b"x"):
            raise UnreadableImageError("image", "truncated file")
        return content

    def answer(self, examples, top_k):
        assert self.gate.wait(60)
        self.batches.append(len(examples))
        if self.error is not None:
            raise self.error
        classes = tuple("abc"[:top_k]), (0.5, 0.3, 0.2)[:top_k]
        scales = ScalePrediction(*classes, (1.0, 2.0, 3.0, 4.0), True), ScalePrediction(*classes, None, None)
        prediction = Prediction(None, *classes, scales)
        return [Answer(prediction, SALIENCY, (-1.0, 0.0, 5.5, 4.0)) for _ in examples]

    def contrast(self, content, against):
        if against not in ("b", "runner_up"):
            raise UsageError("against is none of the classes")
        return {
            "answer": "a",
            "class": "b",
            "probabilities": [0.5, 0.3],
            "differences": [1.0],
            "picture": b"P",
        }


def talk(engine, conversation, limits=None, key=None):
    """What a conversation, called with a client and the application, returns."""

    async def run(thread):
        app = create_app(engine, thread, limits or Limits(), key)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            return await conversation(client, app)

    with ThreadPoolExecutor(1) as thread:
        return asyncio.run(run(thread))


def ask(engine, method, path, limits=None, key=None, **options):
    """The response to one request."""

    async def conversation(client, _app):
        return await client.request(method, path, **options)

    return talk(engine, conversation, limits, key)


def png(width=30, height=20):
    """The bytes of a PNG of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(stream, "PNG")
    return stream.getvalue()
