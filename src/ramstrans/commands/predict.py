"""`ramstrans predict`."""

import sys
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.options import Parser, add_device_options, exit_confidence
from ramstrans.console import say


def add_options(parser: Parser) -> None:
    """Options of `predict`."""
    parser.add_argument("run", type=Path, help="Run folder, or any model folder.")
    parser.add_argument(
        "inputs", nargs="+", type=str, help="Image files, folders, or - for paths on standard input."
    )
    parser.add_argument(
        "--format", type=Literal["csv", "jsonl", "parquet"] | None, help="Default: by --output, else csv."
    )
    parser.add_argument("--output", type=Path | None, help="File to write; default: standard output.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace that file.")
    parser.add_argument("--top_k", type=PositiveInt, default=5, help="Classes named for each image.")
    parser.add_argument(
        "--early_exit",
        type=str | None,
        help="Take no further look at a photograph once its answer has this confidence; auto: the one that "
        "`evaluate --early_exit auto` chose.",
    )
    parser.add_argument("--batch_size", type=PositiveInt, default=32, help="Images at once.")
    add_device_options(parser)


def run(options: Namespace, _given: list[str]) -> int:
    """Name what is on photographs: CSV, JSON lines or Parquet."""
    from ramstrans.inference.inputs import expand_inputs
    from ramstrans.inference.predictor import Predictor
    from ramstrans.inference.writers import choose_format, open_writer

    choose_format(options.output, options.format)
    early_exit = exit_confidence(options.early_exit)
    predictor = Predictor.load(options.run, options.device, options.precision or "fp32", early_exit)
    paths = expand_inputs(options.inputs, sys.stdin)
    num_labels = min(options.top_k, len(predictor.class_names))
    num_done = num_failed = 0
    with open_writer(options.output, options.format, num_labels, overwrite=options.overwrite) as writer:
        for prediction in predictor.stream(paths, num_labels, options.batch_size):
            writer.write(prediction)
            num_done, num_failed = num_done + 1, num_failed + (prediction.error is not None)
    say(f"{num_done} photographs, {num_failed} of them unreadable")
    return 0
