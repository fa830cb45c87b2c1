import pytest
import torch

from ramstrans.bench import timing
from ramstrans.bench.timing import Candidate, Quartiles, interleave, quartiles
from tests.bench.builders import Clock

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return clock


def test_candidates_take_turns_and_each_goes_first():
    calls, reported = [], []
    candidates = {name: Candidate(lambda name=name: calls.append(name), 1) for name in "abc"}
    seconds = interleave(candidates, 4, CPU, progress=lambda *news: reported.append(news))
    rounds = ["".join(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert rounds == ["abc", "abc", "bca", "cab", "abc"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    assert reported == [(number, 4, "timing") for number in range(5)]


def test_the_warm_up_can_be_left_out():
    calls = []
    interleave({"a": Candidate(lambda: calls.append("a"), 1)}, 2, CPU, warm_up=False)
    assert calls == ["a", "a"]


def test_times_are_those_of_the_clock_without_the_warm_up(clock):
    naps = {"a": iter([100.0, 1.0, 2.0, 5.0]), "b": iter([100.0, 2.0, 8.0, 10.0])}
    candidates = {name: Candidate(lambda nap=nap: clock.sleep(next(nap)), 1) for name, nap in naps.items()}
    assert interleave(candidates, 3, CPU) == {"a": [1.0, 2.0, 5.0], "b": [2.0, 8.0, 10.0]}


def test_queued_work_of_a_device_counts_where_it_was_queued(clock, monkeypatch):
    queue = [7.0]

    def synchronize(_device):
        while queue:
            clock.sleep(queue.pop())

    monkeypatch.setattr(timing, "synchronize", synchronize)
    candidates = {"a": Candidate(lambda: queue.append(3.0), 1)}
    assert interleave(candidates, 1, CPU, warm_up=False) == {"a": [3.0]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], Quartiles(3.0, 3.0, 3.0)),
        ([1.0, 2.0], Quartiles(1.5, 1.25, 1.75)),
        ([10.0, 0.0, 1.0, 2.0], Quartiles(1.5, 0.75, 4.0)),
    ],
)
def test_median_and_quartiles_by_hand(values, expected):
    assert quartiles(values) == expected
