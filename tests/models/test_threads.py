"""One model that several threads call at once, as servers do."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from tests.models.builders import OTHERS, noise, other_model, tiny_model

THREADS, CALLS = 8, 12
OTHER_CALLS = 5


@pytest.fixture
def often_switched():
    """Threads take turns every 20 microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("name", ["ViT", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_threads_that_share_a_model_get_the_answers_of_one(name, often_switched):
    model = tiny_model(num_scales=2) if name == "ViT" else other_model(name)
    barrier, num_calls = Barrier(THREADS), CALLS if name == "ViT" else OTHER_CALLS
    images = [noise(1 + thread % 2, 3, *model.image_size, seed=thread) for thread in range(THREADS)]

    def answers(thread, calls):
        with torch.no_grad():
            return [model(images[thread]).fused for _ in range(calls)]

    def wait_and_answer(thread):
        barrier.wait(60)
        return answers(thread, num_calls)

    expected = [answers(thread, 1)[0] for thread in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(wait_and_answer, range(THREADS)))
    for thread, fused in enumerate(found):
        assert all(torch.equal(one, expected[thread]) for one in fused)
