"""One tiny case of each kind is measured, and the command prints and writes it."""

import json
import sys

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import cases, run
from benchmarks.results import Outcome, Result
from benchmarks.run import measure_case
from ramstrans.bench.flops import macs_of
from ramstrans.bench.timing import Quartiles
from tests.benchmarks.builders import tiny_case

CPU = torch.device("cpu")
EAGER = Outcome(
    {"ramstrans": [6.0, 8.0, 10.0], "lower bound": [2.0, 4.0, 4.0]}, {"ramstrans": 4, "lower bound": 2}
)
COMPILED = Outcome(
    {"ramstrans": [3.0, 3.0, 3.0], "lower bound": [3.0, 1.0, 2.0]}, {"ramstrans": 4, "lower bound": 4}
)


@pytest.mark.parametrize(
    ("fields", "num_values"),
    [
        ({}, 3),
        ({"task": "training"}, 3),
        ({"figure": ("regions", "ramstrans")}, 3),
        ({"figure": ("ramstrans", "plain"), "measure": "memory"}, 1),
    ],
    ids=str,
)
def test_a_case_is_measured(fields, num_values):
    case = tiny_case(**fields)
    result = measure_case("a", case, CPU, num_rounds=3)
    values = result.outcomes["eager"].values
    assert {name: len(found) for name, found in values.items()} == dict.fromkeys(case.figure, num_values)
    assert min(min(found) for found in values.values()) > 0
    assert result.macs == macs_of(case.model_config())


def test_memory_is_repeatable_and_grows_with_the_batch():
    def peaks(batch_size):
        case = tiny_case(figure=("ramstrans", "plain"), measure="memory", batch_size=batch_size)
        return measure_case("a", case, CPU).outcomes["eager"].values

    assert peaks(2) == peaks(2)
    assert peaks(4)["plain"][0] > 1.5 * peaks(2)["plain"][0]


def test_out_of_memory_is_a_result(monkeypatch):
    def too_large(*_args):
        raise torch.OutOfMemoryError("64 GiB")

    monkeypatch.setattr(run, "measure", too_large)
    assert measure_case("a", tiny_case(), CPU).why_not == "out of memory"


def result_of(outcomes, **fields):
    return Result("a", tiny_case(target={"cpu": 1.1}, **fields), "cpu", outcomes, macs=3 * 10**9)


def test_the_figure_is_the_median_of_ratios_per_image_within_rounds():
    assert EAGER.per_image("ramstrans") == 2.0
    assert EAGER.ratios("ramstrans", "lower bound") == [1.5, 1.0, 1.25]
    result = result_of({"eager": EAGER})
    assert result.ratio == Quartiles(1.25, 1.125, 1.375)
    assert result.met is False


def test_the_mode_in_which_ramstrans_is_fastest_counts_for_both():
    result = result_of({"eager": EAGER, "compiled": COMPILED})
    assert (result.mode, result.ratio.median) == ("compiled", 1.5)


def test_the_command_prints_a_table_and_writes_json(monkeypatch, tmp_path, capsys):
    tiny = {"small": tiny_case(), "on-gpu": tiny_case(needs_gpu=True, target={"cuda": 1.05})}
    monkeypatch.setattr(cases, "CASES", tiny)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--device", "cpu", "--output", str(tmp_path / "out")])
    assert command.main() == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["small"][3:6] == ["ramstrans", "/", "lower"]
    assert " ".join(rows["on-gpu"]).endswith("not measured: no GPU <= 1.05")
    small, on_gpu = json.loads((tmp_path / "out" / "bench.json").read_text())["cases"]
    assert len(small["modes"]["eager"]["values"]["ramstrans"]) == 2
    assert (on_gpu["ratio"], on_gpu["not_measured"]) == (None, "no GPU")


def test_the_command_lists_cases_and_refuses_others(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--cases", "memory-448-batch1", "--list"])
    assert command.main() == 0
    assert capsys.readouterr().out.startswith("memory-448-batch1: ramstrans / plain, memory of inference")
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--cases", "nonsense"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
