"""Images of many requests, gathered into batches for a function that runs in one thread."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

logger = logging.getLogger(__name__)


class BatchQueue:
    """Gathers items into batches; while one is computed the next one fills up.

    A batch starts as soon as it is full. It starts earlier if nothing more is on its way and as many items as
    were just answered have come, since who gets an answer often asks again; or after `max_wait`.

    Args:
        compute: From a list of items to as many results; never called twice at a time.
        thread: Where it is called.
        max_batch: Items per batch.
        max_wait: Seconds that a batch waits for more items, once the one before it is done.
        batch_done: Called with the size of each batch.
    """

    def __init__(
        self,
        compute: Callable[[list[Any]], Sequence[Any]],
        thread: Executor,
        max_batch: int,
        max_wait: float,
        batch_done: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self.num_coming = 0
        """Items that are on their way: being decoded."""
        self._compute, self._thread = compute, thread
        self._max_batch, self._max_wait = max_batch, max_wait
        self._batch_done, self._num_answered = batch_done, 0
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._changed = asyncio.Event()

    async def submit(self, item: Any) -> Any:  # noqa: ANN401 - any item
        """The result for an item; what `compute` raises is raised for every item of the batch."""
        result = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        self._changed.set()
        return await result

    def arrived(self) -> None:
        """Count one less on its way; call it before `submit`, or if the item is not submitted at all."""
        self.num_coming -= 1
        self._changed.set()

    async def run(self) -> None:
        """Compute batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            items, futures = zip(*batch, strict=True)
            try:
                results = await loop.run_in_executor(self._thread, self._compute, list(items))
            except Exception as error:  # noqa: BLE001 - raised where each result is waited for
                logger.warning("a batch of %d failed: %s: %s", len(batch), type(error).__name__, error)
                for future in futures:
                    if not future.done():
                        future.set_exception(error)
            else:
                self._num_answered = len(batch)
                self._batch_done(len(batch))
                for future, result in zip(futures, results, strict=True):
                    if not future.done():  # its request was given up
                        future.set_result(result)

    async def _next_batch(self) -> list[tuple[Any, "asyncio.Future[Any]"]]:
        """Wait for at least one item whose result is wanted."""
        time = asyncio.get_running_loop().time
        while True:
            num_expected = len(self._waiting) + self._num_answered
            while not self._waiting:
                await self._wait_for_change(None)
            last = time() + self._max_wait
            while len(self._waiting) < self._max_batch and (
                self.num_coming or len(self._waiting) < num_expected
            ):
                if not await self._wait_for_change(last - time()):
                    break
            count = min(len(self._waiting), self._max_batch)
            taken = [self._waiting.popleft() for _ in range(count)]
            if wanted := [(item, future) for item, future in taken if not future.done()]:
                return wanted

    async def _wait_for_change(self, seconds: float | None) -> bool:
        """Whether something changed in this time; None: wait for ever."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        return True
