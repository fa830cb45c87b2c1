"""Where a run's numbers go besides metrics.jsonl: trackers, through Accelerate."""

import json
import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from ramstrans.errors import TrainingError, UsageError
from ramstrans.training.config import RunConfig
from ramstrans.training.run_folder import options_of

logger = logging.getLogger(__name__)

PROJECT = "ramstrans"
"""Name of the project, or experiment, that a tracker files runs under."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise unless the libraries of all trackers are installed.

    Raises:
        UsageError: One is not; the message says what to install.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--tracker {missing[0]}: {missing[0]} is not installed; `pip install {' '.join(missing)}`, or "
            "give another"
        )


def start_trackers(
    accelerator: Accelerator, config: RunConfig, output: Path, first_step: int | None = None
) -> None:
    """Start the trackers of a run, in the first process, and log its options.

    TensorBoard's files are in the run folder; where the others keep theirs is their own matter, and that of
    their environment variables. The run has the name of its folder.

    Args:
        accelerator: Which passes numbers on to them.
        config: The run; `tracker` has their names.
        output: The run folder.
        first_step: The step that a resumed run goes on with; None: it starts.

    Raises:
        TrainingError: A tracker cannot start, e.g. without a login.
    """
    if not accelerator.is_main_process:
        return
    accelerator.log_with = []
    options = options_of(config)
    for name in config.trackers:
        try:
            tracker = build_tracker(name, output, first_step)
            tracker.start()
            if name == "tensorboard":  # its table of options would make a folder per run and resumption
                text = yaml.safe_dump(options, sort_keys=False)
                tracker.tracker.add_text("options", f"```yaml\n{text}```", first_step)
            else:
                tracker.store_init_configuration(flat(options))
        except Exception as error:  # each library has errors of its own
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise TrainingError(
                f"--tracker {name} cannot start ({reason}); see its login, or leave it out"
            ) from error
        accelerator.trackers.append(tracker)


def build_tracker(name: str, output: Path, first_step: int | None) -> GeneralTracker:
    """A tracker that has not started yet; of a run that is resumed it goes on with the same one if it can."""
    kind = LOGGER_TYPE_TO_CLASS[name]
    run_name = "/".join(output.parts[-2:]) if output.name.startswith("fold_") else output.name
    if name == "tensorboard":
        return kind(name, output, purge_step=first_step)
    options: dict[str, Any] = {
        "mlflow": {"run_name": run_name},
        "swanlab": {"experiment_name": run_name},
        "trackio": {"name": run_name, "resume": "never" if first_step is None else "allow"},
        "wandb": {"name": run_name, "dir": str(output)},
    }.get(name, {})
    places = [output] if kind.requires_logging_directory else []
    return kind(PROJECT, *places, **options)


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options of sections as one dict of numbers, strings and None.

    >>> flat({"seed": 0, "model": {"backbone": "deit", "thresholds": [1.2, 1.2]}})
    {'seed': 0, 'model.backbone': 'deit', 'model.thresholds': '[1.2, 1.2]'}
    """
    values: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{name}.")
        else:
            is_plain = value is None or isinstance(value, bool | int | float | str)
            values[prefix + name] = value if is_plain else json.dumps(value)
    return values
