import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.errors import UsageError
from ramstrans.memory import MARK, device_bytes, format_bytes, parse_bytes, peak_bytes, peaks_of, phase_peaks

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


def test_each_phase_has_its_own_peak_and_holds_what_it_finds():
    def run(mark):
        first = take(1000)
        second = take(300)
        del first
        mark()
        third = take(500)
        mark()
        del second
        mark()
        return third

    assert phase_peaks(run, CPU) == [1300, 800, 800, 500]


def test_marks_in_a_backward_pass_count():
    weight = torch.zeros(1000, requires_grad=True)

    def run(mark):
        middle = weight * 2
        middle.register_hook(lambda _: mark())
        middle.sum().backward()

    run(lambda: None)
    weight.grad = None
    first, second = phase_peaks(run, CPU)
    assert first >= 4000
    assert second >= 4000  # the gradient


def test_events_count_in_the_order_of_time_and_others_do_not():
    def event(time, change, name="[memory]"):
        return {"name": name, "ts": time, "args": {"Bytes": change}}

    events = [event(5, 70), event(1, 100), event(3, -100), event(2, 10), event(2.5, 9999, "aten::add"), {}]
    assert peaks_of(events) == [110]
    assert peaks_of([*events, {"name": MARK, "ts": 2.7}, {"name": MARK, "ts": 9}]) == [110, 110, 80]
    assert peaks_of([]) == [0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_phases_on_a_gpu_are_counted_alike():
    def run(mark):
        first = torch.empty(2**20, dtype=torch.uint8, device="cuda")
        mark()
        del first
        mark()

    assert phase_peaks(run, torch.device("cuda", 0)) == [2**20, 2**20, 0]


def test_the_machine_has_memory():
    assert 2**28 < device_bytes(CPU) < 2**50


@given(st.floats(0.001, 1000), st.sampled_from(["MB", "GB", "TB", "MiB", "GiB", "TiB", "gb"]))
def test_amounts_are_understood(number, unit):
    base = 1024 if "i" in unit else 1000
    power = {"M": 2, "G": 3, "T": 4}[unit[0].upper()]
    assert parse_bytes(f"{number:.6f}{unit}") == round(float(f"{number:.6f}") * base**power)


@pytest.mark.parametrize("text", ["", "12", "GB", "-3GB", "12 KB", "12GBs", "0GB", "nanGB", "1e3GB", "infGB"])
def test_what_is_no_amount_is_told(text):
    with pytest.raises(UsageError, match="is no amount of memory"):
        parse_bytes(text)


@pytest.mark.parametrize(("count", "text"), [(0, "0.0 MB"), (999_400_000, "999 MB"), (1e9, "1.0 GB")])
def test_amounts_for_people(count, text):
    assert format_bytes(count) == text
