"""Write predictions as CSV, JSON Lines or Parquet, as they come; a file is whole or not there."""

import csv
import json
import math
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ramstrans.errors import UsageError
from ramstrans.files import check_output, new_file
from ramstrans.plain import utf8_text

if TYPE_CHECKING:  # so that wrong options are told before torch is imported
    from ramstrans.inference.postprocess import Prediction

ROWS_IN_GROUP = 8192  # per row group of a Parquet file, kept in memory until it is full
REGION_COLUMNS = ("region_x0", "region_y0", "region_x1", "region_y1", "has_region")


def column_names(num_labels: int) -> list[str]:
    """Name the columns of a table of predictions; the region is the first scale's.

    >>> column_names(2)[:6]
    ['path', 'error', 'label_1', 'label_2', 'probability_1', 'probability_2']
    """
    ranks = range(1, num_labels + 1)
    names = [f"{kind}_{rank}" for kind in ("label", "probability") for rank in ranks]
    return ["path", "error", *names, *REGION_COLUMNS]


def to_row(prediction: "Prediction", num_labels: int) -> dict[str, Any]:
    """Convert a prediction to one row of a table; None where there is no value.

    >>> from ramstrans.inference.postprocess import Prediction
    >>> to_row(Prediction(Path("a.jpg"), ("wren",), (0.75,), ()), 2)["probability_1"]
    0.75
    """
    row: dict[str, Any] = dict.fromkeys(column_names(num_labels))
    values = to_json(prediction)
    row["path"], row["error"] = values["path"], values["error"]
    best = list(zip(values["labels"], values["probabilities"], strict=True))[:num_labels]
    for rank, (label, probability) in enumerate(best, start=1):
        row[f"label_{rank}"], row[f"probability_{rank}"] = label, probability
    if values["scales"] and (box := values["scales"][0]["box"]) is not None:
        row.update(zip(REGION_COLUMNS, (*box, values["scales"][0]["has_region"]), strict=True))
    return row


def to_json(prediction: "Prediction") -> dict[str, Any]:
    """Convert a prediction with all its scales to plain values for JSON.

    >>> from ramstrans.inference.postprocess import Prediction
    >>> to_json(Prediction(Path("a.jpg"), error="empty file"))
    {'path': 'a.jpg', 'error': 'empty file', 'labels': [], 'probabilities': [], 'scales': []}
    """

    def classes(labels: tuple[str, ...], probabilities: tuple[float, ...]) -> dict[str, Any]:
        return {
            "labels": [utf8_text(label) for label in labels],
            "probabilities": [_number(probability, 6) for probability in probabilities],
        }

    return {
        "path": prediction.path and utf8_text(str(prediction.path)),
        "error": prediction.error and utf8_text(prediction.error),
        **classes(prediction.labels, prediction.probabilities),
        "scales": [
            classes(scale.labels, scale.probabilities)
            | {"box": scale.box and [_number(side, 2) for side in scale.box], "has_region": scale.has_region}
            for scale in prediction.scales
        ],
    }


def _number(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def write_csv(predictions: "Iterable[Prediction]", stream: IO[Any], num_labels: int) -> None:
    """Write a header, then a line per prediction; fields without a value are empty."""
    table = csv.DictWriter(stream, column_names(num_labels), lineterminator="\n")
    table.writeheader()
    table.writerows(to_row(prediction, num_labels) for prediction in predictions)


def write_json_lines(predictions: "Iterable[Prediction]", stream: IO[Any], _num_labels: int) -> None:
    """Write one JSON object per line, with all scales."""
    for prediction in predictions:
        stream.write(json.dumps(to_json(prediction), ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(predictions: "Iterable[Prediction]", stream: IO[Any], num_labels: int) -> None:
    """Write the columns of the CSV, typed, in row groups."""
    import pyarrow
    from pyarrow import parquet

    types = {"label": pyarrow.string(), "probability": pyarrow.float64(), "region": pyarrow.float64()}
    types |= {"path": pyarrow.string(), "error": pyarrow.string(), "has": pyarrow.bool_()}
    schema = pyarrow.schema([(name, types[name.split("_")[0]]) for name in column_names(num_labels)])
    rows = (to_row(prediction, num_labels) for prediction in predictions)
    with parquet.ParquetWriter(stream, schema) as file:
        while group := list(islice(rows, ROWS_IN_GROUP)):
            file.write_table(pyarrow.Table.from_pylist(group, schema))


WRITERS = {"csv": write_csv, "jsonl": write_json_lines, "parquet": write_parquet}
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}


def choose_format(target: Path | None, name: str | None) -> str:
    """Choose the format: by its name, else by the file's suffix, else CSV on standard output.

    Raises:
        UsageError: An unknown name or suffix, or Parquet on standard output.

    >>> choose_format(Path("birds.parquet"), None), choose_format(None, None)
    ('parquet', 'csv')
    """
    if name is not None and name not in WRITERS:
        raise UsageError(f"--format is '{name}'; give {', '.join(WRITERS)}")
    chosen = name or ("csv" if target is None else SUFFIXES.get(target.suffix.lower()))
    if chosen is None:
        raise UsageError(
            f"--output {target} has no known suffix ({', '.join(SUFFIXES)}); rename it or give --format"
        )
    if target is None and chosen == "parquet":
        raise UsageError("--format parquet cannot go to standard output; give --output FILE")
    return chosen


def write_predictions(
    predictions: "Iterable[Prediction]",
    target: Path | None,
    format_name: str | None,
    num_labels: int,
    *,
    overwrite: bool = False,
) -> None:
    """Write predictions, as they come, to a file or to standard output.

    The file `target` appears only once all of it is written; None is standard output. Tables have
    `num_labels` columns of labels, and as many of probabilities.

    Raises:
        UsageError: See `choose_format`.
        OutputError: The file cannot be written, or exists and may not be overwritten.
    """
    chosen = choose_format(target, format_name)
    check_output(target, overwrite=overwrite)
    file = nullcontext(sys.stdout) if target is None else new_file(target, binary=chosen == "parquet")
    with file as stream:
        WRITERS[chosen](predictions, stream, num_labels)
