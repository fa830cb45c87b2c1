"""Predictions as CSV, JSON Lines or Parquet: what a row holds, and which format is chosen."""

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ramstrans.errors import UsageError
from ramstrans.inference.arguments import name_of
from ramstrans.plain import join_labels, utf8_text

if TYPE_CHECKING:  # so that wrong options are told before torch is imported
    import pyarrow

    from ramstrans.calibration.taxonomy import RankAnswer
    from ramstrans.inference.prediction import Prediction, PriorsEffect

ROWS_IN_GROUP = 8192  # per row group of a Parquet file, kept in memory until it is full
REGION_COLUMNS = ("region_x0", "region_y0", "region_x1", "region_y1", "has_region")
TRUST_COLUMNS = ("unknown", "unknown_score", "set")
"""Empty where the model is not calibrated; names in a set are joined by `;`."""
RANK_COLUMNS = ("answer", "answer_rank", "answer_probability")
"""Empty where the model has no taxonomy; `answer` too where no rank is certain enough."""
PRIORS_COLUMNS = ("priors", "label_before", "probability_before", "changed")
"""Empty without priors; the first one too where no condition holds."""


def column_names(num_labels: int, *, multi_label: bool = False) -> list[str]:
    """Name the columns of a table of predictions; the region is the first scale's.

    Where images may have several labels, `present` holds those that the image has, joined by `;`.

    >>> column_names(2)[:6]
    ['path', 'error', 'label_1', 'label_2', 'probability_1', 'probability_2']
    """
    ranks = range(1, num_labels + 1)
    names = [f"{kind}_{rank}" for kind in ("label", "probability") for rank in ranks]
    further = (*REGION_COLUMNS, *TRUST_COLUMNS, *RANK_COLUMNS, *PRIORS_COLUMNS)
    return ["path", "error", *["present"] * multi_label, *names, *further]


def to_row(prediction: "Prediction", num_labels: int) -> dict[str, Any]:
    """Convert a prediction to one row of a table; None where there is no value.

    >>> from ramstrans.inference.prediction import Prediction
    >>> to_row(Prediction(Path("a.jpg"), ("wren",), (0.75,), ()), 2)["probability_1"]
    0.75
    """
    row: dict[str, Any] = dict.fromkeys(column_names(num_labels, multi_label=prediction.present is not None))
    values = to_json(prediction)
    if prediction.present is not None:
        row["present"] = join_labels(values["present"])
    row["path"], row["error"] = values["path"], values["error"]
    best = list(zip(values["labels"], values["probabilities"], strict=True))[:num_labels]
    for rank, (label, probability) in enumerate(best, start=1):
        row[f"label_{rank}"], row[f"probability_{rank}"] = label, probability
    if values["scales"] and (box := values["scales"][0]["box"]) is not None:
        row.update(zip(REGION_COLUMNS, (*box, values["scales"][0]["has_region"]), strict=True))
    row["unknown"], row["unknown_score"] = values["unknown"], values["unknown_score"]
    row["set"] = values["set"] and join_labels(values["set"])
    for columns, key in ((RANK_COLUMNS, "answer"), (PRIORS_COLUMNS, "priors")):
        if values[key] is not None:
            row.update(zip(columns, values[key].values(), strict=True))
    return row


