"""Compare this source tree with another version: two processes take turns, round by round."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from rich.table import Table

import ramstrans
from benchmarks.cases import Case
from ramstrans.bench.report import format_ratio
from ramstrans.bench.timing import Quartiles, quartiles
from ramstrans.errors import UsageError

FIELDS = ("backbone", "num_classes", "image_size", "backbone_options")
"""Fields of ModelConfig that every version has."""


class Comparison(NamedTuple):
    """One case in both trees.

    Attributes:
        name: Name of the case.
        baseline: Seconds per call in the other tree.
        current: Seconds per call in this one.
        ratio: current / baseline, over rounds.
    """

    name: str
    baseline: Quartiles
    current: Quartiles
    ratio: Quartiles


class Worker(NamedTuple):
    """The two ends of a process that runs `tree_worker.py`."""

    requests: IO[str]
    answers: IO[str]

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        self.requests.write(json.dumps(request) + "\n")
        self.requests.flush()
        line = self.answers.readline()
        if not line:
            raise UsageError("a worker has ended; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def started(source: Path) -> Iterator[Worker]:
    """A worker that imports ramstrans from a source folder."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("tree_worker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield Worker(process.stdin, process.stdout)
        process.stdin.close()


def compare(
    cases: Mapping[str, Case], baseline: Path, device: str, num_rounds: int | None = None
) -> list[Comparison]:
    """Measure the model of each case in both trees; cases of other figures than its time are left out.

    Raises:
        UsageError: There is no package in the other tree.
    """
    if not (baseline / "ramstrans" / "__init__.py").is_file():
        raise UsageError(
            f"--baseline {baseline} has no package ramstrans; give the src folder of another version"
        )
    with started(baseline.resolve()) as other, started(Path(ramstrans.__file__).parents[1]) as current:
        return [
            compare_case(name, request_of(case, device), other, current, num_rounds or case.num_rounds)
            for name, case in cases.items()
            if case.figure == ("ramstrans", "lower bound") and not case.why_not(torch.device(device).type)
        ]


def request_of(case: Case, device: str) -> dict[str, Any]:
    """What a worker builds for a case."""
    model = {name: value for name, value in asdict(case.model_config()).items() if name in FIELDS}
    return {
        "task": case.task,
        "precision": case.precision,
        "batch_size": case.batch_size,
        "device": device,
        "threads": torch.get_num_threads() if torch.device(device).type == "cpu" else None,
        "model": model,
    }


def compare_case(
    name: str, request: Mapping[str, Any], baseline: Worker, current: Worker, num_rounds: int
) -> Comparison:
    """Time both workers in turn; a different one goes first in each round."""
    workers = {"baseline": baseline, "current": current}
    for worker in workers.values():
        worker.ask(request)
    seconds: dict[str, list[float]] = {side: [] for side in workers}
    for number in range(num_rounds):
        for side in list(workers)[:: 1 if number % 2 == 0 else -1]:
            seconds[side].append(workers[side].ask({"time": True})["seconds"])
    pairs = zip(seconds["current"], seconds["baseline"], strict=True)
    ratio = quartiles([own / other for own, other in pairs])
    return Comparison(name, quartiles(seconds["baseline"]), quartiles(seconds["current"]), ratio)


def comparison_table(compared: Sequence[Comparison]) -> Table:
    """A row per case."""
    table = Table("case", title="Per call; ratio: current / baseline", title_justify="left", box=None)
    for heading in ("baseline", "current", "ratio", "quartiles"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, baseline, current, ratio in compared:
        times = (f"{1e3 * one.median:,.1f} ms" for one in (baseline, current))
        middle = f"{format_ratio(ratio.low)} - {format_ratio(ratio.high)}"
        table.add_row(name, *times, format_ratio(ratio.median), middle)
    return table
