import io

import pytest
from rich.console import Console

from ramstrans.bench.cases import CASES
from ramstrans.bench.flops import Macs
from ramstrans.bench.report import check_output, plot_results, results_table
from ramstrans.bench.results import Outcome, Result
from ramstrans.errors import OutputError


def result_of(name, case):
    if case.needs_gpu:
        return Result(name, case, "cpu", {}, why_not="no GPU")
    first, second = case.figure
    values = {first: [2.0, 3.0], second: [2.0, 2.0]}
    if case.measure == "memory":
        values = {first: [3 * 2**20], second: [2 * 2**20]}
    return Result(
        name, case, "cpu", {"eager": Outcome(values, {first: 1, second: 1})}, Macs(10**9, 2 * 10**9)
    )


@pytest.fixture(scope="module")
def rows():
    """Cells of each row of the printed table, by case."""
    console = Console(width=130, file=io.StringIO())
    with console.capture() as printed:
        console.print(results_table([result_of(name, case) for name, case in CASES.items()]))
    lines = [line.split() for line in printed.get().splitlines()]
    return {words[0]: words[1:] for words in lines if words}


def test_a_row_for_each_case(rows):
    assert set(CASES) <= set(rows)


def test_a_row_of_time(rows):
    model = ["vit_base,", "4", "ours", "/", "floor"]
    cells = ["2,500.0", "ms", "2,000.0", "ms", "2.0", "1.250", "1.125", "-", "1.375", "<=", "1.1", "no"]
    assert rows["inference-448-fp32"] == model + cells
    assert rows["inference-224-fp32"][-3:] == ["1.125", "-", "1.375"]


def test_a_row_of_memory(rows):
    cells = ["3", "MiB", "2", "MiB", "2.0", "1.500", "<=", "1.5", "yes"]
    assert rows["memory-1024-batch2"][-len(cells) :] == cells


def test_a_row_that_was_not_measured(rows):
    assert " ".join(rows["gpu-training-448-bf16"]).endswith("ours / floor not measured: no GPU <= 1.05")


def test_the_picture_takes_any_results(tmp_path):
    results = [result_of(name, case) for name, case in CASES.items()]
    for number, chosen in enumerate((results, results[-1:], [])):
        plot_results(chosen, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")


def test_an_output_that_holds_something_is_kept(tmp_path):
    check_output(tmp_path)
    check_output(tmp_path / "new" / "folder")
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(OutputError, match="exists; give another folder"):
        check_output(tmp_path)
    with pytest.raises(OutputError, match="is no folder that you can write to"):
        check_output(tmp_path / "bench.json" / "below")
