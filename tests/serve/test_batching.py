"""How items become batches."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ramstrans.serve.batching import BatchQueue

FOR_EVER = 10_000.0
"""Seconds of a wait that no test sees the end of."""


class Computer:
    """Doubles numbers, while its gate is open."""

    def __init__(self):
        self.batches, self.gate, self.begun = [], threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, items):
        self.begun.set()
        assert self.gate.wait(60)
        self.batches.append(items)
        return [2 * item for item in items]

    async def held_by(self, conversation):
        """Close the gate, and wait until a task's batch stands before it; gives the task."""
        self.gate.clear()
        task = asyncio.create_task(conversation)
        await asyncio.to_thread(self.begun.wait, 60)
        return task


def in_queue(compute, conversation, max_batch=4, max_wait=0.01, **options):
    async def run(thread):
        queue = BatchQueue(compute, thread, max_batch, max_wait, **options)
        task = asyncio.create_task(queue.run())
        try:
            return await asyncio.wait_for(conversation(queue), 60)
        finally:
            task.cancel()

    with ThreadPoolExecutor(1) as thread:
        return asyncio.run(run(thread))


def test_while_a_batch_is_computed_the_next_ones_fill_up():
    compute = Computer()

    async def conversation(queue):
        first = await compute.held_by(queue.submit(0))
        others = [asyncio.create_task(queue.submit(number)) for number in range(1, 8)]
        await asyncio.sleep(0)
        compute.gate.set()
        return await asyncio.gather(first, *others)

    assert in_queue(compute, conversation) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert compute.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_nobody_waits_when_nothing_is_on_its_way():
    async def conversation(queue):
        return [await queue.submit(number) for number in (3, 4)]

    assert in_queue(Computer(), conversation, max_wait=FOR_EVER) == [6, 8]


def test_an_item_waits_for_one_that_is_on_its_way():
    compute = Computer()

    async def conversation(queue):
        queue.num_coming = 2
        first = asyncio.create_task(queue.submit(1))
        await asyncio.sleep(0.01)
        queue.arrived()
        second = asyncio.create_task(queue.submit(2))
        await asyncio.sleep(0.01)
        assert compute.batches == []
        queue.arrived()  # one that could not be read
        return await asyncio.gather(first, second)

    assert in_queue(compute, conversation, max_wait=FOR_EVER) == [2, 4]
    assert compute.batches == [[1, 2]]


def test_who_was_answered_is_expected_to_ask_again():
    compute = Computer()

    async def client(queue, number):
        return [await queue.submit(number), await queue.submit(number)]

    async def conversation(queue):
        first = await compute.held_by(client(queue, 1))
        second = asyncio.create_task(client(queue, 2))
        await asyncio.sleep(0)
        compute.gate.set()
        return await asyncio.gather(first, second)

    assert in_queue(compute, conversation, max_wait=0.2) == [[2, 2], [4, 4]]
    assert compute.batches[:2] == [[1], [2, 1]]  # not [2], although it was there


def test_but_not_for_ever():
    async def conversation(queue):
        queue.num_coming = 1
        return await queue.submit(5)

    assert in_queue(Computer(), conversation) == 10


def test_what_nobody_wants_any_more_is_not_computed():
    compute = Computer()

    async def conversation(queue):
        first = await compute.held_by(queue.submit(0))
        dropped, kept = (asyncio.create_task(queue.submit(number)) for number in (1, 2))
        await asyncio.sleep(0)
        dropped.cancel()
        await asyncio.sleep(0)
        compute.gate.set()
        return await asyncio.gather(first, kept)

    assert in_queue(compute, conversation) == [0, 4]
    assert compute.batches == [[0], [2]]


def test_an_error_reaches_everyone_in_the_batch_and_the_queue_goes_on():
    def compute(items):
        if 1 in items:
            raise ValueError("no")
        return items

    async def conversation(queue):
        results = await asyncio.gather(*(queue.submit(item) for item in (1, 2)), return_exceptions=True)
        return [*map(str, results), await queue.submit(7)]

    assert in_queue(compute, conversation) == ["no", "no", 7]


@pytest.mark.parametrize("max_batch", [1, 3])
def test_batches_are_counted(max_batch):
    sizes = []

    async def conversation(queue):
        return await asyncio.gather(*(queue.submit(number) for number in range(5)))

    in_queue(Computer(), conversation, max_batch, batch_done=sizes.append)
    assert sum(sizes) == 5
    assert max(sizes) == max_batch
