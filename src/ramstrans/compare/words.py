"""The results in words: which differences are significant, which are not, and what is missing."""

from collections.abc import Mapping, Sequence
from typing import Any

from ramstrans.compare.statistics import LEVEL
from ramstrans.plain import counted

Row = Mapping[str, Any]


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(1.24), signed(-0.5), signed(-0.01)
    ('+1.2', '-0.5', '0.0')
    """
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text


def interval_text(interval: Sequence[float], *, is_difference: bool = False) -> str:
    """An interval.

    >>> interval_text([80.12, 84.0]), interval_text([-0.5, 2.0], is_difference=True)
    ('80.1 - 84.0', '-0.5 to +2.0')
    """
    low, high = interval
    return f"{signed(low)} to {signed(high)}" if is_difference else f"{low:.1f} - {high:.1f}"


def p_text(p: float) -> str:
    """A p-value.

    >>> p_text(0.0312), p_text(0.2), p_text(1e-7)
    ('0.031', '0.20', '< 0.001')
    """
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def differences_in_words(rows: Sequence[Row]) -> list[str]:
    """Sentences on the differences of a family of tests, by data set; the significant ones first."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        here = [row for row in rows if row["data"] == data]
        real = [row for row in here if row["is_significant"]]
        other = [row for row in here if not row["is_significant"]]
        level = f"{100 * LEVEL:.0f} %, {counted(len(rows), 'test')}, Holm"
        if real:
            lines.append(f"{data}: significant ({level}): {'; '.join(map(significant, real))}.")
        if other:
            lines.append(f"{data}: not significant ({level}): {'; '.join(map(open_question, other))}.")
    return lines


def significant(row: Row) -> str:
    """A difference that is significant, the better one first."""
    better, worse = (row["first"], row["second"])[:: 1 if row["difference"] > 0 else -1]
    return f"{better} is better than {worse} by {abs(row['difference']):.1f} points"


def open_question(row: Row) -> str:
    """A difference that is not significant, and how large it may still be."""
    return (
        f"{row['first']} and {row['second']} ({signed(row['difference'])} points, 95 % interval "
        f"{interval_text(row['interval'], is_difference=True)})"
    )


def missing_in_words(runs: Sequence[Row]) -> list[str]:
    """What is not in the results, and why; nothing if all runs are."""
    failed = [run for run in runs if run["state"] == "failed"]
    missing = [run["name"] for run in runs if run["state"] == "missing"]
    lines = [f"{run['name']} failed and is left out: {run['error']}" for run in failed]
    if missing:
        lines.append(f"{len(missing)} of {counted(len(runs), 'run')} not there yet: {', '.join(missing)}")
    return lines


def timing_in_words(timing: Row) -> str:
    """How the time per image was measured."""
    machine = timing["machine"]
    return (
        f"Time: medians over {counted(timing['num_rounds'], 'round')} in which the models took turns, in "
        f"batches of {timing['batch_size']}, {timing['precision']}, on {machine['gpu'] or machine['cpu']}, "
        f"{counted(machine['threads'], 'thread')}."
    )


def evaluated_in_words(entries: Sequence[Row]) -> list[str]:
    """Which methods are others evaluated in another way; nothing if none is."""
    lines = []
    for entry in entries:
        if entry["of"] is None:
            continue
        options = " ".join(f"--{name} {value}" for name, value in entry["evaluated_with"].items())
        line = f"{entry['contender']}: {entry['of']} with evaluate {options}, not trained again."
        if "early_exit" in entry["evaluated_with"]:
            line += (
                " Its GMACs are the mean over images and seeds, by the share that goes on after each scale."
            )
        lines.append(line)
    return lines


def judged_in_words(judged: Row) -> str:
    """What the tables of judged regions hold."""
    return (
        f"On {counted(judged['num_images'], 'test image')}, percent. Scale 1 alone looks at images of which "
        "parts are deleted: its top-1 on whole ones, on the region alone, without the region, and the same "
        "for a box of the same sides anywhere in the image. What is deleted becomes "
        f"{judged['fill']}. Deletion and insertion: area under the probability of the class that the whole "
        "image is given, by saliency and in random order (https://arxiv.org/abs/1806.07421); good saliency "
        "has less of the first and more of the second. Below, the overlap of regions with those of mirrored "
        "and shifted images."
    )


def caveats(entries: Sequence[Row], baseline: str) -> list[str]:
    """What a reader must know of the intervals."""
    lines = []
    single = [entry for entry in entries if len(entry["seeds"]) == 1]
    if single:
        names = ", ".join(f"{entry['contender']} on {entry['data']}" for entry in single)
        lines.append(
            f"One seed only: {names}. These intervals and tests are over the images: they say what this one "
            "model would do on other images, not what another seed would give."
        )
    two = [entry for entry in entries if len(entry["seeds"]) == 2]
    if two:
        lines.append(
            "Two seeds say very little about how much seeds differ, so intervals may be very wide, or by "
            "luck too narrow; three or more are better."
        )
    uneven = [entry for entry in entries if entry["missing_seeds"]]
    if uneven:
        names = "; ".join(f"{one['contender']} on {one['data']}: {one['missing_seeds']}" for one in uneven)
        lines.append(f"Seeds of the plan that are missing: {names}.")
    for entry in entries:
        if entry["judged_seeds"] and entry["judged_seeds"] != entry["seeds"]:
            lines.append(
                f"Regions of {entry['contender']} on {entry['data']} were judged of some seeds alone: "
                f"{entry['judged_seeds']} of {entry['seeds']}; logs of the others say why."
            )
    for data in dict.fromkeys(entry["data"] for entry in entries):
        if baseline not in {entry["contender"] for entry in entries if entry["data"] == data}:
            lines.append(
                f"The baseline {baseline} has no finished run on {data}, so nothing is tested against it."
            )
    return lines
