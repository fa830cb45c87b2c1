"""What answers at ranks and priors come to: blocks of both pages, and lines of a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ramstrans.evaluation.report.blocks import Block, Heading, Table, Text
from ramstrans.plain import counted

Report = Mapping[str, Any]


def rank_blocks(report: Report, level: int = 3) -> list[Block]:
    """Blocks on `ranks` and `priors` of a report, with headings of a level; none if they are missing."""
    parts = {"ranks": _ranks, "priors": _priors}
    found = [block for name, blocks in parts.items() if name in report for block in blocks(report[name])]
    return [block._replace(level=level) if isinstance(block, Heading) else block for block in found]


def rank_lines(report: Report) -> list[str]:
    """The same in a line each."""
    found = []
    if ranks := report.get("ranks"):
        parts = [
            f"{each['rank']} {each['answered']:.1f} % of images, {percent(each['right'])} right"
            for each in ranks["ranks"]
        ]
        found.append(
            f"Answers with {ranks['confidence']:g} %: {'; '.join(parts)}; none {ranks['unanswered']:.1f} %; "
            f"mean depth {ranks['depth']:.2f} of {ranks['max_depth']}"
        )
    if priors := report.get("priors"):
        found.append(f"Priors: {_changes(priors)}")
    return found


def percent(value: float | None) -> str:
    """A share; a dash if there is none.

    >>> percent(61.26), percent(None)
    ('61.3 %', '-')
    """
    return "-" if value is None else f"{value:.1f} %"


def _ranks(ranks: Report) -> Iterator[Block]:
    asked = f"{ranks['confidence']:g} %"
    yield Heading(3, "Answers at the rank that is certain")
    yield Text(
        f"An answer is the finest rank whose most probable group has {asked} or more of the probability. "
        f"{percent(ranks['right'])}{_between(ranks['right_interval'])} of these answers are right; "
        f"{percent(ranks['unanswered'])}{_between(ranks['unanswered_interval'])} of the images have none. "
        f"They are {ranks['depth']:.2f} ranks deep on average{_between(ranks['depth_interval'], 2, '')}, "
        f"where the class is {ranks['max_depth']} and no answer 0. The ranks are those of {ranks['source']}."
    )
    rows = [
        [
            each["rank"],
            str(each["num_groups"]),
            *(_cell(each, key) for key in ("accuracy", "answered", "right")),
        ]
        for each in ranks["ranks"]
    ]
    header = ["rank", "groups", "accuracy", "answered here", "of these right"]
    yield Table(header, rows)
    yield Text(
        "Accuracy: how often the most probable group of a rank is the true one, however sure. In brackets: "
        "95 % intervals."
    )
    yield from _mistakes(ranks["mistakes"])


def _mistakes(mistakes: Report) -> Iterator[Block]:
    if not mistakes["num_images"]:
        return
    yield Heading(3, "How bad mistakes are")
    yield Text(
        f"{counted(mistakes['num_images'], 'image')} got a wrong class. From it to a group that has the true "
        f"class too, it is {mistakes['distance']:.2f} ranks on average"
        f"{_between(mistakes['distance_interval'], 2, '')}; to a class drawn at random, it would be "
        f"{mistakes['by_chance']:.2f}."
    )
    rows = [[_both(each["rank"]), percent(each["share"])] for each in mistakes["ranks"]]
    yield Table(["wrong and true class", "mistakes"], rows)


def _both(rank: str) -> str:
    return "nothing in common" if rank == "root" else f"of the same {rank}"


def _priors(priors: Report) -> Iterator[Block]:
    yield Heading(3, "Priors")
    yield Text(
        f"With the priors of {priors['source']}: {_changes(priors)}. What is said of ranks and mistakes is "
        "with them, everything else without."
    )


def _changes(priors: Report) -> str:
    low, high = priors["interval"]
    return (
        f"a condition holds for {priors['matched']} of {counted(priors['num_images'], 'image')}; "
        f"{counted(priors['changed'], 'answer')} changed, {priors['corrected']} became right and "
        f"{priors['spoiled']} wrong: {priors['after']:.1f} % are right, {priors['before']:.1f} % without "
        f"priors, {priors['points']:+.1f} points ({low:+.1f} to {high:+.1f})"
    )


def _cell(entry: Report, key: str) -> str:
    return f"{percent(entry[key])}{_between(entry[f'{key}_interval'])}"


def _between(interval: Sequence[float] | None, digits: int = 1, unit: str = " %") -> str:
    """An interval in brackets, if there is one.

    >>> _between([80.64, 84.62]), _between(None)
    (' (80.6 to 84.6 %)', '')
    """
    if interval is None:
        return ""
    low, high = interval
    return f" ({low:.{digits}f} to {high:.{digits}f}{unit})"
