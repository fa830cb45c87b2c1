"""What was measured in one case: its ratio, as JSON and as a row of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, NamedTuple

from rich.table import Table

from benchmarks.cases import Case
from ramstrans.bench.report import format_ratio
from ramstrans.bench.timing import Quartiles, quartiles

Mode = Literal["eager", "compiled"]


class Outcome(NamedTuple):
    """Raw values of one case in one mode.

    Attributes:
        values: By candidate, seconds of every call; or bytes, one value.
        num_images: By candidate, images per call.
    """

    values: Mapping[str, list[float]]
    num_images: Mapping[str, int]

    def per_image(self, name: str) -> float:
        """A candidate's median value per image."""
        return median(self.values[name]) / self.num_images[name]

    def ratios(self, first: str, second: str) -> list[float]:
        """What the first takes per image divided by what the second takes, in each round.

        >>> Outcome({"a": [2.0, 6.0], "b": [1.0, 2.0]}, {"a": 1, "b": 2}).ratios("a", "b")
        [4.0, 6.0]
        """
        factor = self.num_images[second] / self.num_images[first]
        pairs = zip(self.values[first], self.values[second], strict=True)
        return [factor * value / other for value, other in pairs]


@dataclass(frozen=True)
class Result:
    """One case, measured or not.

    Attributes:
        name: Name of the case.
        case: What was to be measured.
        device_type: Where.
        outcomes: By mode; empty if nothing was measured.
        macs: Multiply-adds of the model per image.
        why_not: Why nothing was measured.
    """

    name: str
    case: Case
    device_type: str
    outcomes: Mapping[Mode, Outcome]
    macs: int = 0
    why_not: str | None = None

    @property
    def mode(self) -> Mode | None:
        """The mode in which ramstrans is fastest; the other candidate is taken in the same one."""
        return min(self.outcomes, key=lambda mode: self.outcomes[mode].per_image("ramstrans"), default=None)

    @property
    def ratio(self) -> Quartiles | None:
        """Median and quartiles of the figure over rounds."""
        return None if self.mode is None else quartiles(self.outcomes[self.mode].ratios(*self.case.figure))

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if nothing was measured or there is none."""
        return None if self.ratio is None else self.case.met(self.ratio.median, self.device_type)

    def to_json(self) -> dict[str, Any]:
        """Plain values; times in seconds and memory in bytes, both per call."""
        case, ratio = self.case, self.ratio
        return {
            "name": self.name,
            "case": case.describe(),
            "not_measured": self.why_not,
            "ratio": None if ratio is None else ratio._asdict(),
            "target": case.target_text(self.device_type),
            "met": self.met,
            "gmacs": self.macs / 1e9,
            "mode": self.mode,
            "modes": {mode: outcome._asdict() for mode, outcome in self.outcomes.items()},
        }


def results_table(results: Sequence[Result]) -> Table:
    """A row per case."""
    table = Table(title="Per image; ratio: median over rounds", title_justify="left", box=None)
    for heading in ("case", "model, batch", "figure"):
        table.add_column(heading, no_wrap=True)
    for heading in ("first", "second", "GMACs", "ratio", "quartiles", "target", "met"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(*cells(result))
    return table


def cells(result: Result) -> tuple[str, ...]:
    """The row of one case."""
    case, ratio = result.case, result.ratio
    model = f"{case.backbone.removesuffix('_patch16_224')}, {case.batch_size}"
    start = (result.name, model, " / ".join(case.figure))
    target = case.target_text("cuda" if case.needs_gpu else result.device_type)
    if result.mode is None or ratio is None:
        return (*start, "", "", "", "", f"not measured: {result.why_not}", target, "")
    values = [result.outcomes[result.mode].per_image(name) for name in case.figure]
    in_memory = case.measure == "memory"
    amounts = [f"{one / 2**20:,.0f} MiB" if in_memory else f"{1e3 * one:,.1f} ms" for one in values]
    middle = "" if in_memory else f"{format_ratio(ratio.low)} - {format_ratio(ratio.high)}"
    met = {True: "yes", False: "no", None: ""}[result.met]
    return (*start, *amounts, f"{result.macs / 1e9:.1f}", format_ratio(ratio.median), middle, target, met)
