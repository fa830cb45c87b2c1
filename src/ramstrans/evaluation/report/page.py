"""The report as one HTML page: its values, and pictures within a limit of size."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from ramstrans.console import format_duration
from ramstrans.evaluation.metrics import true_ranks
from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.report import markdown
from ramstrans.evaluation.report.blocks import Table
from ramstrans.evaluation.report.choices import Chosen, choose
from ramstrans.evaluation.report.html import render
from ramstrans.evaluation.report.markdown import zooms
from ramstrans.evaluation.report.photographs import THUMB_MARKUP, Seen, Source, seen_pictures, thumbnails
from ramstrans.evaluation.report.summary import cautions, summary, tiles
from ramstrans.evaluation.report.trusted import trust_blocks

MAX_BYTES = 2_900_000
"""Of the whole page."""
FOR_CLASSES = 0.4
"""Share of the pictures' bytes that those of classes may take; the others have the rest."""
MAX_CLASSES = 3000
"""Rows of the table of classes, at most."""

Report = Mapping[str, Any]


class Answer(NamedTuple):
    """The most probable class by one scale, or by all."""

    who: str
    name: str
    percent: float
    is_right: bool


class Image(NamedTuple):
    """One image of the page, in words.

    Attributes:
        file: Name and folder of its file.
        true: Its class.
        answers: Of all scales together, and of each if there are several.
        true_percent: Probability of the true class by all together.
        rank: Of the true class, from 1.
        size: `(width, height)` in pixels.
        region: Region of scale 1, `(x0, y0, x1, y1)` in pixels; None if nothing stood out.
        box: The true box, the same; None if it has none.
    """

    file: str
    true: str
    answers: list[Answer]
    true_percent: float
    rank: int
    size: tuple[int, ...]
    region: tuple[float, ...] | None
    box: tuple[float, ...] | None


class Pictures(NamedTuple):
    """The photographs of a page: of images by index, and of classes by label."""

    seen: Mapping[int, Seen]
    classes: Mapping[int, list[tuple[int, str]]]


def report_page(
    report: Report,
    predictions: Predictions,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    figures: Mapping[str, Path],
    source: Source,
) -> str:
    """Render the page of a report.

    Args:
        report: From `build_report`.
        predictions: For N images.
        probabilities: (N, C) of all scales together, as in predictions.csv.
        class_names: The C names, in label order.
        figures: PNG files by name: `confusion`, `curves`, `early_exit`, `reliability`, as far as there are.
        source: Where photographs come from.
    """
    rows = class_table(report)
    chosen = choose(predictions, probabilities, [label for label, _ in rows], has_regions=bool(zooms(report)))
    values = {
        **texts_of(report),
        "report": report,
        "class_names": class_names,
        "rows": rows,
        "chosen": chosen,
        "num_wrong": int((probabilities.argmax(axis=1) != predictions.labels).sum()),
        "images": image_texts(chosen, predictions, probabilities, class_names),
        "figures": figures,
    }
    bare = render("report.html", **values, pictures=Pictures({}, {}))
    pictures = take_pictures(source, chosen, MAX_BYTES - len(bare.encode()))
    return render("report.html", **values, pictures=pictures)


def texts_of(report: Report) -> dict[str, Any]:
    """What the page says that follows from the report alone."""
    facts = made(report)
    return {
        "title": f"Report: {markdown.images_of(report)}",
        "subtitle": ", ".join(value for name, value in facts if name in ("Data", "Method", "Backbone")),
        "tiles": tiles(report),
        "summary": summary(report),
        "cautions": cautions(report),
        "accuracies": Table(*markdown.headline(report)),
        "early_exit": markdown.early_exit_line(report),
        "trust": trust_blocks(report),
        "region_table": region_table(report),
        "made": facts,
        "options": yaml.safe_dump(report.get("config", {}), sort_keys=False, allow_unicode=True),
    }


