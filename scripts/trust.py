r"""The tables of docs/trust.md: calibration, the unknown, sets, ranks, priors and neighbours of trained runs.

    python scripts/trust.py RUN-0 RUN-1 RUN-2 OTHER-0 ... --output trust [--far FOLDER ...] \
      [--taxonomy RANKS.csv] [--priors LIST]

Each run was trained with `--data.hold_out_classes` and has validation images; runs whose names differ in the
number at their end are seeds of the same thing. What is fitted is fitted on the validation images; figures
are of the test images, of the test images of the classes held out (near) and of all images of each FOLDER,
under its name.
What the models give is kept in OUTPUT, so that a second call computes no image again. Prints Markdown; all
figures of each run are in OUTPUT/trust.json.
"""

import argparse
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ramstrans.calibration.answers import Answers
from ramstrans.calibration.conformal import SET_METHODS, fit_quantiles, sets
from ramstrans.calibration.priors import Priors, read_priors, weighted
from ramstrans.calibration.rank_table import read_rank_table
from ramstrans.calibration.scores import Reference
from ramstrans.calibration.taxonomy import Taxonomy, roll_up
from ramstrans.calibration.temperature import fit_temperature, log_probabilities, tempered
from ramstrans.calibration.unknown import (
    Candidate,
    Seen,
    candidates,
    choose_by_leaving_out,
    choose_on_unknown,
)
from ramstrans.console import no_progress
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.reading.listing import LeftOut, images_below
from ramstrans.data.records import Record
from ramstrans.evaluation.calibrate import as_seen, linear_head, reference_set
from ramstrans.evaluation.config import EvaluationData
from ramstrans.evaluation.images import data_config, dataset_of, read_drawn
from ramstrans.evaluation.knn import knn_report
from ramstrans.evaluation.metrics import expected_calibration_error
from ramstrans.evaluation.predict import choose_precision, predict_split
from ramstrans.evaluation.ranks import priors_report, ranks_report
from ramstrans.evaluation.trust import errors, set_measures
from ramstrans.saved.metadata import load_metadata
from ramstrans.saved.model import load_model, weights_digest

COVERAGE = 0.95

FIXED = ("val", "test", "train", "near")
"""Kinds of images that every run has."""

K = 20
"""Training images that vote."""

NUM_DRAWS = 200
"""Of labels, for the calibration error that chance gives."""

SMALL = 5
"""Figures below it, such as NLL, get three digits."""

ORDERS = ("as they are", "mean, then T", "T of each, then mean", "T of each, mean, T")
"""Of the scales' probabilities on their way to the fused answer; T is a temperature."""


class Given(NamedTuple):
    """What a model gives.

    Attributes:
        kinds: For `val`, `test`, `train` (to compare with), `near` and the folders' names.
        head: Its linear classifier, `(weight, bias)`; None if it is of another kind.
    """

    kinds: Mapping[str, Seen]
    head: tuple[np.ndarray, np.ndarray] | None


