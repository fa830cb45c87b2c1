"""`ramstrans predict`."""

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.calibration.wanted import check_rank_confidence
from ramstrans.commands.images import fill_folder, paths_of, takes_images
from ramstrans.commands.options import Parser
from ramstrans.console import no_progress, progress_of_many
from ramstrans.errors import UsageError
from ramstrans.files import check_output
from ramstrans.hub import is_address
from ramstrans.inference.batches import BatchPredictor
from ramstrans.options import Precision
from ramstrans.plain import counted
from ramstrans.saved.metadata import load_metadata

if TYPE_CHECKING:
    from ramstrans.inference.arguments import Arguments
    from ramstrans.inference.predictor import Predictor
    from ramstrans.inference.rows import RowWriter

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `predict`: the parameters of the function."""
    takes_images(parser, predict)


def run(options: Namespace, _given: list[str]) -> int:
    """Classify images; write CSV, JSON Lines or Parquet."""
    return predict(**vars(options))


def predict(
    run: Path,
    inputs: list[str],
    format: Literal["csv", "jsonl", "parquet"] | None = None,  # noqa: A002 - the option's name
    output: Path | None = None,
    overwrite: bool = False,
    top_k: PositiveInt = 5,
    early_exit: float | Literal["auto"] | None = None,
    batch_size: PositiveInt = 32,
    num_scales: PositiveInt | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers: PositiveInt | None = None,
    partition_rows: PositiveInt = 4096,
    rank_confidence: float | None = None,
    priors: Path | None = None,
) -> int:
    """Predict image files.

    Args:
        run: Run folder, any saved model, or hf://user/name[@revision].
        inputs: Image files, folders, patterns such as 'photos/*.jpg', tables (CSV and others) with a column
            path, or - for paths on standard input.
        format: Default: by the suffix of --output, else csv.
        output: File to write; default: standard output. An interrupted command keeps its rows in
            OUTPUT.partial; the same command goes on there.
        overwrite: Replace that file.
        top_k: Classes per image.
        early_exit: Confidence at which an image skips the remaining scales; auto: the one that
            `evaluate --early_exit auto` chose.
        batch_size: Images per batch.
        num_scales: Use the first so many of the scales that were trained; default: all, of calcrop one.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.
        engine: local: this process. ray: workers of Ray Data, whose --output is a folder of Parquet files;
            INPUTS may also be .parquet and .csv tables with the columns path or bytes, and .tar files
            (WebDataset).
        address: With ray: of a running cluster, e.g. auto; default: Ray is started here.
        workers: With ray: processes with a model; default: one per GPU, else one per machine.
        partition_rows: With ray: most rows per file.
        rank_confidence: Probability that an answer at some rank of the taxonomy is to reach, above 0.5;
            default: that of `calibrate`.
        priors: List of the classes that occur, or table of weights by conditions, which are columns of the
            tables among INPUTS, or month, latitude and longitude by EXIF data; see docs/calibrate.md.

    Raises:
        DataError: Nothing could be read, or one of the inputs does not exist; their rows are written.
    """
    from ramstrans.inference.writers import choose_format

    check_rank_confidence(rank_confidence)
    how: dict[str, Any] = {"device": device, "precision": precision, "early_exit": early_exit}
    how |= {"num_scales": num_scales, "rank_confidence": rank_confidence}
    if engine == "ray":
        batches = BatchPredictor(
            run if is_address(run) else run.absolute(),
            top_k,
            batch_size=batch_size,
            priors=priors and priors.absolute(),
            **how,
        )
        folder = check_partition_output(output, format)
        predict_on_cluster(
            batches, inputs, folder, overwrite, partition_rows, address=address, workers=workers
        )
        return 0
    ignored = {"address": address, "workers": workers}
    for name in [name for name, value in ignored.items() if value is not None]:
        logger.warning("--%s is ignored without --engine ray", name)
    chosen = choose_format(output, format)
    check_output(output, overwrite=overwrite)
    load_metadata(run)
    from ramstrans.inference.arguments import resolve_arguments
    from ramstrans.inference.predictor import Predictor
    from ramstrans.inference.tables import with_tables

    named, cells = with_tables(resolve_arguments(inputs), with_cells=priors is not None)
    predictor = Predictor.load(run, priors=priors, cells=cells, **how)
    predict_here(predictor, named, output, chosen, top_k, batch_size, overwrite=overwrite)
    return 0


def predict_here(
    predictor: "Predictor",
    named: "Arguments",
    output: Path | None,
    format_name: str,
    top_k: int,
    batch_size: int,
    *,
    overwrite: bool,
) -> None:
    """Predict in this process, into a file or standard output.

    Raises:
        DataError: As `predict`.
    """
    from ramstrans.calibration.priors import answered_without
    from ramstrans.inference.arguments import check_any_read

    num_labels = min(top_k, len(predictor.class_names))
    paths, total = paths_of(named)
    file = open_rows(output, format_name, predictor, num_labels, overwrite=overwrite)
    shows_rows = output is None and sys.stdout.isatty()
    with nullcontext(no_progress) if shows_rows else progress_of_many() as progress, file as rows:
        for prediction in predictor.stream(rows.remaining(paths), num_labels, batch_size):
            rows.write(prediction)
            progress(rows.num_rows, total, "predicting")
    logger.info("%s, %d of them unreadable", counted(rows.num_rows, "image"), rows.num_unreadable)
    if rows.num_without_priors:
        logger.warning("%s", answered_without(rows.num_without_priors, rows.num_written))
    check_any_read(named, rows.num_rows, rows.num_rows - rows.num_unreadable)


def open_rows(
    output: Path | None, format_name: str, predictor: "Predictor", num_labels: int, *, overwrite: bool
) -> "AbstractContextManager[RowWriter]":
    """Where rows go: into a file, after those that an interrupted command left, or standard output."""
    from ramstrans.inference.rows import RowWriter, resumable_file

    several = predictor.thresholds is not None
    if output is None:
        return nullcontext(RowWriter(sys.stdout, format_name, num_labels, multi_label=several))
    settings = predictor.fingerprint()
    return resumable_file(output, format_name, num_labels, settings, overwrite=overwrite, multi_label=several)


def check_partition_output(output: Path | None, format_name: str | None) -> Path:
    """The folder for `--engine ray`; raises UsageError unless one is given."""
    names_file = output is not None and output.suffix.lower() in (".csv", ".jsonl")
    if output is None or names_file or format_name not in (None, "parquet"):
        raise UsageError("--engine ray writes Parquet files into a folder; give --output FOLDER")
    return output


def predict_on_cluster(
    predictor: BatchPredictor,
    inputs: list[str],
    output: Path,
    overwrite: bool,
    partition_rows: int,
    *,
    address: str | None,
    workers: int | None,
) -> None:
    """Predict with the workers of Ray, into a folder; go on where an interrupted command stopped.

    Raises:
        UsageError: Ray is not installed, or the folder is of another command.
        DataError: As `predict`.
    """
    load_metadata(predictor.run)
    from ramstrans.inference.arguments import resolve_arguments
    from ramstrans.inference.partitions import PartitionFolder, partitions_of
    from ramstrans.inference.ray_engine import check_ray, predict_on_ray

    check_ray(address)
    named = resolve_arguments(inputs)
    partitions = partitions_of((Path(path).absolute() for path in paths_of(named)[0]), partition_rows)
    settings = {"top_k": predictor.num_labels, **predictor.predictor.fingerprint()}
    folder = PartitionFolder(output, settings, partitions, overwrite=overwrite)
    write = partial(predict_on_ray, predictor=predictor, root=output, address=address, workers=workers)
    fill_folder(folder, named, write, "predicting")
