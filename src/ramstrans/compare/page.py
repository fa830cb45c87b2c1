"""The page of a comparison, once as Markdown and once as HTML of one file, both from the same blocks."""

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from ramstrans.compare import words
from ramstrans.compare.results import REGIONS, Results
from ramstrans.console import format_duration
from ramstrans.evaluation.report.markdown import REGION_ROWS
from ramstrans.evaluation.report.tables import cell, table
from ramstrans.plain import counted, utf8_text

Entry = Mapping[str, Any]


class Heading(NamedTuple):
    """A heading of level 1, 2 or 3."""

    level: int
    text: str


class Text(NamedTuple):
    """A paragraph; a note stands out."""

    text: str
    is_note: bool = False


class Items(NamedTuple):
    """A list of sentences."""

    texts: Sequence[str]


class Table(NamedTuple):
    """A table; its columns from `first_right` on hold numbers. Rows in `bold` stand out."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    first_right: int = 1
    bold: frozenset[int] = frozenset()


class Picture(NamedTuple):
    """A PNG file with its caption."""

    path: Path
    caption: str


class Code(NamedTuple):
    """Text as it is."""

    text: str


Block = Heading | Text | Items | Table | Picture | Code


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
    yield from pair_blocks(results["pairs"])
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
    if results["timing"] is not None:
        yield Text(words.timing_in_words(results["timing"]))
    if "costs" in pictures:
        yield Picture(pictures["costs"], f"Accuracy against cost on {data}")
    if any(entry["regions"] for entry in entries):
        yield Heading(3, "Regions")
        yield region_table(entries)
    if "curves" in pictures:
        yield Heading(3, "Learning curves")
        yield Picture(pictures["curves"], f"Mean over seeds on {data}; the band is that of all seeds")


def accuracy_table(entries: Sequence[Entry]) -> Table:
    """Fused accuracy with its interval, and that of each scale."""
    num_scales = max(len(entry["scales"]) for entry in entries)
    numbers = range(1, num_scales + 1) if num_scales > 1 else ()
    best = max(entry["fused"]["mean"] for entry in entries)
    rows = [
        [
            entry["contender"],
            mean_text(entry["fused"]),
            words.interval_text(entry["fused"]["interval"]),
            *(mean_text(entry["scales"][n - 1]) if n <= len(entry["scales"]) else "-" for n in numbers),
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
    header = ["", "fused", "95 % interval", *(f"scale {number}" for number in numbers), last]
    return Table(header, rows, bold=bold)


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


def pair_blocks(pairs: Sequence[Entry]) -> Iterator[Block]:
    """All pairs, if there are more than those with the baseline."""
    if (
        len({(row["data"], row["first"]) for row in pairs} | {(row["data"], row["second"]) for row in pairs})
        > 2
    ):
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
            "McNemar's exact test. Several seeds: a t test whose error holds seeds and images.",
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


def mean_text(mean: Entry) -> str:
    """An accuracy with its standard deviation over seeds.

    >>> mean_text({"mean": 83.52, "sd": 0.96}), mean_text({"mean": 80.0, "sd": None})
    ('83.5 ± 1.0', '80.0')
    """
    return f"{mean['mean']:.1f}" + ("" if mean["sd"] is None else f" ± {mean['sd']:.1f}")


def spread_text(spread: Entry) -> str:
    """The same, or a dash for what the data set does not have."""
    return "-" if spread["mean"] is None else mean_text(spread)


def markdown_of(blocks: Sequence[Block], folder: Path) -> str:
    """Render blocks as Markdown; pictures are linked relative to a folder."""
    return utf8_text("\n\n".join(_markdown(block, folder) for block in blocks) + "\n")


def _markdown(block: Block, folder: Path) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {cell(text)}"
        case Text(text, is_note):
            return f"> **Note:** {cell(text)}" if is_note else cell(text)
        case Items(texts):
            return "\n".join(f"- {cell(text)}" for text in texts)
        case Table(header, rows):
            return table(header, rows)
        case Picture(path, caption):
            return f"![{cell(caption)}]({quote(path.relative_to(folder).as_posix())})\n\n*{cell(caption)}*"
        case Code(text):
            return f"```\n{text.rstrip()}\n```"


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; font-weight: 600; } h1 { font-size: 1.7rem; }
h2 { font-size: 1.3rem; margin-top: 2.4rem; border-bottom: 1px solid #ddd; padding-bottom: .25rem; }
h3 { font-size: 1.05rem; margin-top: 1.6rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .8rem; border-bottom: 1px solid #e4e4e4; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 2px solid #999; } .number { text-align: right; white-space: nowrap; }
tr.best td { font-weight: 600; } figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #666; font-size: .9rem; }
pre { background: #f6f6f6; padding: .7rem 1rem; overflow-x: auto; }
.note { background: #fff6dd; border-left: 4px solid #d9a400; padding: .5rem .9rem; }
"""


NOTE, BEST, NUMBER = (f' class="{name}"' for name in ("note", "best", "number"))


def html_of(blocks: Sequence[Block]) -> str:
    """Render blocks as one HTML file that needs no other: pictures are inside."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    body = "\n".join(map(_html, blocks))
    return utf8_text(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Text(text, is_note):
            return f"<p{NOTE if is_note else ''}>{html.escape(text)}</p>"
        case Items(texts):
            return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>"
        case Table():
            return _html_table(block)
        case Picture(path, caption):
            content = base64.b64encode(path.read_bytes()).decode()
            image = f'<img src="data:image/png;base64,{content}" alt="{html.escape(caption)}">'
            return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"
        case Code(text):
            return f"<pre>{html.escape(text.rstrip())}</pre>"


def _html_table(block: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        marks = [NUMBER if index >= block.first_right else "" for index in range(len(cells))]
        return "".join(
            f"<{tag}{mark}>{html.escape(one)}</{tag}>" for mark, one in zip(marks, cells, strict=True)
        )

    lines = [
        f"<tr{BEST if index in block.bold else ''}>{row(cells, 'td')}</tr>"
        for index, cells in enumerate(block.rows)
    ]
    head = f"<thead><tr>{row(block.header, 'th')}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'