def main() -> None:
    """Compute or read what each run gives; write its figures, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--far", type=Path, nargs="*", default=[])
    parser.add_argument("--taxonomy", type=Path)
    parser.add_argument("--priors", type=Path, help="classes, one per line; judged on images of these alone")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    figures = {}
    for run in options.runs:
        given = given_by(run, options.far, options.output / f"{run.name}.npz")
        figures[run.name] = figures_of(
            given, load_metadata(run).class_names, options.taxonomy, options.priors
        )
    (options.output / "trust.json").write_text(json.dumps(figures, indent=1))
    print("\n\n".join("\n".join(lines) for lines in tables(figures)))


def given_by(run: Path, far: Sequence[Path], kept: Path) -> Given:
    """What a run gives for all kinds of images, read from a file if that is of the same weights."""
    model, metadata = load_model(run, "auto")
    digest = weights_digest(model.state_dict())
    names = [folder.name for folder in far]
    if kept.is_file():
        with np.load(kept) as arrays:
            given = unpacked(arrays)
            if str(arrays["weights"]) == digest and {*FIXED, *names} == set(given.kinds):
                return given
    data = data_config(metadata.run_options("data"), EvaluationData())
    drawn = read_drawn(metadata, data)
    if drawn.held_out is None:
        raise SystemExit(f"{run} was trained on all classes; train with --data.hold_out_classes 10")
    of_split = {
        split: dataset_of(metadata, drawn.images, split, data, no_progress)[0]
        for split in ("val", "test", "train")
    }
    of_split["train"] = reference_set(of_split["train"], len(metadata.class_names))
    others = {"near": [record._replace(label=0) for record in drawn.held_out.of_split("test")]}
    for folder in far:
        others[folder.name] = [Record(path, 0, "test") for path in images_below(folder, LeftOut())]
    for name, records in others.items():
        of_split[name] = dataclasses.replace(of_split["test"], records=tuple(records))
    precision = choose_precision(None, metadata, model.device)
    kinds = {}
    for name, dataset in of_split.items():
        loader = build_loader(dataset, 32, shuffle=False, with_high_res=model.needs_high_res)
        kinds[name] = as_seen(predict_split(model, loader, precision=precision, keep=True))
    given = Given(kinds, linear_head(model))
    np.savez_compressed(kept, weights=digest, **packed(given))
    return given


def packed(given: Given) -> dict[str, np.ndarray]:
    """All arrays, by name."""
    arrays = {
        f"{kind}.{key}": array for kind, seen in given.kinds.items() for key, array in seen._asdict().items()
    }
    return arrays if given.head is None else arrays | dict(zip(("weight", "bias"), given.head, strict=True))


def unpacked(arrays: Mapping[str, np.ndarray]) -> Given:
    """The opposite of `packed`."""
    names = {name.rsplit(".", 1)[0] for name in arrays if "." in name}
    kinds = {name: Seen(*(arrays[f"{name}.{key}"] for key in Seen._fields)) for name in names}
    return Given(kinds, (arrays["weight"], arrays["bias"]) if "weight" in arrays else None)


def figures_of(
    given: Given, class_names: Sequence[str], taxonomy: Path | None, priors: Path | None
) -> dict[str, Any]:
    """All figures of a run, of all its scales together and of what each of them does."""
    val, test = given.kinds["val"], given.kinds["test"]
    temperature = fit_temperature(val.log_fused, val.labels)
    probabilities = tempered(test.log_fused, temperature)
    figures: dict[str, Any] = {
        "num_images": {kind: len(seen.labels) for kind, seen in given.kinds.items()},
        "top1": 100 * float((test.log_fused.argmax(axis=1) == test.labels).mean()),
        "temperature": temperature,
        "orders": orders(val, test),
        "sets": sets_of(val, test, temperature),
        "unknown": unknown(given, temperature),
        "neighbours": neighbours(given.kinds["train"], test, len(class_names)),
    }
    if taxonomy is not None:
        figures["ranks"] = ranks_of(read_rank_table(taxonomy, class_names), probabilities, test.labels)
    if priors is not None:
        figures["priors"] = {
            priors.name: priors_of(read_priors(priors, class_names), probabilities, test.labels)
        }
    return figures


def ranks_of(
    taxonomy: Taxonomy, probabilities: np.ndarray, labels: np.ndarray
) -> dict[str, dict[str, float | None]]:
    """Answers at each rank, and of all of them."""
    found = ranks_report(
        taxonomy,
        Answers(probabilities, probabilities, None, None, None, roll_up(taxonomy, probabilities)),
        labels,
    )
    mistakes = found["mistakes"]
    all_ranks = {
        "accuracy": None,
        "answered": 100 - found["unanswered"],
        "right": found["right"],
        "depth": found["depth"],
        "distance": mistakes["distance"],
        "by_chance": mistakes["by_chance"],
    }
    return {rank["rank"]: rank for rank in found["ranks"]} | {"all": all_ranks}


def priors_of(priors: Priors, probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What a list of classes does to the answers for images of these."""
    matched = priors.matched({})
    assert matched.weights is not None, "the list has classes of the model"
    rows = matched.weights[labels] > 0
    before = probabilities[rows]
    after = weighted(before, np.tile(matched.weights, (len(before), 1)))
    given = Answers(after, before, None, None, None, None)
    return priors_report(given, [matched] * len(before), labels[rows], priors.source)


def neighbours(training: Seen, test: Seen, num_classes: int) -> dict[str, dict[str, float]]:
    """Top-1 of the vote of the nearest training images, by the features of each scale and of all."""
    found = knn_report(K, training, test, num_classes)
    by_scale = {f"scale {number}": one for number, one in enumerate(found["scales"], start=1)}
    return by_scale | {"all scales": found["fused"]}


def orders(val: Seen, test: Seen) -> dict[str, dict[str, float]]:
    """How far the probabilities of test images are off, by order of mean and temperature."""
    fused = fit_temperature(val.log_fused, val.labels)
    each = [fit_temperature(log_probabilities(scale), val.labels) for scale in val.probabilities]

    def tempered_mean(seen: Seen) -> np.ndarray:
        pairs = zip(seen.probabilities, each, strict=True)
        return np.asarray(np.mean([tempered(log_probabilities(scale), one) for scale, one in pairs], axis=0))

    again = fit_temperature(log_probabilities(tempered_mean(val)), val.labels)
    raw = test.probabilities.mean(axis=0)
    answers = (
        raw,
        tempered(test.log_fused, fused),
        tempered_mean(test),
        tempered(log_probabilities(tempered_mean(test)), again),
    )
    return {
        name: {
            **errors(answer, test.labels),
            "by_chance": ece_by_chance(answer),
            "changed": 100 * float((answer.argmax(axis=1) != raw.argmax(axis=1)).mean()),
        }
        for name, answer in zip(ORDERS, answers, strict=True)
    }


