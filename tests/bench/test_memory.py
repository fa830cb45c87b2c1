import torch

from ramstrans.bench.memory import peak_bytes, peak_of

CPU = torch.device("cpu")


def take(count):
    return torch.empty(count, dtype=torch.uint8)


def test_the_peak_of_a_known_pattern_is_exact():
    def run():
        first = take(1000)
        second = take(300)
        del first  # 1300 were held
        third = take(500)
        return second, third

    assert peak_bytes(run, CPU) == 1300


def test_what_was_there_before_does_not_count():
    before = take(10_000)
    assert peak_bytes(before.zero_, CPU) == 0
    assert peak_bytes(before.clone, CPU) == 10_000


def test_events_count_in_the_order_of_time_and_others_do_not():
    def event(time, change, name="[memory]"):
        return {"name": name, "ts": time, "args": {"Bytes": change}}

    events = [event(5, 70), event(1, 100), event(3, -100), event(2, 10), event(2.5, 9999, "aten::add"), {}]
    assert peak_of(events) == 110
    assert peak_of([]) == 0
