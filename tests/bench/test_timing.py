import pytest
import torch

from ramstrans.bench.timing import Contestant, Spread, interleave, spread, waiter
from tests.bench.builders import Clock


def test_contestants_take_turns_and_each_is_first_in_its_round():
    calls = []
    contestants = {name: Contestant(lambda name=name: calls.append(name), 1) for name in "abc"}
    seconds = interleave(contestants, 4)
    rounds = ["".join(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert rounds == ["abc", "abc", "bca", "cab", "abc"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_the_first_round_can_be_one_that_counts():
    calls = []
    interleave({"a": Contestant(lambda: calls.append("a"), 1)}, 2, warm_up=False)
    assert calls == ["a", "a"]


def test_times_are_those_of_the_clock_and_the_warm_up_is_not_among_them():
    clock = Clock()
    naps = {"a": iter([100.0, 1.0, 2.0, 5.0]), "b": iter([100.0, 2.0, 8.0, 10.0])}
    contestants = {name: Contestant(lambda nap=nap: clock.sleep(next(nap)), 1) for name, nap in naps.items()}
    assert interleave(contestants, 3, clock=clock) == {"a": [1.0, 2.0, 5.0], "b": [2.0, 8.0, 10.0]}


def test_what_a_device_still_does_is_waited_for_before_and_after():
    clock, queue = Clock(), [7.0]

    def wait():
        while queue:
            clock.sleep(queue.pop())

    seconds = interleave(
        {"a": Contestant(lambda: queue.append(3.0), 1)}, 1, wait=wait, clock=clock, warm_up=False
    )
    assert seconds == {"a": [3.0]}


def test_a_tick_for_each_call():
    ticks = []
    contestants = {name: Contestant(lambda: None, 1) for name in "ab"}
    interleave(contestants, 2, tick=lambda: ticks.append(1))
    assert len(ticks) == 6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], Spread(3.0, 3.0, 3.0)),
        ([1.0, 2.0], Spread(1.5, 1.25, 1.75)),
        ([10.0, 0.0, 1.0, 2.0], Spread(1.5, 0.75, 4.0)),
    ],
)
def test_median_and_quartiles_by_hand(values, expected):
    assert spread(values) == expected


def test_a_cpu_is_not_waited_for():
    assert waiter(torch.device("cpu"))() is None