def ece_by_chance(probabilities: np.ndarray) -> float:
    """ECE in percentage points that so many images show on average if the probabilities are exact.

    The labels are drawn from the probabilities themselves. With few images bins differ by chance alone.

    >>> ece_by_chance(np.tile([1.0, 0.0], (9, 1)))
    0.0
    """
    generator = np.random.default_rng(0)
    sums = probabilities.cumsum(axis=1, dtype=np.float64)
    last = probabilities.shape[1] - 1
    drawn = [(sums < generator.random((len(sums), 1)) * sums[:, -1:]).sum(axis=1) for _ in range(NUM_DRAWS)]
    return float(
        np.mean([expected_calibration_error(probabilities, labels.clip(max=last)) for labels in drawn])
    )


def sets_of(val: Seen, test: Seen, temperature: float) -> dict[str, dict[str, float]]:
    """Prediction sets of the test images, by method."""
    of_val, of_test = (tempered(seen.log_fused, temperature) for seen in (val, test))
    return {
        method: set_measures(
            sets(of_test, method, fit_quantiles(of_val, val.labels, method, COVERAGE, per_class=False)),
            test.labels,
        )
        for method in SET_METHODS
    }


def unknown(given: Given, temperature: float) -> dict[str, dict[str, list[float]]]:
    """AUROC and FPR95 of every score, by what is unknown; `left out` is what `calibrate` sees."""
    val, test, train = (given.kinds[name] for name in ("val", "test", "train"))
    references = [Reference(features, train.labels, given.head) for features in train.features]
    choices = candidates(len(test.logits), has_reference=True, has_head=given.head is not None)
    found = {"left out": choose_by_leaving_out(choices, val, references, temperature)}
    for kind in given.kinds:
        if kind not in ("val", "test", "train"):
            found[kind] = choose_on_unknown(choices, test, given.kinds[kind], references, temperature)
    return {
        kind: {score_name(choice): [choice.auroc, choice.fpr95] for choice in ranked}
        for kind, ranked in found.items()
    }


def score_name(choice: Candidate) -> str:
    """A score and its scales in words.

    >>> score_name(Candidate("knn", (1, 2)))
    'knn, scales 1 and 2'
    """
    if not choice.scales:
        return choice.score
    plural = "s" if len(choice.scales) > 1 else ""
    return f"{choice.score}, scale{plural} {' and '.join(map(str, choice.scales))}"


def tables(figures: Mapping[str, dict[str, Any]]) -> Iterator[list[str]]:
    """The tables, as lines; mean and standard deviation over the seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, found in figures.items():
        groups.setdefault(re.sub(r"-\d+$", "", name), []).append(found)
    for part, columns in PARTS.items():
        if all(part in run for run in figures.values()):
            yield table_of_groups(groups, part, columns)
    for name, runs in groups.items():
        kinds = runs[0]["unknown"]
        head = [name, *(f"{kind}: {figure}" for kind in kinds for figure in ("AUROC", "FPR95"))]
        rows = [
            [
                score,
                *(
                    spread([run["unknown"][kind][score][of] for run in runs])
                    for kind in kinds
                    for of in (0, 1)
                ),
            ]
            for score in kinds["left out"]
        ]
        yield markdown(head, rows)


PARTS = {
    "orders": {
        "ece": "ECE",
        "by_chance": "ECE if exact",
        "adaptive_ece": "adaptive ECE",
        "nll": "NLL",
        "brier": "Brier",
        "changed": "classes changed, %",
    },
    "sets": {
        "reached": "reached, %",
        "worst_class": "worst class, %",
        "mean_size": "mean size",
        "singletons": "of one class, %",
    },
    "ranks": {
        "accuracy": "accuracy, %",
        "answered": "answered here, %",
        "right": "of these right, %",
        "depth": "depth",
        "distance": "ranks off",
        "by_chance": "ranks off by chance",
    },
    "priors": {
        "num_images": "images",
        "changed": "answers changed",
        "corrected": "became right",
        "spoiled": "became wrong",
        "before": "right without, %",
        "after": "right with, %",
    },
    "neighbours": {"top1": "right, %"},
}
"""Columns of the tables, by the part of the figures that they show."""


def table_of_groups(
    groups: Mapping[str, Sequence[dict[str, Any]]], part: str, columns: Mapping[str, str]
) -> list[str]:
    """A table of one part of the figures: a row for each kind of run and each way."""
    rows = [
        [name, spread([run["top1"] for run in runs]), way]
        + [spread([run[part][way].get(key) for run in runs]) for key in columns]
        for name, runs in groups.items()
        for way in runs[0][part]
    ]
    return markdown(["run", "top-1", part, *columns.values()], rows)


def spread(given: Sequence[float | None]) -> str:
    """Mean and standard deviation over the seeds; nothing where a seed has no figure.

    >>> spread([1.0, 2.0]), spread([80.0])
    ('1.500 ± 0.707', '80.0')
    """
    if None in given:
        return ""
    values = np.array(given, float)
    digits = 3 if abs(values).max() < SMALL else 1
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, as lines."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    main()
