"""The run folder: whether a run may write there, the options that it keeps, and how far it has come."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ramstrans.distributed import from_first_process
from ramstrans.errors import OutputError
from ramstrans.files import check_output_folder, make_folder, write_file
from ramstrans.plain import to_plain
from ramstrans.saved.metadata import CONFIG_FILE, WEIGHTS_FILE
from ramstrans.training.config import OPTIONS_FILE, RunConfig

REPORT_FILE = "report.json"
"""Written last: a run with a report has finished."""

RUN_MARK = "metrics.jsonl"
"""Marker file of a run folder; `--overwrite` deletes only folders that contain it."""


def options_of(config: RunConfig) -> dict[str, Any]:
    """Every option as plain values: strings for paths, lists for tuples.

    The paths of data and caches are absolute, so that the run can be resumed and evaluated from any folder. A
    root that does not exist is a name on the hub, and stays.
    """
    plain: dict[str, Any] = to_plain(config, "options")
    for name in ("root", "image_folder", "cache_dir"):
        path: Path | None = getattr(config.data, name)
        if path is not None and (name != "root" or path.exists()):
            plain["data"][name] = str(path.absolute())
    if config.training.probe_cache is not None:
        plain["training"]["probe_cache"] = str(config.training.probe_cache.absolute())
    return plain


def write_options(output: Path, config: RunConfig) -> None:
    """Write run.yaml, from which the run can be repeated or resumed."""
    text = yaml.safe_dump(options_of(config), sort_keys=False)
    write_file(output / OPTIONS_FILE, text.encode())


def default_output(config: RunConfig) -> Path:
    """`runs/<data name>-<backbone>-<date and time>`."""
    moment = from_first_process(lambda: datetime.now().astimezone().strftime("%Y%m%d-%H%M%S"))
    return Path("runs") / f"{config.data.name}-{config.model.backbone}-{moment}"


def resume_hint(run: Path) -> str:
    """How a run that was stopped goes on."""
    return f"go on with `ramstrans train --resume {run}`"


def check_output(output: Path | None, *, overwrite: bool) -> None:
    """Raise OutputError if a run folder may not be written there."""
    hint = f", or go on with that run by --resume {output}"
    check_output_folder(output, RUN_MARK, overwrite=overwrite, hint=hint)


def claim_output(output: Path, *, overwrite: bool) -> None:
    """Create an empty run folder, replacing an earlier run there if `overwrite` is true."""
    check_output(output, overwrite=overwrite)
    make_folder(output, empty=overwrite)
    write_file(output / RUN_MARK, b"")


def check_unfinished(run: Path, config: RunConfig) -> None:
    """Raise OutputError unless the folder holds a run with something left to do.

    Args:
        run: The run folder.
        config: The options that the run is resumed with, perhaps with more epochs than it had.
    """
    if not (run / OPTIONS_FILE).is_file():
        raise OutputError(
            f"--resume {run}: no {OPTIONS_FILE} there; give the run folder of a run that was stopped"
        )
    if not is_finished(run, config):
        return
    option = "epochs" if config.training.max_steps is None else "max_steps"
    raise OutputError(
        f"--resume {run}: that run has finished, its report is {run / 'report.html'}; to train it further, "
        f"add --training.{option} with more than {getattr(config.training, option)}"
    )


def is_finished(run: Path, config: RunConfig) -> bool:
    """Whether a run folder has the report of a run as long as these options say."""
    return is_length_of(config, read_json(run / REPORT_FILE).get("config"))


def has_trained(run: Path, config: RunConfig) -> bool:
    """Whether a run folder holds the model that these options end with: its evaluation may be missing."""
    has_weights = (run / WEIGHTS_FILE).is_file()
    return has_weights and is_length_of(config, read_json(run / CONFIG_FILE).get("training", {}).get("run"))


def is_length_of(config: RunConfig, options: dict[str, Any] | None) -> bool:
    """Whether saved options are of a run as long as this one; without `epochs` it is as long as it was."""
    saved, training = (options or {}).get("training", {}), config.training
    return training.epochs in (None, saved.get("epochs")) and training.max_steps == saved.get("max_steps")


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; nothing if it is missing or damaged, as after a full disk."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
