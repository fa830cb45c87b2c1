"""The page of a comparison, as blocks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ramstrans.compare import words
from ramstrans.compare.results import REGIONS, Results
from ramstrans.console import format_duration
from ramstrans.evaluation.report.blocks import Block, Code, Heading, Items, Picture, Table, Text
from ramstrans.evaluation.report.judged import MASK_NAMES, STABILITY_NAMES
from ramstrans.evaluation.report.markdown import REGION_ROWS
from ramstrans.plain import counted

Entry = Mapping[str, Any]


def blocks_of(results: Results, pictures: Mapping[str, Mapping[str, Path]]) -> Iterator[Block]:
    """The blocks of the page.

    Args:
        results: From `summarize`, with `command`, `versions` and `timing`.
        pictures: For each data set, files by what they show: `accuracies`, `costs`, `curves`.
    """
    entries, runs = results["results"], results["runs"]
    done = sum(run["state"] == "done" for run in runs)
    yield Heading(1, f"Comparison of {counted(len({entry['contender'] for entry in entries}), 'method')}")
    yield Text(
        f"{done} of {counted(len(runs), 'run')}; all that have finished are used. Accuracy is top-1 on the "
        "test images in percent, mean and standard deviation over seeds. Intervals (95 %) are over seeds and "
        "images: what other seeds and other images could have given."
    )
    yield from (Text(line + ".", is_note=True) for line in words.missing_in_words(runs))
    yield from (Text(line, is_note=True) for line in words.caveats(entries, results["baseline"]))
    if results["to_baseline"]:
        yield Heading(2, f"Which differences from {results['baseline']} are significant")
        yield Items(words.differences_in_words(results["to_baseline"]))
    for data in dict.fromkeys(entry["data"] for entry in entries):
        here = [entry for entry in entries if entry["data"] == data]
        yield from data_blocks(data, here, results, pictures[data])
    yield from pair_blocks(results["pairs"], len(results["to_baseline"]))
    yield from end_blocks(results)


def data_blocks(
    data: str, entries: Sequence[Entry], results: Results, pictures: Mapping[str, Path]
) -> Iterator[Block]:
    """All of one data set."""
    yield Heading(2, f"{data}: {counted(entries[0]['num_images'], 'test image')}")
    yield accuracy_table(entries)
    differences = [row for row in results["to_baseline"] if row["data"] == data]
    if "accuracies" in pictures:
        yield Picture(
            pictures["accuracies"], f"Accuracy on {data}, and differences from {results['baseline']}"
        )
    if differences:
        yield Heading(3, f"Against {results['baseline']}, on the same images")
        yield difference_table(differences)
    yield Heading(3, "Cost")
    yield cost_table(entries)
    yield from (Text(line) for line in words.evaluated_in_words(entries))
    if results["timing"] is not None:
        yield Text(words.timing_in_words(results["timing"]))
    if "costs" in pictures:
        yield Picture(pictures["costs"], f"Accuracy against cost on {data}")
    if any(entry["regions"] for entry in entries):
        yield Heading(3, "Regions")
        yield region_table(entries)
    yield from judged_blocks([entry for entry in entries if entry["regions_judged"]])
    if "curves" in pictures:
        yield Heading(3, "Learning curves")
        yield Picture(pictures["curves"], f"Mean over seeds on {data}; the band is that of all seeds")


def accuracy_table(entries: Sequence[Entry]) -> Table:
    """Fused accuracy with its interval, and that of each scale."""
    num_scales = max(len(entry["scales"]) for entry in entries)
    numbers = range(1, num_scales + 1) if num_scales > 1 else ()
    best = max(entry["fused"]["mean"] for entry in entries)
    is_validated = any(entry["validation"]["mean"] is not None for entry in entries)
    rows = [
        [
            entry["contender"],
            mean_text(entry["fused"]),
            words.interval_text(entry["fused"]["interval"]),
            *(mean_text(entry["scales"][n - 1]) if n <= len(entry["scales"]) else "-" for n in numbers),
            *(validation_texts(entry) if is_validated else ()),
            ", ".join(f"{value:.1f}" for value in entry["fused"]["values"]),
        ]
        for entry in entries
    ]
    bold = frozenset(index for index, entry in enumerate(entries) if entry["fused"]["mean"] == best)
    seeds = ", ".join(map(str, entries[0]["seeds"]))
    is_same = all(entry["seeds"] == entries[0]["seeds"] for entry in entries)
    last = (
        f"fused, {'seeds' if len(entries[0]['seeds']) > 1 else 'seed'} {seeds}"
        if is_same
        else "fused, by seed"
    )
    header = ["", "fused", "95 % interval", *(f"scale {number}" for number in numbers)]
    header += ["fused, validation", "log loss, validation", last] if is_validated else [last]
    return Table(header, rows, bold=bold)


def validation_texts(entry: Entry) -> tuple[str, str]:
    """Fused accuracy and log loss on the validation images."""
    return spread_text(entry["validation"]), spread_text(entry["validation_loss"], digits=3)


def difference_table(rows: Sequence[Entry], *, names_both: bool = False) -> Table:
    """Differences with their intervals and tests."""
    lines = [
        [
            *([row["data"]] if names_both else []),
            f"{row['first']} - {row['second']}" if names_both else row["first"],
            words.signed(row["difference"]),
            words.interval_text(row["interval"], is_difference=True),
            words.p_text(row["p"]),
            words.p_text(row["p_holm"]),
            "yes" if row["is_significant"] else "no",
            row["test"],
        ]
        for row in rows
    ]
    first = ["data", "methods"] if names_both else [""]
    header = [*first, "points", "95 % interval", "p", "p, Holm", "significant", "test"]
    return Table(header, lines, first_right=len(first))


def cost_table(entries: Sequence[Entry]) -> Table:
    """Counted work, measured time, and time of training."""
    has_time = any(entry["milliseconds"] is not None for entry in entries)
    rows = []
    for entry in entries:
        row = [entry["contender"], f"{entry['fused']['mean']:.1f}", f"{entry['gmacs']:.3g}"]
        row.append("yes" if entry["is_on_front_of_gmacs"] else "no")
        if has_time and entry["milliseconds"] is None:
            row += ["-", "-", "-"]
        elif has_time:
            low, high = entry["milliseconds_quartiles"]
            row += [f"{entry['milliseconds']:.3g}", f"{low:.3g} - {high:.3g}"]
            row.append("yes" if entry["is_on_front_of_milliseconds"] else "no")
        seconds = entry["training_seconds"]["mean"]
        rows.append([*row, "-" if seconds is None else format_duration(seconds)])
    header = ["", "fused", "GMACs per image", "Pareto front, GMACs"]
    header += ["ms per image", "quartiles", "Pareto front, time"] if has_time else []
    return Table([*header, "training, mean"], rows)


def region_table(entries: Sequence[Entry]) -> Table:
    """The regions that each scale proposes for the next."""
    names = {key: name for key, name, _, _ in REGION_ROWS} | {"fallback_share": "fallbacks"}
    rows = [
        [f"{entry['contender']}, scale {one['scale']}", *(spread_text(one[key]) for key in REGIONS)]
        for entry in entries
        for one in entry["regions"]
    ]
    return Table(["", *(f"{names[key]}, %" for key in REGIONS)], rows)


def judged_blocks(entries: Sequence[Entry]) -> Iterator[Block]:
    """How regions were judged, if they were."""
    if not entries:
        return
    first = entries[0]["regions_judged"]
    yield Heading(3, "Regions judged")
    yield Text(words.judged_in_words(first))
    header = ["", "whole", *MASK_NAMES.values(), "IoU of moved and region"]
    header += ["deletion", "random", "insertion", "random"]
    yield Table(header, [row for entry in entries for row in mask_rows(entry)])
    rows = [
        [f"{entry['contender']}, scale {one['scale']}", *(spread_text(one[key]) for key in STABILITY_NAMES)]
        for entry in entries
        for one in entry["regions_judged"]["regions"]
    ]
    yield Table(["", *STABILITY_NAMES.values()], rows)
    moved = [
        (entry, entry["regions_judged"]["moved"]) for entry in entries if entry["regions_judged"]["moved"]
    ]
    if moved:
        yield Table(
            ["", "fused, regions as found", "fused, regions moved at random"],
            [
                [entry["contender"], *(spread_text(one[key]) for key in ("found", "moved"))]
                for entry, one in moved
            ],
        )


def mask_rows(entry: Entry) -> list[list[str]]:
    """A row for each region; saliency is that of the first scale."""
    judged, rows = entry["regions_judged"], []
    areas = [
        judged["areas"][name] for name in ("deletion", "random_deletion", "insertion", "random_insertion")
    ]
    for one in judged["regions"]:
        is_first = one["scale"] == 1
        rows.append(
            [
                f"{entry['contender']}, scale {one['scale']}",
                spread_text(judged["whole"]) if is_first else "",
                *(spread_text(one[key]) for key in (*MASK_NAMES, "moved_iou")),
                *(spread_text(area) if is_first else "" for area in areas),
            ]
        )
    return rows


def pair_blocks(pairs: Sequence[Entry], num_to_baseline: int) -> Iterator[Block]:
    """All pairs, if there are more than those with the baseline."""
    if len(pairs) > num_to_baseline:
        yield Heading(2, "All pairs")
        yield Items(words.differences_in_words(pairs))
        yield difference_table(pairs, names_both=True)


def end_blocks(results: Results) -> Iterator[Block]:
    """How the numbers were made."""
    yield Heading(2, "How to read this")
    yield Items(
        [
            "An interval adds what resampled images and resampled seeds change (a crossed bootstrap), with "
            "the quantiles of Student's t for the number of seeds.",
            "Tests are two-sided and paired: all methods are tested on the same images. One seed each: "
            "McNemar's exact test. Several seeds: a t test whose error holds seeds and images; of the same "
            "models, evaluated in two ways, it holds the differences by seed.",
            "Validation: after the epoch that was kept, on images that are not tested. Choose among many "
            "methods by it; the best of many on the test images looks better than it is. Of few images the "
            "log loss (cross-entropy of the fused answer, lower is better) may tell more than the accuracy.",
            "p, Holm is corrected for all tests of its kind here: those against the baseline, or all pairs.",
            "Not significant does not mean equal: the interval says how large the difference may be.",
            "Pareto front: no other method is as accurate for less, or more accurate for as much.",
        ]
    )
    yield Heading(2, "How this was made")
    yield Code(results["command"])
    yield Code(yaml.safe_dump(results["plan"], sort_keys=False, allow_unicode=True))
    yield Text(
        "Versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + "."
    )
    rows = [
        [run["name"], run["state"], "-" if run["top1"] is None else f"{run['top1']:.1f}", run["error"] or ""]
        for run in results["runs"]
    ]
    yield Table(["run", "state", "fused", "error"], rows, first_right=2)


def mean_text(mean: Entry, digits: int = 1) -> str:
    """An accuracy, or another figure, with its standard deviation over seeds.

    >>> mean_text({"mean": 83.52, "sd": 0.96}), mean_text({"mean": 80.0, "sd": None})
    ('83.5 ± 1.0', '80.0')
    """
    return f"{mean['mean']:.{digits}f}" + ("" if mean["sd"] is None else f" ± {mean['sd']:.{digits}f}")


def spread_text(spread: Entry, digits: int = 1) -> str:
    """The same, or a dash for what the data set does not have."""
    return "-" if spread["mean"] is None else mean_text(spread, digits)
