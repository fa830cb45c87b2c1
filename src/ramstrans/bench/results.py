"""What was measured of one case, and what follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, NamedTuple

from ramstrans.bench.cases import Case
from ramstrans.bench.flops import Macs
from ramstrans.bench.timing import Spread, spread

Mode = Literal["eager", "compiled"]


class Outcome(NamedTuple):
    """Raw values of one case in one mode.

    Attributes:
        values: Of each contestant, seconds of every call; or bytes, one value.
        num_images: Of each contestant, images a call.
    """

    values: Mapping[str, list[float]]
    num_images: Mapping[str, int]

    def of_one_image(self, name: str) -> float:
        """A contestant's median time of a call, divided by its images."""
        return median(self.values[name]) / self.num_images[name]

    def ratios(self, first: str, second: str) -> list[float]:
        """What the first takes for an image divided by what the second takes, in each round.

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
        name: Of the case.
        case: What was to be measured.
        device_type: Where.
        outcomes: By mode; none where nothing was measured.
        macs: Work of a forward pass of one image; None where nothing was measured.
        attention: `fused` or `math`, of all contestants but the twin.
        rollouts: By mode, how ours pushes the rollout through a layer.
        why_not: Why nothing was measured.
    """

    name: str
    case: Case
    device_type: str
    outcomes: Mapping[Mode, Outcome]
    macs: Macs | None = None
    attention: str = ""
    rollouts: Mapping[Mode, str] | None = None
    why_not: str | None = None

    @property
    def mode(self) -> Mode | None:
        """The mode in which ours is fastest; the other contestant is taken in the same one."""
        return min(self.outcomes, key=lambda mode: self.outcomes[mode].of_one_image("ours"), default=None)

    @property
    def best(self) -> Outcome | None:
        """The outcome in that mode."""
        return None if self.mode is None else self.outcomes[self.mode]

    @property
    def ratio(self) -> Spread | None:
        """Median and quartiles of the figure over rounds."""
        return None if self.best is None else spread(self.best.ratios(*self.case.figure))

    @property
    def reached(self) -> bool | None:
        """Whether the figure is as it should be; None where it is not measured, or nothing is asked."""
        return None if self.ratio is None else self.case.reached(self.ratio.median, self.device_type)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values; times in seconds, memory in bytes, both of a call."""
        case, ratio = self.case, self.ratio
        return {
            "name": self.name,
            "task": case.task,
            "measure": case.measure,
            "figure": " / ".join(case.figure),
            "backbone": case.backbone,
            "image_size": case.image_size,
            "batch_size": case.batch_size,
            "precision": case.precision,
            "not_measured": self.why_not,
            "ratio": None if ratio is None else ratio.median,
            "quartiles": None if ratio is None else [ratio.low, ratio.high],
            "reach": case.reach.get(self.device_type),
            "reach_is": "at least" if case.at_least else "at most",
            "reached": self.reached,
            "mode": self.mode,
            "attention": self.attention,
            "rollout": dict(self.rollouts or {}),
            "forward_of_one_image": self._work(),
            "modes": {mode: outcome._asdict() for mode, outcome in self.outcomes.items()},
        }

    def _work(self) -> dict[str, dict[str, float]] | None:
        if self.macs is None:
            return None
        return {
            name: {"gmacs": macs / 1e9, "gflops": 2 * macs / 1e9}
            for name, macs in self.macs._asdict().items()
        }
