"""Priors: how often classes occur where and when a photograph was taken, multiplied into its probabilities.

    q_c = w_c p_c / sum over all classes k of w_k p_k

With calibrated `p` of a model that saw all classes equally often, and `w` in the proportions of the classes,
this is Bayes' rule (https://doi.org/10.1162/089976602753284446; for places and dates
https://arxiv.org/abs/1906.05272).
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramstrans.calibration.rank_table import read_lines
from ramstrans.errors import DataError, first_few
from ramstrans.plain import counted

logger = logging.getLogger(__name__)

CLASS, WEIGHT, REST = "class", "weight", "*"
"""Columns of a table, and what stands for every class that no line names."""

WRAPPING = ("month", "longitude")
"""Conditions whose ranges may go round: months 11..2 are winter, longitudes 170..-170 cross the date line."""

EVERY = "every photograph"
"""What priors without conditions match."""

Value = str | float | None
"""Of a condition: text, or a number; None where a photograph does not have it."""

Float = NDArray[np.floating]


class Condition(NamedTuple):
    """What a column must be: a value, or in a range of numbers.

    Attributes:
        column: Its name.
        text: As in the table.
        low: First number of a range; None: the value must be the text.
        high: Last number of a range.
    """

    column: str
    text: str
    low: float | None = None
    high: float | None = None

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether the column's value is the one, or in the range.

        >>> Condition("month", "11..2", 11, 2).holds({"month": "12"})
        True
        >>> Condition("place", "lake").holds({"place": "Lake"}), Condition("place", "lake").holds({})
        (True, False)
        """
        value = values.get(self.column)
        if value is None:
            return False
        number = _number(value)
        if self.low is None or self.high is None:
            own = _number(self.text)
            if number is not None and own is not None:
                return number == own
            return str(value).strip().casefold() == self.text.casefold()
        if number is None:
            return False
        if self.low > self.high:
            return number >= self.low or number <= self.high
        return self.low <= number <= self.high

    def __str__(self) -> str:
        return f"{self.column} {self.text}"


class Case(NamedTuple):
    """Lines with the same conditions.

    Attributes:
        tests: All must hold.
        labels: Of the classes that are named.
        weights: Of these.
        rest: Weight of every class that no line that holds names.
    """

    tests: tuple[Condition, ...]
    labels: tuple[int, ...]
    weights: tuple[float, ...]
    rest: float


class Matched(NamedTuple):
    """The priors for one photograph.

    Attributes:
        weights: (C,) of the classes; None: it is answered without priors.
        what: The conditions that hold; None: as `weights`.
    """

    weights: NDArray[np.float64] | None
    what: str | None


@dataclass(frozen=True)
class Priors:
    """Weights of C classes under conditions.

    Attributes:
        conditions: Names of the columns that are conditions; empty: one list of classes for all photographs.
        cases: The lines, by their conditions.
        num_classes: C.
        source: The file.
    """

    conditions: tuple[str, ...]
    cases: tuple[Case, ...]
    num_classes: int
    source: str

    def matched(self, values: Mapping[str, Value]) -> Matched:
        """The priors for a photograph by its values of the conditions.

        Weights of a class in several lines that hold are added, as counts are. Where none holds, or those
        that do exclude all classes, there are no priors.
        """
        found = [case for case in self.cases if all(test.holds(values) for test in case.tests)]
        weights, is_named = np.zeros(self.num_classes), np.zeros(self.num_classes, bool)
        for case in found:
            labels = list(case.labels)
            weights[labels] += case.weights
            is_named[labels] = True
        weights[~is_named] += sum(case.rest for case in found)
        if not weights.any():
            return Matched(None, None)
        texts = [", ".join(map(str, case.tests)) or EVERY for case in found]
        return Matched(weights, "; ".join(dict.fromkeys(texts)))


