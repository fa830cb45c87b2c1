"""What the runs of a plan show: everything that compare.json, the pages and the plots are made of."""

import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ramstrans.compare.costs import Cost, exits_early, is_on_front
from ramstrans.compare.plan import Plan, Run
from ramstrans.compare.runs import Folders
from ramstrans.compare.statistics import LEVEL, CrossedBootstrap, holm
from ramstrans.errors import DataError
from ramstrans.evaluation.faithfulness import CURVES
from ramstrans.evaluation.report.judged import MASK_NAMES, STABILITY_NAMES
from ramstrans.evaluation.report.markdown import zooms
from ramstrans.plain import to_plain
from ramstrans.training.run_folder import REPORT_FILE, RUN_MARK, read_json

FORMAT_VERSION = 1

REGIONS = ("mean_area", "mean_iou", "corloc", "parts_inside", "fallback_share")
"""Keys of a report's regions, all in percent."""

JUDGED = (*MASK_NAMES, "moved_iou", *STABILITY_NAMES)
"""Keys of each region of `regions_judged`, in percent."""

FUSED = "fused"

Results = dict[str, Any]
"""The results in JSON's own types."""

Rows = list[dict[str, Any]]
"""A list of them, by data set and contender, or by pair of contenders."""


@dataclass(frozen=True)
class Judged:
    """A finished run.

    Attributes:
        run: The run.
        report: Its report.json; of a run that is evaluated in another way with the time of its training.
        regions: How its regions were judged, from that report; None if they were not.
        images: (N,) of each test image, its path below the folder that all are in, however that was named,
            and true class, sorted by path; one may be listed twice.
        right: (N,) whether each image is right, by `fused`, `scale 1`, ..., in the order of `images`.
        log: Rows of its metrics.jsonl.
    """

    run: Run
    report: Mapping[str, Any]
    regions: Mapping[str, Any] | None
    images: Sequence[tuple[str, str]]
    right: Mapping[str, np.ndarray]
    log: Sequence[Mapping[str, Any]]


def read_run(plan: Plan, run: Run, folders: Folders) -> Judged:
    """Read what a finished run has left.

    Raises:
        DataError: Its predictions are missing or damaged.
    """
    folder = folders.run(run)
    path, fused = folder / "predictions.csv", "early_exit_label" if exits_early(run) else "predicted"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).sort_values("path", kind="stable")
        true = table["true"].to_numpy()
        answers = {FUSED: table[fused]}
        answers |= {
            f"scale {number}": table[f"scale_{number}_label"]
            for number in itertools.takewhile(lambda n: f"scale_{n}_label" in table, itertools.count(1))
        }
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); remove {folder / REPORT_FILE}, and the same command evaluates "
            "that run again"
        ) from error
    lines = (
        (folder / RUN_MARK).read_text(encoding="utf-8").splitlines() if (folder / RUN_MARK).is_file() else []
    )
    right = {name: labels.to_numpy() == true for name, labels in answers.items()}
    images = list(zip(below_common_folder(table["path"]), true, strict=True))
    report = read_json(folder / REPORT_FILE)
    if run.of is not None:
        trained = read_json(folders.run(run.of) / REPORT_FILE)
        report |= {key: trained.get(key) for key in ("epoch", "seconds")}
    judges = {judge.of.name: judge for judge in plan.region_runs if judge.of}
    regions = read_json(folders.run(judges[run.name]) / REPORT_FILE) if run.name in judges else {}
    log = [json.loads(line) for line in lines]
    return Judged(run, report, regions.get("regions_judged"), images, right, log)


def below_common_folder(paths: Iterable[str]) -> list[str]:
    """Paths of files below the folder that they are all in; none for none.

    >>> below_common_folder(["/data/birds/wren/1.jpg", "/data/birds/jay/2.jpg"])
    ['wren/1.jpg', 'jay/2.jpg']
    """
    files = [Path(path) for path in paths]
    folder = os.path.commonpath([file.parent for file in files]) if files else ""
    return [file.relative_to(folder).as_posix() for file in files]


def answers_of(judged: Sequence[Judged]) -> pd.DataFrame:
    """All that intervals and tests of one data set are computed from.

    Args:
        judged: Runs that were tested on the same images.

    Returns:
        A row per test image: `path`, below the folder that they are all in, `true`, its class, and a column
        per run and answer (`fused`, `scale 1`, ...), 1 where it is right, else 0.
    """
    paths, true = zip(*judged[0].images, strict=True)
    images = {"path": paths, "true": true}
    right = {key_of(one.run.name, part): found for one in judged for part, found in one.right.items()}
    return pd.DataFrame(images | {name: found.astype(int) for name, found in right.items()})


