"""`predictions.csv`: the prediction for every image of a split, beside the report."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ramstrans.calibration.answers import Answers
from ramstrans.calibration.taxonomy import Taxonomy
from ramstrans.evaluation.early_exit import Exits
from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.ranking import top_classes
from ramstrans.files import write_file
from ramstrans.plain import csv_text, join_labels, utf8_text

TRUST_COLUMNS = ("unknown", "unknown_score", "set")
RANK_COLUMNS = ("answer", "answer_rank", "answer_probability")
PRIORS_COLUMNS = ("label_with_priors", "probability_with_priors")
TOP_K = 5
"""Most probable classes per image; all, if there are fewer."""


def write_predictions(
    predictions: Predictions,
    class_names: Sequence[str],
    path: Path,
    exits: Exits | None = None,
    answers: Answers | None = None,
    taxonomy: Taxonomy | None = None,
) -> None:
    """Write a line per image, in the order of the data set; `class_names` are in label order.

    The columns are `path`; `true` and `predicted`, by the mean of all scales; `correct`;
    `probability_of_true`; `label_1` ... and `probability_1` ..., the most probable classes; and for each
    scale `scale_1_label`, `scale_1_probability` and, unless it is the last, its region `scale_1_x0` ...
    `scale_1_y1`, half-open in pixels of the upright image, and `scale_1_has_region`, False where nothing
    stood out. With `exits` of an early exit also `early_exit_label` and `early_exit_scales`, the class that
    it predicts and the number of scales that it takes. With calibrated `answers`, the probabilities are
    those of all scales together, without priors, and the last columns are `unknown`,
    `unknown_score` and `set`, the names of its classes; with a `taxonomy` also `answer`, `answer_rank` and
    `answer_probability`, by the finest rank that is certain; and, if priors changed the probabilities,
    `label_with_priors` and `probability_with_priors`, the most probable class.
    """
    names = [utf8_text(name) for name in class_names]
    columns = _columns(len(predictions.probabilities), min(TOP_K, len(names)))
    fused = predictions.fused if answers is None else answers.without_priors
    rows: Iterable[list[Any]] = _rows(predictions, names, fused)
    if exits is not None:
        columns += ["early_exit_label", "early_exit_scales"]
        rows = ([*row, names[label], int(used)] for row, label, used in zip(rows, *exits, strict=True))
    if answers is not None:
        columns += TRUST_COLUMNS
        rows = [[*row, *_trust(answers, index, names)] for index, row in enumerate(rows)]
        if taxonomy is not None:
            columns += RANK_COLUMNS
            rows = [[*row, *_answer(answers, index, names, taxonomy)] for index, row in enumerate(rows)]
        if answers.probabilities is not answers.without_priors:
            columns += PRIORS_COLUMNS
            best = answers.probabilities.argmax(axis=1).tolist()
            rows = [
                [*row, names[label], _rounded(answers.probabilities[index, label])]
                for index, (row, label) in enumerate(zip(rows, best, strict=True))
            ]
    write_file(path, csv_text([columns, *rows]).encode())


def _trust(answers: Answers, index: int, names: Sequence[str]) -> list[Any]:
    """The last columns of a row; None where nothing was fitted."""
    unknown = None if answers.unknown is None else bool(answers.unknown[index])
    score = None if answers.unknown_scores is None else round(float(answers.unknown_scores[index]), 6)
    inside = None
    if answers.sets is not None:
        inside = join_labels([names[label] for label in answers.set_of(index)])
    return [unknown, score, inside]


def _answer(answers: Answers, index: int, names: Sequence[str], taxonomy: Taxonomy) -> list[Any]:
    """Name, rank and probability of the answer at a rank."""
    assert answers.rolled_up is not None, "answers of a model with a taxonomy"
    found = taxonomy.answer(answers.rolled_up, index, names)
    return [found.name, found.rank, _rounded(found.probability)]


def _columns(num_scales: int, num_labels: int) -> list[str]:
    ranks = range(1, num_labels + 1)
    columns = ["path", "true", "predicted", "correct", "probability_of_true"]
    columns += [f"{kind}_{rank}" for kind in ("label", "probability") for rank in ranks]
    for scale in range(1, num_scales + 1):
        sides = ("x0", "y0", "x1", "y1", "has_region") if scale < num_scales else ()
        columns += [f"scale_{scale}_{what}" for what in ("label", "probability", *sides)]
    return columns


def _rows(predictions: Predictions, names: Sequence[str], fused: np.ndarray) -> Iterator[list[Any]]:
    num_regions = len(predictions.probabilities) - 1
    for index, record in enumerate(predictions.records):
        label, best = int(predictions.labels[index]), top_classes(fused[index], TOP_K)
        row = [utf8_text(str(record.path)), names[label], names[best[0]], bool(best[0] == label)]
        row += [_rounded(fused[index, label]), *(names[other] for other in best)]
        row += [_rounded(fused[index, other]) for other in best]
        for scale, probabilities in enumerate(predictions.probabilities[:, index]):
            answer = int(probabilities.argmax())
            row += [names[answer], _rounded(probabilities[answer])]
            if scale < num_regions:
                row += [round(side, 2) for side in predictions.boxes[scale, index].tolist()]
                row.append(bool(predictions.has_region[scale, index]))
        yield row


def _rounded(probability: float) -> float:
    return round(float(probability), 6)
