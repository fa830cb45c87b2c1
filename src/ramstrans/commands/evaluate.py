"""`ramstrans evaluate`."""

import logging
import shlex

from jsonargparse import Namespace

from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar, results
from ramstrans.evaluation.config import EvaluationConfig, EvaluationData

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `evaluate`: the fields of EvaluationConfig."""
    parser.add_class_arguments(EvaluationConfig, as_group=False, as_positional=True)


def run(options: Namespace, given: list[str]) -> int:
    """Evaluate a trained model on one split: table, report and figures."""
    from ramstrans.evaluation.evaluate import evaluate_run
    from ramstrans.evaluation.report.build import print_report

    config = EvaluationConfig(**{**vars(options), "data": EvaluationData(**vars(options.data))})
    with progress_bar() as progress:
        report = evaluate_run(config, command=shlex.join(["ramstrans", *given]), progress=progress)
    print_report(report, results())
    logger.info("report: %s", config.folder / "report.md")
    return 0
