"""Compare a run with its exports, on the same photographs: answers, accuracy, size, and measured time."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from ramstrans.bench.report import format_ratio
from ramstrans.bench.timing import Candidate, Quartiles, interleave, quartiles
from ramstrans.console import Progress, no_progress
from ramstrans.distributed import autocast
from ramstrans.errors import UsageError
from ramstrans.evaluation.images import with_labels_of
from ramstrans.export.folder import CHECK_FILE
from ramstrans.export.graph import Graph
from ramstrans.export.judge import Answered, answer, pixel_batches
from ramstrans.export.photographs import own_images, spread
from ramstrans.export.runner import Runner, format_of, open_graph
from ramstrans.export.smaller import megabytes
from ramstrans.export.standalone import LABELS, PREPROCESSING, pixels_size, preprocessing_of
from ramstrans.hub import local_folder
from ramstrans.saved.metadata import WEIGHTS_FILE, ModelMetadata, load_metadata
from ramstrans.saved.model import load_model


class Contender(NamedTuple):
    """A run folder, or one of its exports.

    Attributes:
        name: As given.
        engine: What computes it.
        precision: What its backbone computes in.
        megabytes: Size of its weights, or of its graph.
        run: From pixels to answers.
    """

    name: str
    engine: str
    precision: str
    megabytes: float
    run: Runner


class ExportResult(NamedTuple):
    """A contender on the photographs.

    Attributes:
        name: As given.
        engine: What computes it.
        precision: What its backbone computes in.
        megabytes: Size of its weights, or of its graph.
        num_images: Photographs.
        top1: Accuracy, percent.
        top1_equal: Share of them with the first contender's best class.
        boxes_equal: Share of boxes that are the first contender's by `SAME_IOU`.
        seconds: Seconds per image, in a batch.
        ratio: Those seconds divided by the first contender's, round by round.
    """

    name: str
    engine: str
    precision: str
    megabytes: float
    num_images: int
    top1: float
    top1_equal: float
    boxes_equal: float
    seconds: Quartiles
    ratio: Quartiles

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict() | {"seconds": self.seconds._asdict(), "ratio": self.ratio._asdict()}


def measure_exports(
    names: Sequence[str],
    device: torch.device,
    *,
    batch_size: int = 32,
    precision: str = "fp32",
    num_images: int = 256,
    num_rounds: int = 5,
    progress: Progress = no_progress,
) -> list[ExportResult]:
    """Let run folders and exports answer the test images of the first, and time them in turn.

    Args:
        names: Folders; the first is a run folder, the others are compared with it.
        device: Where PyTorch computes.
        batch_size: Photographs per call.
        precision: PyTorch's autocast precision.
        num_images: Most test images.
        num_rounds: How often to time each.
        progress: Called after each batch and round.

    Raises:
        RamsTransError: They do not go together, or the photographs cannot be read.
    """
    first = local_folder(names[0])
    if format_of(first) is not None:
        raise UsageError(f"{first} is an export; name its run folder first: its test images are compared on")
    metadata = load_metadata(first)
    if metadata.model.multi_label:
        raise UsageError(
            f"exports are compared by top-1, and images of {first} may have several labels (multi_label); "
            "verification.json of each export has how far its answers agree"
        )
    contenders = [contender_of(name, metadata, device, precision) for name in names]
    images = own_images(metadata, "put them back: exports are compared on its test images")
    records = spread(with_labels_of(metadata, images, "test"), num_images)
    runners = {one.name: one.run for one in contenders}
    answers, labels = answer(runners, records, metadata.preprocessing, progress=progress)
    pixels, _ = next(
        pixel_batches([one.path for one in records], metadata.preprocessing, batch_size=batch_size)
    )
    timed = {name: Candidate(partial(run, pixels), len(pixels)) for name, run in runners.items()}
    seconds = interleave(timed, num_rounds, device, progress=progress)
    before = answers[names[0]], seconds[names[0]]
    return [
        result_of(one, answers[one.name], seconds[one.name], before, labels, len(pixels))
        for one in contenders
    ]


def result_of(
    contender: Contender,
    answered: Answered,
    seconds: Sequence[float],
    before: tuple[Answered, Sequence[float]],
    labels: NDArray[np.int64],
    batch_size: int,
) -> ExportResult:
    """What a contender's answers and seconds for a batch are worth, beside the first contender's."""
    reference, its_seconds = before
    return ExportResult(
        *contender[:4],
        num_images=len(labels),
        top1=100 * float((answered.classes == labels).mean()),
        top1_equal=float((answered.classes == reference.classes).mean()),
        boxes_equal=answered.boxes_like(reference),
        seconds=quartiles([taken / batch_size for taken in seconds]),
        ratio=quartiles(np.divide(seconds, its_seconds).tolist()),
    )


def contender_of(name: str, metadata: ModelMetadata, device: torch.device, precision: str) -> Contender:
    """Load a run folder or an export, which takes the same pixels and has the same classes as the first run.

    Raises:
        RamsTransError: It does not, or cannot be loaded.
    """
    folder = local_folder(name)
    engine = format_of(folder)
    if engine is None:
        model, own = load_model(folder, device)
        run = in_torch(Graph(model, own), device, precision)
        size = (folder / WEIGHTS_FILE).stat().st_size / 1e6
        found = Contender(name, "PyTorch", precision, size, run)
        names, preprocessing = own.class_names, own.preprocessing
    else:
        check = json.loads((folder / CHECK_FILE).read_text(encoding="utf-8"))
        run = open_graph(folder, torch.get_num_threads())
        found = Contender(name, engine, check["precision"], megabytes(folder), run)
        names = tuple(json.loads((folder / LABELS).read_text(encoding="utf-8")))
        preprocessing = preprocessing_of(json.loads((folder / PREPROCESSING).read_text(encoding="utf-8")))
    if names != metadata.class_names:
        raise UsageError(f"{name} has other classes than the first model; compare exports of one run")
    if pixels_size(preprocessing) != pixels_size(metadata.preprocessing):
        raise UsageError(f"{name} takes pixels of another size than the first model; compare each by itself")
    return found


def in_torch(graph: Graph, device: torch.device, precision: str) -> Runner:
    """A graph that PyTorch computes, called as an exported one."""
    graph = graph.to(device)

    def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode(), autocast(device, precision):
            outputs = graph(torch.from_numpy(pixels).to(device))
        return {
            name: output.float().cpu().numpy()
            for name, output in zip(graph.output_names, outputs, strict=True)
        }

    return run


def exports_table(results: Sequence[ExportResult]) -> Table:
    """Make a row per contender."""
    title = f"{results[0].num_images} test images; ratio: median over rounds"
    table = Table("model", title=title, title_justify="left", box=None)
    for heading in ("by", "MB", "top-1, %", "same class", "same boxes", "time", "ratio", "quartiles"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in results:
        table.add_row(
            one.name,
            f"{one.engine} {one.precision}",
            f"{one.megabytes:.1f}",
            f"{one.top1:.1f}",
            f"{100 * one.top1_equal:.1f} %",
            f"{100 * one.boxes_equal:.1f} %",
            f"{1e3 * one.seconds.median:,.1f} ms",
            format_ratio(one.ratio.median),
            f"{format_ratio(one.ratio.low)} - {format_ratio(one.ratio.high)}",
        )
    return table
