"""The run folder: whether a run may write there, and the options that it keeps."""

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ramstrans.distributed import from_first_process
from ramstrans.errors import OutputError
from ramstrans.files import check_output_folder, not_writable
from ramstrans.plain import to_plain
from ramstrans.training.config import OPTIONS_FILE, RunConfig

RUN_MARK = "metrics.jsonl"
"""Marker file of a run folder; `--overwrite` deletes only folders that contain it."""


def options_of(config: RunConfig) -> dict[str, Any]:
    """Every option as plain values: strings for paths, lists for tuples."""
    plain: dict[str, Any] = to_plain(config, "options")
    return plain


def write_options(output: Path, config: RunConfig) -> None:
    """Write run.yaml, from which the run can be repeated or resumed."""
    text = yaml.safe_dump(options_of(config), sort_keys=False)
    (output / OPTIONS_FILE).write_text(text, encoding="utf-8")


def default_output(config: RunConfig) -> Path:
    """`runs/<data name>-<backbone>-<date and time>`."""
    moment = from_first_process(lambda: datetime.now().astimezone().strftime("%Y%m%d-%H%M%S"))
    return Path("runs") / f"{config.data.name}-{config.model.backbone}-{moment}"


def check_output(output: Path | None, *, overwrite: bool) -> None:
    """Raise OutputError if a run folder may not be written there."""
    hint = f", or resume an unfinished run by --resume {output}"
    check_output_folder(output, RUN_MARK, overwrite=overwrite, hint=hint)


def claim_output(output: Path, *, overwrite: bool) -> None:
    """Create an empty run folder, replacing an earlier run there if `overwrite` is true."""
    check_output(output, overwrite=overwrite)
    try:
        if output.is_dir() and overwrite:
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        (output / RUN_MARK).touch()
    except OSError as error:
        raise not_writable(output, error) from error


def check_unfinished(run: Path) -> None:
    """Raise OutputError unless the folder holds a run that can be resumed."""
    if not (run / OPTIONS_FILE).is_file():
        raise OutputError(
            f"--resume {run}: no {OPTIONS_FILE} there; give the run folder of a run that was stopped"
        )
    if (run / "report.json").is_file():
        raise OutputError(f"--resume {run}: that run is finished, its report is {run / 'report.md'}")
