"""Two source trees are compared by workers; here by this tree's, in this process, and by made-up ones."""

import io
import json
from contextlib import nullcontext
from pathlib import Path

import pytest

import ramstrans
from benchmarks import compare_trees
from benchmarks.compare_trees import Comparison, compare, compare_case, comparison_table, request_of, started
from benchmarks.tree_worker import serve
from ramstrans.bench.timing import Quartiles
from ramstrans.errors import UsageError
from tests.benchmarks.builders import tiny_case

SOURCE = Path(ramstrans.__file__).parents[1]


@pytest.mark.parametrize("task", ["inference", "training"])
def test_a_worker_builds_and_times(task):
    request = request_of(tiny_case(task=task, precision="bf16"), "cpu")
    answers = io.StringIO()
    serve([json.dumps(request), '{"time": true}', '{"time": true}'], answers)
    ready, *times = map(json.loads, answers.getvalue().splitlines())
    assert ready == {"ready": True}
    assert [list(answer) for answer in times] == [["seconds"]] * 2


class Worker:
    """Answers with the times it is given, and notes who was asked."""

    def __init__(self, name, times, asked):
        self.name, self.times, self.asked = name, iter(times), asked

    def ask(self, request):
        if "time" not in request:
            return {"ready": True}
        self.asked.append(self.name)
        return {"seconds": next(self.times)}


def test_ratios_are_taken_within_rounds_and_sides_take_turns():
    asked = []
    baseline, current = Worker("b", [2.0, 4.0, 8.0], asked), Worker("c", [1.0, 4.0, 12.0], asked)
    found = compare_case("a", {}, baseline, current, 3)
    assert found.ratio == Quartiles(1.0, 0.75, 1.25)
    assert (found.baseline.median, found.current.median) == (4.0, 4.0)
    assert "".join(asked) == "bccbbc"


def test_only_cases_of_the_models_time_are_compared(monkeypatch):
    monkeypatch.setattr(compare_trees, "started", nullcontext)
    monkeypatch.setattr(compare_trees, "compare_case", lambda name, *_: name)
    others = {"a": tiny_case(figure=("reference", "ramstrans")), "b": tiny_case(needs_gpu=True)}
    assert compare({"c": tiny_case()} | others, SOURCE, "cpu") == ["c"]


def test_a_folder_without_the_package_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no package ramstrans; give the src folder"):
        compare({}, tmp_path, "cpu")


@pytest.mark.slow
def test_a_worker_in_a_process_of_its_own():
    with started(SOURCE) as worker:
        assert worker.ask(request_of(tiny_case(), "cpu")) == {"ready": True}
        assert worker.ask({"time": True})["seconds"] > 0


def test_the_table():
    times = Quartiles(2.0, 1.0, 3.0)
    table = comparison_table([Comparison("a", times, times, Quartiles(1.0, 0.9, 1.1))])
    assert [list(column.cells) for column in table.columns] == [
        *(["a"], ["2,000.0 ms"], ["2,000.0 ms"], ["1.000"], ["0.900 - 1.100"])
    ]