def summarize(
    plan: Plan,
    judged: Sequence[Judged],
    folders: Folders,
    errors: Mapping[str, str],
    costs: Mapping[str, Cost],
) -> Results:
    """Sum up all finished runs of a plan; all fractions in percent.

    Args:
        plan: The plan.
        judged: Its finished runs.
        folders: Where its runs are.
        errors: What went wrong, by the name of the run.
        costs: Of the model of each run, by the name of the run.

    Returns:
        `runs` (state, accuracies), `results` (an entry per data set and contender), `to_baseline` and
        `pairs` (differences with their tests, each list corrected for its length), `baseline`, `plan`.

    Raises:
        DataError: Runs of a data set were tested on different images.
    """
    by_data = {data: [one for one in judged if one.run.data == data] for data in plan.data}
    of_data = [summarize_data(plan, found, costs) for found in by_data.values() if found]
    entries, to_baseline, pairs = (list(itertools.chain(*parts)) for parts in zip(*of_data, strict=True))
    for family in (to_baseline, pairs):
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row |= {"p_holm": p, "is_significant": p < LEVEL}
    done = {one.run.name: one for one in judged}
    runs = [run_row(run, done.get(run.name), folders, errors.get(run.name)) for run in plan.runs]
    plain: Results = to_plain(
        {
            "format_version": FORMAT_VERSION,
            "plan": plan.values,
            "baseline": plan.baseline,
            "results": entries,
            "to_baseline": to_baseline,
            "pairs": pairs,
            "runs": runs,
        },
        "results",
    )
    return plain


def summarize_data(
    plan: Plan, judged: Sequence[Judged], costs: Mapping[str, Cost]
) -> tuple[Rows, Rows, Rows]:
    """Sum up the finished runs on one data set: its `results`, `to_baseline` and `pairs`, p not corrected."""
    check_images(judged)
    groups = {
        contender: [one for one in judged if one.run.contender == contender] for contender in plan.contenders
    }
    groups = {contender: found for contender, found in groups.items() if found}
    bootstrap = CrossedBootstrap(
        {
            key_of(contender, part): np.stack([one.right[part] for one in found])
            for contender, found in groups.items()
            for part in found[0].right
        }
    )
    entries = [
        entry_of(plan, found, bootstrap, [costs[one.run.name] for one in found]) for found in groups.values()
    ]
    mark_fronts(entries)
    pairs = [
        difference_of(second, first, groups, bootstrap) for first, second in itertools.combinations(groups, 2)
    ]
    others = [contender for contender in groups if contender != plan.baseline]
    to_baseline = [
        difference_of(one, plan.baseline, groups, bootstrap) for one in others if plan.baseline in groups
    ]
    return entries, to_baseline, pairs


def key_of(contender: str, part: str) -> str:
    """The name of an answer of a contender in the bootstrap; names have no spaces."""
    return f"{contender} {part}"


def check_images(judged: Sequence[Judged]) -> None:
    """Raise unless runs were tested on the same images.

    Raises:
        DataError: They were not.
    """
    for one in judged[1:]:
        if one.images != judged[0].images:
            raise DataError(
                f"{one.run.name} and {judged[0].run.name} were tested on other images of {one.run.data}, and "
                "cannot be compared: data sets whose splits differ need names of their own in the plan"
            )


def run_row(run: Run, judged: Judged | None, folders: Folders, error: str | None) -> dict[str, Any]:
    """What is known of one run: its state is `done`, `failed` or `missing`."""
    report = judged.report if judged else {}
    return {
        "name": run.name,
        "method": run.method,
        "variant": run.variant,
        "data": run.data,
        "seed": run.seed,
        "options": run.options,
        "of": run.of and run.of.name,
        "folder": str(folders.run(run)),
        "state": "done" if judged else "failed" if error else "missing",
        "error": None if judged else error,
        "top1": 100 * float(judged.right[FUSED].mean()) if judged else None,
        "top1_scales": [scale["top1"] for scale in report["scales"]] if judged else None,
        "epoch": report.get("epoch"),
        "seconds": report.get("seconds"),
    }