def take_pictures(source: Source, chosen: Chosen, max_bytes: int) -> Pictures:
    """Pictures of the chosen images, within so many bytes: those of classes, and with the rest the others."""
    classes = thumbnails(source, chosen.of_classes, int(FOR_CLASSES * max(max_bytes, 0)))
    left = max_bytes - sum(len(uri) + THUMB_MARKUP for pictures in classes.values() for _, uri in pictures)
    return Pictures(seen_pictures(source, chosen.looked_at, chosen.photographed, left), classes)


def class_table(report: Report) -> list[tuple[int, Mapping[str, Any]]]:
    """Label and entry of each class with images, the least accurate first; of very many only those."""
    present = [(label, entry) for label, entry in enumerate(report["classes"]) if entry["num_images"]]
    return sorted(present, key=lambda row: row[1]["accuracy"])[:MAX_CLASSES]


def image_texts(
    chosen: Chosen, predictions: Predictions, probabilities: np.ndarray, class_names: Sequence[str]
) -> dict[int, Image]:
    """What the page says about the chosen images, by index."""
    indices = sorted({*chosen.looked_at, *chosen.photographed, *chain(*chosen.of_classes.values())})
    ranks = true_ranks(probabilities[indices], predictions.labels[indices]).tolist()
    found = {}
    for index, rank in zip(indices, ranks, strict=True):
        record, label = predictions.records[index], int(predictions.labels[index])
        by_scale = [(f"scale {n}", of) for n, of in enumerate(predictions.probabilities[:, index], start=1)]
        has_region = bool(chosen.regions) and bool(predictions.has_region[0, index])
        found[index] = Image(
            file="/".join(record.path.parts[-2:]),
            true=class_names[label],
            answers=[
                Answer(who, class_names[int(of.argmax())], 100 * float(of.max()), int(of.argmax()) == label)
                for who, of in (("all", probabilities[index]), *(by_scale if len(by_scale) > 1 else ()))
            ],
            true_percent=100 * float(probabilities[index, label]),
            rank=rank + 1,
            size=tuple(predictions.image_sizes[index].tolist()),
            region=rounded(predictions.boxes[0, index].tolist()) if has_region else None,
            box=None if record.box is None else rounded(record.box),
        )
    return found


def region_table(report: Report) -> Table | None:
    """The regions' measures, as in the Markdown page; None if no scale uses a region."""
    scales = zooms(report)
    if not scales:
        return None
    rows = [
        [f"{name}, {meaning}", *(markdown.format_value(regions[key], unit) for _, regions in scales)]
        for key, name, unit, meaning in markdown.REGION_ROWS
        if any(regions[key] is not None for _, regions in scales)
    ]
    return Table(["region", *(f"from scale {scale} for {scale + 1}" for scale, _ in scales)], rows)


def made(report: Report) -> list[tuple[str, str]]:
    """How the model and the report came about: names and values of what is known."""
    config = report.get("config", {})
    data, model, training = (config.get(part, {}) for part in ("data", "model", "training"))
    steps = f"{report['epoch']} (chosen on: {report['chosen_on']})" if "epoch" in report else None
    seconds = report.get("seconds")
    found = {
        "Data": " ".join(str(data[key]) for key in ("name", "root") if data.get(key)),
        "Split": report["split"],
        "Method": report.get("method"),
        "Backbone": model.get("backbone"),
        "Image size": model.get("image_size"),
        "Seed": config.get("seed"),
        "Epoch": steps,
        "Steps": report.get("steps"),
        "Time of training": None if seconds is None else format_duration(seconds),
        "Precision": report.get("precision", training.get("precision")),
        "Versions": ", ".join(f"{name} {version}" for name, version in report.get("versions", {}).items()),
        "Written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]


def rounded(box: Sequence[float]) -> tuple[float, ...]:
    """A box in whole pixels, which is what a small picture shows."""
    return tuple(round(side) for side in box)
