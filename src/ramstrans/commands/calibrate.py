"""`ramstrans calibrate`."""

import logging

from jsonargparse import Namespace

from ramstrans.commands.options import Parser, takes_data
from ramstrans.console import progress_bar, results
from ramstrans.evaluation.config import CalibrationConfig, EvaluationData
from ramstrans.saved.metadata import load_metadata

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `calibrate`: the fields of CalibrationConfig."""
    takes_data(parser, position=1, detects_format=False)  # by the run's data, in `calibrate_run`
    parser.add_class_arguments(CalibrationConfig, as_group=False, as_positional=True)


def run(options: Namespace, _given: list[str]) -> int:
    """Make a trained model's answers trustworthy: calibrated, able to say unknown, sets of classes."""
    config = CalibrationConfig(**{**vars(options), "data": EvaluationData(**vars(options.data))})
    load_metadata(config.run)
    from ramstrans.calibration.fitted import CALIBRATION_FILE
    from ramstrans.evaluation.calibrate import calibrate_run
    from ramstrans.evaluation.report.build import print_table
    from ramstrans.evaluation.report.trust import calibration_table, candidates_table

    with progress_bar() as progress:
        calibrated = calibrate_run(config, progress)
    console, report = results(), calibrated.report["calibration"]
    print_table(console, "Before -> after, on the images that it was fitted on", *calibration_table(report))
    print_table(console, "Scores of the unknown, percent", *candidates_table(calibrated.fitted.candidates))
    for line in calibrated.lines():
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    logger.info("%s; `ramstrans evaluate %s` measures it", config.run / CALIBRATION_FILE, config.run)
    return 0
