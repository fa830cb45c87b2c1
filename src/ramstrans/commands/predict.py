"""`ramstrans predict`."""

import logging
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.options import Parser, takes_images
from ramstrans.console import no_progress, progress_of_many
from ramstrans.files import check_output
from ramstrans.options import Precision
from ramstrans.plain import counted
from ramstrans.saved.metadata import load_metadata

if TYPE_CHECKING:
    from ramstrans.inference.arguments import Arguments

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
) -> int:
    """Predict image files.

    Args:
        run: Run folder, or any saved model.
        inputs: Image files, folders, patterns such as 'photos/*.jpg', or - for paths on standard input.
        format: Default: by the suffix of --output, else csv.
        output: File to write; default: standard output. An interrupted command keeps its rows in
            OUTPUT.partial; the same command goes on there.
        overwrite: Replace that file.
        top_k: Classes per image.
        early_exit: Confidence at which an image skips the remaining scales; auto: the one that
            `evaluate --early_exit auto` chose.
        batch_size: Images per batch.
        num_scales: Use the first so many of the scales that were trained; default: all.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.

    Raises:
        DataError: Nothing could be read, or one of the inputs does not exist; their rows are written.
    """
    from ramstrans.inference.writers import choose_format

    chosen = choose_format(output, format)
    check_output(output, overwrite=overwrite)
    load_metadata(run)
    from ramstrans.inference.arguments import check_any_read, resolve_arguments
    from ramstrans.inference.predictor import Predictor
    from ramstrans.inference.rows import RowWriter, resumable_file

    predictor = Predictor.load(run, device, precision, early_exit, num_scales)
    named, num_labels = resolve_arguments(inputs), min(top_k, len(predictor.class_names))
    paths, total = paths_of(named)
    file: AbstractContextManager[RowWriter]
    several = predictor.thresholds is not None
    if output is None:
        file = nullcontext(RowWriter(sys.stdout, chosen, num_labels, multi_label=several))
    else:
        settings = predictor.fingerprint()
        file = resumable_file(output, chosen, num_labels, settings, overwrite=overwrite, multi_label=several)
    shows_rows = output is None and sys.stdout.isatty()
    with nullcontext(no_progress) if shows_rows else progress_of_many() as progress, file as rows:
        for prediction in predictor.stream(rows.remaining(paths), num_labels, batch_size):
            rows.write(prediction)
            progress(rows.num_rows, total, "predicting")
    logger.info("%s, %d of them unreadable", counted(rows.num_rows, "image"), rows.num_unreadable)
    check_any_read(named, rows.num_rows, rows.num_rows - rows.num_unreadable)
    return 0


def paths_of(named: "Arguments") -> tuple[Iterable[str | Path], int]:
    """The image files that arguments name, and how many; 0 if a list on standard input is still to come."""
    from ramstrans.data.reading.text import read_paths
    from ramstrans.inference.arguments import STDIN, expand_inputs

    paths = expand_inputs(named.names, read_paths(sys.stdin.buffer))
    if STDIN in named.names:
        return paths, 0
    listed = [str(path) for path in paths]
    return listed, len(listed)
