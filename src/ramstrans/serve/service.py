"""Answers for the images of a request: decoded in threads, computed in batches, given as plain values."""

import asyncio
import base64
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ramstrans.data.reading.threads import NUM_THREADS
from ramstrans.errors import RamsTransError, UnreadableImageError
from ramstrans.inference.prediction import Prediction
from ramstrans.inference.writers import to_json
from ramstrans.plain import utf8_text
from ramstrans.serve.batching import BatchQueue
from ramstrans.serve.drawing import draw, to_unit
from ramstrans.serve.engine import Answer, Engine
from ramstrans.serve.limits import Gate, Limits, problem
from ramstrans.serve.metrics import Metrics
from ramstrans.serve.requests import Options, Upload


class Service:
    """A model with its queue, threads and counters; to be entered in the event loop.

    Args:
        engine: The model.
        limits: Of the queue.
        thread: Where the model computes.
    """

    def __init__(self, engine: Engine, limits: Limits, thread: Executor) -> None:
        self.engine, self.limits, self._thread = engine, limits, thread
        self.metrics, self.gate = Metrics(), Gate(limits)
        self.is_stopping = False
        """Whether the server is ending, so that nobody should send new requests."""
        self.metrics.waiting.set_function(lambda: self.gate.num_images)

    async def __aenter__(self) -> Self:
        """Start the threads."""
        limits = self.limits
        self._readers = ThreadPoolExecutor(NUM_THREADS, "decode")
        self._queue = BatchQueue(
            self._compute, self._thread, limits.max_batch, limits.max_wait, self.metrics.batch
        )
        self._room = asyncio.Semaphore(2 * limits.max_batch)  # images in memory, decoded
        self._batches = asyncio.create_task(self._queue.run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        """End the threads, once they have done what they are doing."""
        self._batches.cancel()
        with suppress(asyncio.CancelledError):
            await self._batches
        self._readers.shutdown(cancel_futures=True)

    async def predict(self, uploads: Sequence[Upload], options: Options) -> list[dict[str, Any]]:
        """A row for each image, in order: the fields of predict's JSON lines, with `name` instead of `path`.

        An image that cannot be read has an `error`.

        Raises:
            TimeoutError: It took longer than the limit.
        """
        async with asyncio.timeout(self.limits.timeout):
            rows = [asyncio.ensure_future(self._row(upload, options)) for upload in uploads]
            try:
                return await asyncio.gather(*rows)
            finally:  # after an error the others count as waiting until they have ended
                for row in rows:
                    row.cancel()
                await asyncio.gather(*rows, return_exceptions=True)

    async def _row(self, upload: Upload, options: Options) -> dict[str, Any]:
        picture, contrast = b"", None
        try:
            answer = await self._answer(upload, options.top_k)
            if options.explain:
                picture = await self._in_reader(draw, upload.content, answer, self.engine.max_pixels)
            if options.against is not None:
                contrast = await self._contrast(upload.content, options.against)
        except UnreadableImageError as error:
            present = () if self.engine.about()["multi_label"] else None
            answer = Answer(Prediction(None, error=error.reason, present=present), None, (0, 0, 0, 0))
        self.metrics.image(readable=answer.prediction.error is None)
        row = to_row(upload.name, answer, options)
        if picture:
            row["explanation"] = base64.b64encode(picture).decode()
        if options.against is not None:
            row["against"] = contrast
        return row

    async def _contrast(self, content: bytes, against: str) -> dict[str, Any]:
        """Why the answer and not a class, with its picture in base64.

        Raises:
            HTTPException: 422, this model or this class has no such answer.
        """
        loop = asyncio.get_running_loop()
        try:
            values = await loop.run_in_executor(self._thread, self.engine.contrast, content, against)
        except UnreadableImageError:
            raise
        except RamsTransError as error:
            raise problem(422, str(error)) from error
        return values | {"picture": base64.b64encode(values["picture"]).decode()}

    async def _answer(self, upload: Upload, top_k: int) -> Answer:
        async with self._room:
            self._queue.num_coming += 1
            try:
                with self.metrics.decode.time():
                    example = await self._in_reader(self.engine.read, upload.content)
            finally:
                self._queue.arrived()
            answer: Answer = await self._queue.submit((example, top_k))
            return answer

    async def _in_reader(self, function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - any function
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    def _compute(self, items: list[tuple[Any, int]]) -> list[Answer]:
        with self.metrics.compute.time():
            return self.engine.answer([example for example, _ in items], max(top_k for _, top_k in items))


def to_row(name: str | None, answer: Answer, options: Options) -> dict[str, Any]:
    """An answer as plain values; of each list of classes the first `top_k`, as a batch may have more."""
    values = to_json(answer.prediction)
    for classes in (values, *values["scales"]):
        for key in ("labels", "probabilities"):
            classes[key] = classes[key][: options.top_k]
    row = {"name": name and utf8_text(name), **{key: values[key] for key in values if key != "path"}}
    if options.saliency:
        row["saliency"] = row["view"] = None
        if answer.saliency is not None and np.isfinite(answer.saliency).all():
            row["saliency"], row["view"] = rows_of(answer.saliency), [round(side, 2) for side in answer.view]
    if options.explain:
        row["explanation"] = None
    return row


def rows_of(saliency: NDArray[np.float32]) -> list[list[float]]:
    """A saliency (h, w) as rows of numbers from 0 to 1, its maximum.

    >>> rows_of(np.array([[1.0, 3.0]], np.float32))
    [[0.3333, 1.0]]
    """
    rows: list[list[float]] = to_unit(saliency).astype(float).round(4).tolist()
    return rows
