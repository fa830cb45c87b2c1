"""`ramstrans evaluate`."""

import shlex
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.arguments import DEFAULT_CONFIGS
from ramstrans.commands.options import Parser, add_device_options, exit_confidence
from ramstrans.console import progress_bar, results, say


def add_options(parser: Parser) -> None:
    """Options of `evaluate`."""
    parser.add_argument("run", type=Path, help="Run folder, or any model folder.")
    parser.add_argument("--split", type=Literal["train", "val", "test"], default="test", help="Which images.")
    parser.add_argument(
        "--data.name", type=Literal[tuple(DEFAULT_CONFIGS)] | None, help="Layout, if not the run's."
    )
    parser.add_argument("--data.root", type=Path | None, help="Folder or table, if not the run's.")
    parser.add_argument("--output", type=Path | None, help="Where to write; default: RUN/evaluation-SPLIT.")
    parser.add_argument("--batch_size", type=PositiveInt, default=32, help="Images at once.")
    parser.add_argument(
        "--early_exit",
        type=str | None,
        help="Judge early exit too: the confidence at which an image takes no further look, or auto: chosen "
        "on the validation images for at most 0.2 points lost, and kept in RUN.",
    )
    add_device_options(parser)


def run(options: Namespace, given: list[str]) -> int:
    """Judge a trained model on one split: table, report and pictures."""
    from ramstrans.evaluation.report.build import print_report
    from ramstrans.evaluation.run import evaluate_run

    output = options.output or options.run / f"evaluation-{options.split}"
    with progress_bar() as progress:
        report = evaluate_run(
            options.run,
            options.split,
            output,
            data_name=options.data.name,
            data_root=options.data.root,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            early_exit=exit_confidence(options.early_exit),
            command=shlex.join(["ramstrans", *given]),
            progress=progress,
        )
    print_report(report, results())
    say(f"report: {output / 'report.md'}")
    return 0
