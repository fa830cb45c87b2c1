"""`ramstrans predict`."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.options import Parser
from ramstrans.files import check_output
from ramstrans.options import Precision
from ramstrans.saved.metadata import load_metadata

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `predict`: the parameters of the function."""
    parser.add_argument("run", type=Path, help="Run folder, or any saved model.")
    parser.add_argument(
        "inputs", nargs="+", type=str, help="Image files, folders, or - for paths on standard input."
    )
    parser.add_function_arguments(predict, as_group=False, skip={"run", "inputs"})


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
    device: str = "auto",
    precision: Precision | None = None,
) -> int:
    """Predict image files.

    Args:
        run: Run folder, or any saved model.
        inputs: Image files, folders, or - for paths on standard input.
        format: Default: by the suffix of --output, else csv.
        output: File to write; default: standard output.
        overwrite: Replace that file.
        top_k: Classes per image.
        early_exit: Confidence at which an image skips the remaining scales; auto: the one that
            `evaluate --early_exit auto` chose.
        batch_size: Images per batch.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.
    """
    from ramstrans.inference.writers import choose_format, write_predictions

    choose_format(output, format)
    check_output(output, overwrite=overwrite)
    load_metadata(run)
    from ramstrans.data.reading.text import read_paths
    from ramstrans.inference.inputs import expand_inputs
    from ramstrans.inference.postprocess import Prediction
    from ramstrans.inference.predictor import Predictor

    predictor = Predictor.load(run, device, precision, early_exit)
    paths = expand_inputs(inputs, read_paths(sys.stdin.buffer))
    num_labels = min(top_k, len(predictor.class_names))
    counts = {"images": 0, "unreadable": 0}

    def counted() -> Iterator[Prediction]:
        for prediction in predictor.stream(paths, num_labels, batch_size):
            counts["images"] += 1
            counts["unreadable"] += prediction.error is not None
            yield prediction

    write_predictions(counted(), output, format, num_labels, overwrite=overwrite)
    logger.info("%(images)d images, %(unreadable)d of them unreadable", counts)
    return 0
