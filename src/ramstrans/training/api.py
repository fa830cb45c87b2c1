"""`ramstrans.train`: a whole run in one call, for scripts and notebooks."""

from pathlib import Path
from typing import NamedTuple

from ramstrans.console import Progress, no_progress
from ramstrans.errors import UsageError
from ramstrans.evaluation.report.build import Report
from ramstrans.training import run
from ramstrans.training.config import RunConfig
from ramstrans.training.folds import cross_validate, is_cross_validation
from ramstrans.training.run_folder import default_output


class TrainedRun(NamedTuple):
    """A finished run.

    Attributes:
        folder: The run folder, for `Predictor.load`; of a cross-validation, that with `fold_1` and so on.
        report: The report on the test split, as in report.json.
    """

    folder: Path
    report: Report


def train(config: RunConfig, *, resumes: bool = False, progress: Progress = no_progress) -> TrainedRun:
    """Train a model, evaluate it on the test split, and write a run folder: `ramstrans train` in Python.

    With `data.folds` and no `data.fold` it is a cross-validation: the folder has a run for each fold, and the
    report is of all. The defaults of `RunConfig` are those of its classes; the command line starts from a
    file of `configs/`.

    Args:
        config: Options of the run. The run folder is `config.output`; None: a new one in `runs/`.
        resumes: Whether to go on with the unfinished run in `config.output`.
        progress: Called with (done, total, what is being done).

    Raises:
        RamsTransError: The data, the model or the options cannot be used; the message says why.

    Example:
        from ramstrans import DataConfig, ModelConfig, Predictor, RunConfig, train

        data = DataConfig(name="folder", root=Path("photographs"))
        trained = train(RunConfig(data, ModelConfig("deit_tiny_patch16_224"), output=Path("runs/mine")))
        Predictor.load(trained.folder)("photograph.jpg").labels[0]
    """
    if resumes and config.output is None:
        raise UsageError("resumes needs config.output, the folder of the run to go on with")
    if is_cross_validation(config):
        report, folder = cross_validate(config, resumes=resumes, progress=progress)
        return TrainedRun(folder, report)
    prepared = run.prepare(config, progress, resumes=resumes)
    output = config.output or default_output(prepared.config)
    return TrainedRun(output, run.train(prepared, output, progress=progress))