def to_json(prediction: "Prediction") -> dict[str, Any]:
    """Convert a prediction with all its scales to plain values for JSON.

    Where images may have several labels, `present` is the list of those that the image has.

    >>> from ramstrans.inference.prediction import Prediction
    >>> to_json(Prediction(Path("a.jpg"), error="empty file"))["error"]
    'empty file'
    """

    def classes(labels: tuple[str, ...], probabilities: tuple[float, ...]) -> dict[str, Any]:
        return {
            "labels": [utf8_text(label) for label in labels],
            "probabilities": [_number(probability, 6) for probability in probabilities],
        }

    return {
        "path": prediction.path and utf8_text(name_of(prediction.path)),
        "error": prediction.error and utf8_text(prediction.error),
        **(
            {}
            if prediction.present is None
            else {"present": [utf8_text(label) for label in prediction.present]}
        ),
        **classes(prediction.labels, prediction.probabilities),
        "unknown": prediction.unknown,
        "unknown_score": None if prediction.unknown_score is None else _number(prediction.unknown_score, 6),
        "set": None
        if prediction.prediction_set is None
        else [utf8_text(label) for label in prediction.prediction_set],
        "answer": None if prediction.answer is None else _answer(prediction.answer),
        "priors": None if prediction.priors is None else _priors(prediction.priors),
        "scales": [
            classes(scale.labels, scale.probabilities)
            | {"box": scale.box and [_number(side, 2) for side in scale.box], "has_region": scale.has_region}
            for scale in prediction.scales
        ],
    }


def _answer(answer: "RankAnswer") -> dict[str, Any]:
    return {
        "name": answer.name and utf8_text(answer.name),
        "rank": utf8_text(answer.rank),
        "probability": _number(answer.probability, 6),
    }


def _priors(effect: "PriorsEffect") -> dict[str, Any]:
    return {
        "matched": effect.matched and utf8_text(effect.matched),
        "label_before": utf8_text(effect.label),
        "probability_before": _number(effect.probability, 6),
        "changed": effect.changed,
    }


def _number(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def write_parquet(
    rows: Iterable[Mapping[str, Any]], stream: IO[bytes], num_labels: int, *, multi_label: bool = False
) -> None:
    """Write rows of `to_row` as typed columns, in row groups."""
    import pyarrow
    from pyarrow import parquet

    schema, remaining = parquet_schema(num_labels, multi_label=multi_label), iter(rows)
    with parquet.ParquetWriter(stream, schema) as file:
        while group := list(islice(remaining, ROWS_IN_GROUP)):
            file.write_table(pyarrow.Table.from_pylist(group, schema))


def parquet_schema(num_labels: int, *, multi_label: bool = False) -> "pyarrow.Schema":
    """Names and types of the columns of `column_names`.

    >>> str(parquet_schema(1).field("probability_1").type)
    'double'
    """
    import pyarrow

    types = {"label": pyarrow.string(), "probability": pyarrow.float64(), "region": pyarrow.float64()}
    types |= {"path": pyarrow.string(), "error": pyarrow.string(), "has_region": pyarrow.bool_()}
    types |= {"unknown": pyarrow.bool_(), "unknown_score": pyarrow.float64(), "set": pyarrow.string()}
    text = ("present", "answer", "answer_rank", "priors", "label_before")
    types |= dict.fromkeys(text, pyarrow.string()) | {"changed": pyarrow.bool_()}
    types["answer_probability"] = pyarrow.float64()
    columns = column_names(num_labels, multi_label=multi_label)
    return pyarrow.schema([(name, types.get(name) or types[name.split("_")[0]]) for name in columns])


FORMATS = ("csv", "jsonl", "parquet")
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}


def choose_format(target: Path | None, name: str | None) -> str:
    """Choose the format: by its name, else by the file's suffix, else CSV on standard output.

    Raises:
        UsageError: An unknown name or suffix, or Parquet on standard output.

    >>> choose_format(Path("birds.parquet"), None), choose_format(None, None)
    ('parquet', 'csv')
    """
    if name is not None and name not in FORMATS:
        raise UsageError(f"--format is '{name}'; give {', '.join(FORMATS)}")
    chosen = name or ("csv" if target is None else SUFFIXES.get(target.suffix.lower()))
    if chosen is None:
        raise UsageError(
            f"--output {target} has no known suffix ({', '.join(SUFFIXES)}); rename it or give --format"
        )
    if target is None and chosen == "parquet":
        raise UsageError("--format parquet cannot go to standard output; give --output FILE")
    return chosen
