"""What the models of a comparison cost per image: counted multiply-adds and, where it was measured, time."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ramstrans.bench.flops import macs_by_scale
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
from ramstrans.training.run_folder import REPORT_FILE, read_json

TIMES_FILE = "times.json"
"""The measured times, for later pages."""


BATCH_SIZE, NUM_ROUNDS = 32, 5


class Cost(NamedTuple):
    """What one image costs at inference.

    Attributes:
        gmacs: Counted multiply-adds of all scales and what lies between them, in 10^9; with early exit the
            mean over images.
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
    specs = {run.name: spec_of(run, folders) for run in runs}
    times = read_json(folders.output / TIMES_FILE).get("times", {})
    kinds = {key_of(specs[run.name]): run for run in runs if not exits_early(run)}
    if measure and not kinds.keys() <= times.keys():
        device = choose_device("auto")
        measured = {
            key: specs[run.name]._replace(precision=precision_on(device, run, folders))
            for key, run in kinds.items()
        }
        times = measure_times(measured, folders, device, progress)
    counted: dict[str, list[int]] = {}
    found = {}
    for run in runs:
        spec = specs[run.name]
        text = json.dumps([to_plain(spec.config), spec.num_scales])
        if text not in counted:
            counted[text] = macs_by_scale(spec.config, spec.num_scales)
        time = None if exits_early(run) else times.get(key_of(spec))
        taken = () if time is None else (time["median"], (time["low"], time["high"]))
        found[run.name] = Cost(mean_macs(run, folders, counted[text]) / 1e9, *taken)
    return found


def exits_early(run: Run) -> bool:
    """Whether a run is another one with early exit, whose cost depends on the images."""
    return run.of is not None and "early_exit" in run.options


def mean_macs(run: Run, folders: Folders, by_scale: Sequence[int]) -> float:
    """Mean multiply-adds per image, by the share of the test images that exit after each scale, if they do.

    `by_scale` are those until each scale has its prediction.
    """
    if not exits_early(run):
        return by_scale[-1]
    shares: list[float] = read_json(folders.run(run) / REPORT_FILE)["early_exit"]["exited_at"]
    return sum(share / 100 * macs for share, macs in zip(shares, by_scale, strict=True))


def timing_of(folders: Folders) -> dict[str, Any] | None:
    """How times were measured: machine, batch, precision and rounds; None if they were not."""
    content = read_json(folders.output / TIMES_FILE)
    content.pop("times", None)
    return content or None


def spec_of(run: Run, folders: Folders) -> ModelSpec:
    """The model of a run, with random weights, and the precision in which it is wanted."""
    metadata = load_metadata(folders.run(run.of or run))
    options = {} if run.of is None else run.options
    config = dataclasses.replace(metadata.model, weights=None)
    precision = options.get("precision") or metadata.run_options("training").get("precision", "fp32")
    how = {"num_scales": options.get("num_scales"), "precision": precision}
    return ModelSpec(config, metadata.preprocessing.crop, **how)


def precision_on(device: torch.device, run: Run, folders: Folders) -> str:
    """The precision in which a run is evaluated on a device."""
    asked = None if run.of is None else run.options.get("precision")
    return choose_precision(asked, load_metadata(folders.run(run.of or run)), device)


def key_of(spec: ModelSpec) -> str:
    """What the time of a model depends on; the number of classes is as good as nothing."""
    config = to_plain(spec.config)
    del config["num_classes"]
    scales = [] if spec.num_scales is None else [spec.num_scales]
    precisions = [] if spec.precision in (None, "fp32") else [spec.precision]
    return json.dumps([config, spec.crop, *scales, *precisions], sort_keys=True)


def measure_times(
    specs: Mapping[str, ModelSpec], folders: Folders, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """Milliseconds per image of each model, measured in turn, each in its own precision."""
    how: dict[str, Any] = {"batch_size": BATCH_SIZE, "num_rounds": NUM_ROUNDS}
    found = measure_models(specs, device, **how, progress=progress)
    how["precision"] = " and ".join(sorted({spec.precision or "fp32" for spec in specs.values()}))
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
