"""What the models of a comparison cost per image: counted multiply-adds and, where it was measured, time."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ramstrans.bench.flops import macs_of
from ramstrans.bench.models import ModelSpec, measure_models
from ramstrans.bench.report import describe_machine
from ramstrans.compare.plan import Run
from ramstrans.compare.runs import Folders
from ramstrans.console import Progress
from ramstrans.distributed import choose_device
from ramstrans.evaluation.predict import choose_precision
from ramstrans.files import write_file
from ramstrans.plain import to_plain
from ramstrans.saved.metadata import load_metadata
from ramstrans.training.run_folder import read_json

TIMES_FILE = "times.json"
"""The measured times, for later pages."""


BATCH_SIZE, NUM_ROUNDS = 32, 5


class Cost(NamedTuple):
    """What one image costs at inference.

    Attributes:
        gmacs: Counted multiply-adds of all scales and what lies between them, in 10^9.
        milliseconds: Median over rounds; None if it was not measured.
        milliseconds_quartiles: First and third quartile over rounds.
    """

    gmacs: float
    milliseconds: float | None = None
    milliseconds_quartiles: tuple[float, float] | None = None


def costs_of(
    runs: Sequence[Run], folders: Folders, *, measure: bool = False, progress: Progress
) -> dict[str, Cost]:
    """The cost of the model of each finished run, by the run's name.

    Args:
        runs: Finished runs.
        folders: Where they are.
        measure: Whether to measure time where one of them has none yet: of all, in turn.
        progress: Called after each round.
    """
    specs = {run.name: spec_of(folders.run(run)) for run in runs}
    times = read_json(folders.output / TIMES_FILE).get("times", {})
    kinds = {key_of(spec): spec for spec in specs.values()}
    if measure and not kinds.keys() <= times.keys():
        times = measure_times(kinds, folders, folders.run(runs[0]), progress)
    counted: dict[str, float] = {}
    found = {}
    for name, spec in specs.items():
        text = json.dumps(to_plain(spec.config))
        if text not in counted:
            counted[text] = macs_of(spec.config) / 1e9
        time = times.get(key_of(spec))
        taken = () if time is None else (time["median"], (time["low"], time["high"]))
        found[name] = Cost(counted[text], *taken)
    return found


def timing_of(folders: Folders) -> dict[str, Any] | None:
    """How times were measured: machine, batch, precision and rounds; None if they were not."""
    content = read_json(folders.output / TIMES_FILE)
    content.pop("times", None)
    return content or None


def spec_of(folder: Path) -> ModelSpec:
    """The model of a run folder, with random weights."""
    metadata = load_metadata(folder)
    return ModelSpec(dataclasses.replace(metadata.model, weights=None), metadata.preprocessing.crop)


def key_of(spec: ModelSpec) -> str:
    """What the time of a model depends on; the number of classes is as good as nothing."""
    config = to_plain(spec.config)
    del config["num_classes"]
    return json.dumps([config, spec.crop], sort_keys=True)


def measure_times(
    specs: Mapping[str, ModelSpec], folders: Folders, first: Path, progress: Progress
) -> dict[str, Any]:
    """Milliseconds per image of each model, measured in turn, in the precision of the first run."""
    device = choose_device("auto")
    precision = choose_precision(None, load_metadata(first), device)
    how: dict[str, Any] = {"batch_size": BATCH_SIZE, "precision": precision, "num_rounds": NUM_ROUNDS}
    found = measure_models(specs, device, **how, progress=progress)
    times = {
        result.name: {name: 1e3 * value for name, value in result.seconds._asdict().items()}
        for result in found
    }
    content = {"machine": describe_machine(device), **how, "times": times}
    write_file(folders.output / TIMES_FILE, (json.dumps(content, indent=2, default=str) + "\n").encode())
    return times


def is_on_front(costs: Sequence[float | None], accuracies: Sequence[float]) -> list[bool]:
    """Whether each model is on the Pareto front: none is as accurate for less, or more accurate for as much.

    A model without cost is not.

    >>> is_on_front([1.0, 2.0, 2.0, 3.0, None], [70.0, 80.0, 75.0, 80.0, 99.0])
    [True, True, False, False, False]
    """
    known = [(cost, accuracy) for cost, accuracy in zip(costs, accuracies, strict=True) if cost is not None]
    return [
        cost is not None
        and not any(
            other <= cost and better >= accuracy and (other, better) != (cost, accuracy)
            for other, better in known
        )
        for cost, accuracy in zip(costs, accuracies, strict=True)
    ]