def weighted(probabilities: Float, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (N, C) times weights (N, C), each row divided by its sum; one of zeros stays as it was.

    >>> weighted(np.array([[0.5, 0.25, 0.25]]), np.array([[0.0, 1.0, 3.0]])).tolist()
    [[0.0, 0.25, 0.75]]
    """
    product = probabilities.astype(np.float64) * weights
    product = np.where(product.any(axis=1, keepdims=True), product, probabilities)
    return np.asarray(product / product.sum(axis=1, keepdims=True))


def weights_of(matched: Sequence[Matched], num_classes: int) -> NDArray[np.float64]:
    """(N, C) weights of the priors of N photographs; ones for those that are answered without."""
    weights = np.ones((len(matched), num_classes))
    for index, one in enumerate(matched):
        if one.weights is not None:
            weights[index] = one.weights
    return weights


def answered_without(count: int, total: int) -> str:
    """What to say of photographs that priors do not tell anything about.

    >>> answered_without(3, 7)
    '3 of 7 images were answered without priors: no condition holds for them, or no class is left'
    """
    were, them = ("was", "it") if count == 1 else ("were", "them")
    of = f"{count} of {counted(total, 'image')}"
    return f"{of} {were} answered without priors: no condition holds for {them}, or no class is left"


def read_priors(path: Path, class_names: Sequence[str]) -> Priors:
    """Read priors: a list of the classes that occur, or a table with weights and conditions.

    A list has a class per line; the first line may be `class`. A table (CSV) has a header with the columns
    `class` and `weight`; all others are conditions. A cell of a condition is a value, a range of numbers
    such as `4..8`, or empty, which holds always. `*` as class is every class that no line that holds names;
    without it, these have weight 0. Without the column `weight` all weights are 1.

    Args:
        path: The file.
        class_names: Of the model, in label order.

    Raises:
        DataError: A line or the header is wrong, or all classes of the model are excluded.
    """
    header, lines = read_lines(path)
    if len(header) == 1:
        if header[0] != CLASS:
            lines.insert(0, (1, header))
        header = [CLASS]
    label_of = {name: label for label, name in enumerate(class_names)}
    if CLASS not in header and ", ".join(header) in label_of:
        raise _error(path, 1, f"'{', '.join(header)}' is a class; put names that hold a comma in quotes")
    _check_header(path, header)
    conditions = tuple(name for name in header if name not in (CLASS, WEIGHT))
    cases: dict[tuple[Condition, ...], dict[str, float]] = {}
    others: dict[str, None] = {}
    for number, cells in lines:
        if len(cells) != len(header):
            what = f"{len(cells)} cells, and the header has {len(header)}"
            raise _error(path, number, f"{what}; put names that hold a comma in quotes")
        values = dict(zip(header, cells, strict=True))
        name, weight = values[CLASS], _weight(path, number, values.get(WEIGHT, "1"))
        tests = tuple(_test(path, number, column, values[column]) for column in conditions if values[column])
        if not name:
            raise _error(path, number, "the class is empty; name it, or give * for all others")
        if name != REST and name not in label_of:
            others[name] = None
            continue
        if name in cases.setdefault(tests, {}):
            raise _error(path, number, f"'{name}' is there twice under the same conditions; remove one line")
        cases[tests][name] = weight
    by_case = tuple(_case(tests, weights, label_of) for tests, weights in cases.items())
    found = Priors(conditions, by_case, len(class_names), str(path))
    _check_some(found, list(others))
    return found


def _check_header(path: Path, header: Sequence[str]) -> None:
    allowed = "give class, weight, and columns of conditions, e.g. month"
    if CLASS not in header:
        raise DataError(f"{path} has no column '{CLASS}', but {', '.join(header)}; {allowed}")
    if "" in header or len(set(header)) < len(header):
        what = "a column without a name" if "" in header else "two columns of one name"
        raise DataError(f"{path} has {what} ({', '.join(header)}); {allowed}")
    if len(header) > 1 and WEIGHT not in header:
        raise DataError(f"{path} has no column '{WEIGHT}', but {', '.join(header)}; {allowed}")


def _check_some(priors: Priors, others: Sequence[str]) -> None:
    """Raise if no class of the model is left; tell of classes that it lacks."""
    path = priors.source
    if not any(case.rest or any(case.weights) for case in priors.cases):
        why = f"'{others[0]}' and the like are none of them" if others else "no weight is above 0"
        raise DataError(f"{path} excludes all {priors.num_classes} classes of the model: {why}; name some")
    if others:
        logger.warning(
            "%s: left out, as the model does not have %s: %s",
            *(path, "this class" if len(others) == 1 else "these classes"),
            first_few([f"'{name}'" for name in others]),
        )


def _case(tests: tuple[Condition, ...], weights: Mapping[str, float], label_of: Mapping[str, int]) -> Case:
    labels = {label_of[name]: weight for name, weight in weights.items() if name != REST}
    return Case(tests, tuple(labels), tuple(labels.values()), weights.get(REST, 0.0))


def _weight(path: Path, number: int, text: str) -> float:
    weight = _number(text)
    if weight is None or weight < 0:
        raise _error(path, number, f"the weight is '{text}'; give a number, 0 or more")
    return weight


def _test(path: Path, number: int, column: str, text: str) -> Condition:
    """The condition in a cell."""
    low, dots, high = text.partition("..")
    if not dots:
        return Condition(column, text)
    ends = _number(low), _number(high)
    if ends[0] is None or ends[1] is None:
        raise _error(path, number, f"{column} is '{text}'; a range has two numbers, e.g. 4..8")
    if ends[0] > ends[1] and column not in WRAPPING:
        raise _error(path, number, f"{column} is '{text}', which is empty; give the lower number first")
    return Condition(column, text, *ends)


def _number(value: Value) -> float | None:
    """A finite number, or None.

    >>> _number("05"), _number("lake"), _number("nan")
    (5.0, None, None)
    """
    try:
        number = float(value if value is not None else "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _error(path: Path, number: int, what: str) -> DataError:
    return DataError(f"{path}, line {number}: {what}")
