"""Compute the figures of docs/results.md again from the published answers of every run.

    python scripts/evidence.py docs/evidence/methods_cub50.csv [MORE.csv] [--baseline plain] [--pairs]

A file is `OUT/answers/DATA.csv` of `ramstrans compare`: a row per test image, a column per run and answer, 1
where it is right. Files of several plans on the same images are taken together: a method may have seeds in
each, and no run may be in two. Prints Markdown: a row per method with its accuracies, and its difference from
the baseline; with `--pairs` the differences of all pairs. The statistics are those of `compare`.
"""

import argparse
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ramstrans.compare.page import spread_text
from ramstrans.compare.results import spread
from ramstrans.compare.statistics import CrossedBootstrap, Difference, holm
from ramstrans.compare.words import interval_text, p_text, signed

RUN = re.compile(r"(?P<method>.+)__(?P<data>.+)__seed(?P<seed>\d+)")
"""The name of a run; its column has the answer's name after a space."""

IMAGE = ["path", "true"]

Right = dict[str, dict[str, np.ndarray]]
"""By method and answer (`fused`, `scale 1`, ...): (S, N), whether each seed's run is right on each image."""


def main() -> None:
    """Read the files and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="answers of `ramstrans compare`")
    parser.add_argument("--baseline", default="plain", help="method that others are tested against")
    parser.add_argument("--pairs", action="store_true", help="print the differences of all pairs too")
    options = parser.parse_args()
    right = by_method(read_answers(options.files))
    if options.baseline not in right:
        parser.error(f"--baseline: there is no method {options.baseline!r} among {', '.join(right)}")
    for line in tables(right, options.baseline, with_pairs=options.pairs):
        print(line)


def read_answers(paths: Sequence[Path]) -> pd.DataFrame:
    """The answers of all files, in one table.

    Raises:
        ValueError: Their images differ, or a run is in two of them.
    """
    found = pd.read_csv(paths[0])
    for path in paths[1:]:
        other = pd.read_csv(path)
        if not found[IMAGE].equals(other[IMAGE]):
            raise ValueError(f"{path} is of other images than {paths[0]}")
        if twice := sorted((set(found) & set(other)) - set(IMAGE)):
            raise ValueError(f"{path} has runs that are in a file before it: {', '.join(twice)}")
        found = found.join(other.drop(columns=IMAGE))
    return found


def by_method(answers: pd.DataFrame) -> Right:
    """The columns of a table of answers, by method, answer and seed."""
    columns: dict[str, dict[str, list[np.ndarray]]] = {}
    for column in answers.columns.drop(IMAGE):
        name, answer = column.split(" ", 1)
        match = RUN.fullmatch(name)
        if match is None:
            raise ValueError(f"column {column!r} is not that of a run, METHOD__DATA__seedN")
        columns.setdefault(match["method"], {}).setdefault(answer, []).append(answers[column].to_numpy())
    return {
        method: {answer: np.stack(seeds) for answer, seeds in found.items()}
        for method, found in columns.items()
    }


def tables(right: Right, baseline: str, *, with_pairs: bool) -> list[str]:
    """The lines of Markdown."""
    bootstrap = CrossedBootstrap(
        {f"{method} {part}": values for method, found in right.items() for part, values in found.items()}
    )
    num_scales = max(len(found) - 1 for found in right.values())
    scales = [f"scale {number}" for number in range(1, num_scales + 1)]
    others = [method for method in right if method != baseline]
    to_baseline = corrected(right, bootstrap, [(method, baseline) for method in others])
    titles = ["top-1, %", *scales, "fused", "95 % interval", "by seed", f"against {baseline}", "p (Holm)"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for method, found in right.items():
        cells = [mean_text(found[scale]) if scale in found else "-" for scale in scales]
        cells += [
            f"**{mean_text(found['fused'])}**",
            interval_text(bootstrap.mean(f"{method} fused").interval),
            ", ".join(f"{100 * value:.1f}" for value in found["fused"].mean(axis=1)),
            *difference_texts(to_baseline.get((method, baseline))),
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    if with_pairs:
        lines += ["", "| difference | points, 95 % interval | p (Holm) |", "|---|---|---|"]
        pairs = [(second, first) for first, second in itertools.combinations(right, 2)]
        for (first, second), difference in corrected(right, bootstrap, pairs).items():
            lines.append(f"| {first} - {second} | " + " | ".join(difference_texts(difference)) + " |")
    return lines


def corrected(
    right: Right, bootstrap: CrossedBootstrap, pairs: Sequence[tuple[str, str]]
) -> Mapping[tuple[str, str], Difference]:
    """The differences of pairs of methods, each p corrected for all of them (Holm)."""
    found = [
        bootstrap.difference(
            f"{first} fused", f"{second} fused", same_models=are_same(right[first], right[second])
        )
        for first, second in pairs
    ]
    p_values = holm([one.p for one in found])
    return {pair: one._replace(p=p) for pair, one, p in zip(pairs, found, p_values, strict=True)}


def are_same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    """Whether two methods are the same trained models: their first scales give the same answers."""
    return np.array_equal(first["scale 1"], second["scale 1"])


def mean_text(right: np.ndarray) -> str:
    """Mean and, of several seeds, standard deviation over seeds, in percent."""
    return spread_text(spread(list(100 * right.mean(axis=1))))


def difference_texts(found: Difference | None) -> list[str]:
    """The cells of a difference: points with their interval, and p; empty if there is none."""
    if found is None:
        return ["", ""]
    interval = interval_text(found.interval, is_difference=True)
    return [f"{signed(found.difference)} ({interval})", p_text(found.p)]


if __name__ == "__main__":
    main()
