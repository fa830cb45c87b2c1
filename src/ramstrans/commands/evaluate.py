"""`ramstrans evaluate`."""

import logging
import shlex

from jsonargparse import Namespace

from ramstrans.commands.options import Parser, takes_data
from ramstrans.console import progress_bar, results
from ramstrans.evaluation.config import EvaluationConfig, EvaluationData
from ramstrans.files import check_output_folder
from ramstrans.saved.metadata import load_metadata

REPORT = "report.json"
"""By which a folder is known to be an evaluation's."""

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `evaluate`: the fields of EvaluationConfig."""
    takes_data(parser, position=1, detects_format=False)  # by the run's data, in `evaluate_run`
    parser.add_class_arguments(EvaluationConfig, as_group=False, as_positional=True)
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="Replace the report in the folder of --output."
    )


def run(options: Namespace, given: list[str]) -> int:
    """Evaluate a trained model on one split: table, report and figures."""
    fields = {**vars(options), "data": EvaluationData(**vars(options.data))}
    check_output_folder(options.output, REPORT, overwrite=fields.pop("overwrite"))
    config = EvaluationConfig(**fields)
    load_metadata(config.run)
    from ramstrans.evaluation.evaluate import evaluate_run
    from ramstrans.evaluation.report.build import print_report

    with progress_bar() as progress:
        report = evaluate_run(config, command=shlex.join(["ramstrans", *given]), progress=progress)
    print_report(report, results())
    logger.info("report: %s", config.folder / "report.html")
    return 0