def entry_of(
    plan: Plan, found: Sequence[Judged], bootstrap: CrossedBootstrap, costs: Sequence[Cost]
) -> dict[str, Any]:
    """One contender on one data set, over its seeds."""
    run, reports = found[0].run, [one.report for one in found]
    seeds = [one.run.seed for one in found]

    def accuracy(part: str) -> dict[str, Any]:
        values = [100 * float(one.right[part].mean()) for one in found]
        return bootstrap.mean(key_of(run.contender, part))._asdict() | {"values": values}

    return {
        "data": run.data,
        "contender": run.contender,
        "method": run.method,
        "variant": run.variant,
        "of": run.of and run.of.contender,
        "evaluated_with": None if run.of is None else run.options,
        "seeds": seeds,
        "missing_seeds": [one.seed for one in plan.runs_of(run.data, run.contender) if one.seed not in seeds],
        "num_images": len(found[0].images),
        "fused": accuracy(FUSED),
        "scales": [accuracy(part) for part in found[0].right if part != FUSED],
        "validation": spread([validated(one, "top1_fused") for one in found]),
        "validation_loss": spread([validated(one, "loss_fused") for one in found]),
        "regions": regions_of(reports),
        "regions_judged": judged_of([one.regions for one in found if one.regions is not None]),
        "judged_seeds": [one.run.seed for one in found if one.regions is not None],
        "training_seconds": spread([report.get("seconds") for report in reports]),
        **costs[0]._asdict() | {"gmacs": float(np.mean([cost.gmacs for cost in costs]))},
        "curves": {
            "validation_top1": curve(found, "validation", "epoch", "top1_fused"),
            "training_loss": curve(found, "train", "step", "loss_scales"),
        },
    }


def validated(one: Judged, key: str) -> float | None:
    """A figure of the validation images after the epoch, or by the head, that was kept; None without."""
    kept = one.report.get("epoch")
    rows = [row for row in one.log if row["kind"] == "validation" and row["epoch"] == kept]
    rows = rows or [row for row in one.log if row["kind"] == "probe" and row.get("is_best")]
    return rows[-1].get(key) if rows else None


def regions_of(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The regions that each scale proposes for the next: mean and standard deviation over seeds."""
    by_scale = [dict(zooms(report)) for report in reports]
    return [
        {"scale": scale} | {key: spread([one[scale][key] for one in by_scale]) for key in REGIONS}
        for scale in by_scale[0]
    ]


def judged_of(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How regions were judged: mean and standard deviation over seeds; None if they were not.

    Returns:
        `num_images`, `whole`; `areas` under `CURVES`; `regions` of each scale with `JUDGED`; `moved`: the
        fused answer with regions as found and moved, or None.
    """
    if not reports:
        return None
    first = reports[0]
    return {
        "num_images": first["num_images"],
        "fill": first["fill"],
        "whole": spread([one["whole"] for one in reports]),
        "areas": {name: spread([one["curves"][name]["area"] for one in reports]) for name in CURVES},
        "regions": [
            {"scale": region["scale"]}
            | {key: spread([one["regions"][index][key] for one in reports]) for key in JUDGED}
            for index, region in enumerate(first["regions"])
        ],
        "moved": first["moved"]
        and {key: spread([one["moved"]["fused"][key] for one in reports]) for key in ("found", "moved")},
    }


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean of what is known, and its standard deviation if there are several values.

    >>> spread([1.0, 3.0, None])["mean"], spread([None])
    (2.0, {'mean': None, 'sd': None})
    """
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }


def curve(found: Sequence[Judged], kind: str, position: str, key: str) -> dict[str, list[float]]:
    """A number of metrics.jsonl over the course of training: mean, lowest and highest over seeds.

    Of what is logged for each scale, the mean over scales counts.
    """
    values: dict[float, list[float]] = {}
    for one in found:
        for row in one.log:
            numbers = [number for number in np.ravel(np.array(row.get(key))) if number is not None]
            if row["kind"] == kind and numbers:
                values.setdefault(row[position], []).append(float(np.mean(numbers)))
    positions = sorted(values)
    return {
        position: positions,
        "mean": [float(np.mean(values[at])) for at in positions],
        "low": [min(values[at]) for at in positions],
        "high": [max(values[at]) for at in positions],
    }


def difference_of(
    first: str, second: str, groups: Mapping[str, Sequence[Judged]], bootstrap: CrossedBootstrap
) -> dict[str, Any]:
    """How much more accurate one contender is than another on their data set."""
    is_same = models_of(groups[first]) == models_of(groups[second])
    found = bootstrap.difference(key_of(first, FUSED), key_of(second, FUSED), same_models=is_same)
    seeds = {"first_seeds": len(groups[first]), "second_seeds": len(groups[second])}
    data = groups[first][0].run.data
    return {"data": data, "first": first, "second": second, **seeds, **found._asdict()}


def models_of(found: Sequence[Judged]) -> list[str]:
    """Names of the trained runs of a contender."""
    return [(one.run.of or one.run).name for one in found]


def mark_fronts(entries: Sequence[dict[str, Any]]) -> None:
    """Say of each contender whether none is at least as accurate at less cost, for both costs."""
    accuracies = [entry["fused"]["mean"] for entry in entries]
    for key in ("gmacs", "milliseconds"):
        marks = is_on_front([entry[key] for entry in entries], accuracies)
        for entry, mark in zip(entries, marks, strict=True):
            entry[f"is_on_front_of_{key}"] = mark
