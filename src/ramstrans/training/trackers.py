"""Where a run's numbers go besides metrics.jsonl: trackers, through Accelerate."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from ramstrans.errors import StoppedError, TrainingError, UsageError
from ramstrans.files import write_file
from ramstrans.training.config import RunConfig
from ramstrans.training.run_folder import options_of, read_json

logger = logging.getLogger(__name__)

PROJECT = "ramstrans"
"""Name of the project, or experiment, that a tracker files runs under."""

IDS_FILE = "trackers.json"
"""In a run folder: by which id each tracker knows the run, so that a resumed run goes on there."""

EXTRAS = ("mlflow", "trackio", "wandb")
"""Trackers whose library is an extra of the same name in pyproject.toml, and that the tests run."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise unless the libraries of all trackers are installed.

    Raises:
        UsageError: One is not; the message says what to install.
    """
    missing = [name for name in names if not is_installed(name)]
    if missing:
        packages = [f'"ramstrans[{name}]"' if name in EXTRAS else name for name in missing]
        raise UsageError(
            f"--tracker {missing[0]}: {missing[0]} is not installed; `pip install {' '.join(packages)}`, or "
            "give another"
        )


def is_installed(name: str) -> bool:
    """Whether there is a library of this name; a folder in the working directory (`wandb`) is none."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def start_trackers(
    accelerator: Accelerator, config: RunConfig, output: Path, first_step: int | None = None
) -> None:
    """Start the trackers of a run, in the first process, and log its options.

    TensorBoard's files are in the run folder; where the others keep theirs is their own matter, and that of
    their environment variables. The run has the name of its folder. A tracker that knows it by an id is
    asked for the same one when the run is resumed.

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
    options, ids = options_of(config), read_json(output / IDS_FILE)
    for name in config.trackers:
        try:
            with own_output(name):
                tracker = build_tracker(name, output, first_step, ids.get(name))
                tracker.start()
                accelerator.trackers.append(tracker)
                log_options(tracker, options, first_step, is_known=name in ids)
        except Exception as error:  # each library has errors of its own
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            other = f", or delete {output / IDS_FILE} for another run there" if name in ids else ""
            raise TrainingError(
                f"--tracker {name} cannot start ({reason}); see its login and address, or leave it out{other}"
            ) from error
        ids |= id_of(tracker)
    if ids:
        write_file(output / IDS_FILE, json.dumps(ids).encode())


def build_tracker(name: str, output: Path, first_step: int | None, known_as: str | None) -> GeneralTracker:
    """A tracker that has not started yet; of a run that is resumed it goes on with the same one if it can."""
    kind = LOGGER_TYPE_TO_CLASS[name]
    run_name = "/".join(output.parts[-2:]) if output.name.startswith("fold_") else output.name
    if name == "tensorboard":
        return kind(name, output, purge_step=first_step)
    goes_on: dict[str, Any] = {} if known_as is None else {"id": known_as, "resume": "allow"}
    options: dict[str, dict[str, Any]] = {
        "mlflow": {"run_name": run_name, "run_id": known_as},
        "swanlab": {"experiment_name": run_name},
        "trackio": {"name": run_name, "resume": "never" if first_step is None else "allow"},
        "wandb": {"name": run_name, "dir": str(output)} | goes_on,
    }
    places = [output] if kind.requires_logging_directory else []
    return kind(PROJECT, *places, **options.get(name, {}))


def log_options(
    tracker: GeneralTracker, options: Mapping[str, Any], first_step: int | None, *, is_known: bool
) -> None:
    """Log the options of a run; MLflow's parameters never change, so those of its first start stay."""
    if tracker.name == "tensorboard":  # its table of options would make a folder per run and resumption
        text = yaml.safe_dump(dict(options), sort_keys=False)
        tracker.tracker.add_text("options", f"```yaml\n{text}```", first_step)
    elif not (tracker.name == "mlflow" and is_known):
        tracker.store_init_configuration(flat(options))


def id_of(tracker: GeneralTracker) -> dict[str, str]:
    """The id of its run, by the tracker's name; empty if it needs none to go on."""
    if tracker.name == "wandb":
        return {"wandb": tracker.tracker.id}
    return {"mlflow": tracker.tracker.info.run_id} if tracker.name == "mlflow" else {}


def own_output(name: str) -> AbstractContextManager[object]:
    """Where a tracker prints: on standard error, as wandb does by itself; standard output is for results."""
    return nullcontext() if name == "wandb" else redirect_stdout(sys.stderr)


def log_numbers(accelerator: Accelerator, numbers: Mapping[str, float], step: int | None) -> None:
    """Pass numbers on to all trackers; one that fails is left out from then on, and the run goes on."""
    for tracker in list(accelerator.trackers):
        try:
            tracker.log(dict(numbers), step=step)
        except Exception as error:  # noqa: BLE001 - each library has errors of its own; metrics.jsonl has it all
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            logger.warning("--tracker %s fails (%s); the run goes on without it", tracker.name, reason)
            accelerator.trackers.remove(tracker)


def log_test(accelerator: Accelerator, report: Mapping[str, Any]) -> None:
    """Pass the figures on the test split on, in percent, as `test/top1_scale_1`, ..., `test/top1_fused`."""
    parts = {f"scale_{scale}": figures for scale, figures in enumerate(report["scales"], start=1)}
    parts["fused"] = report["fused"]
    numbers = {
        f"test/{key}_{part}": value
        for part, figures in parts.items()
        for key, value in figures.items()
        if isinstance(value, float)
    }
    log_numbers(accelerator, numbers, report.get("steps"))


@contextmanager
def closing_trackers(accelerator: Accelerator) -> Iterator[None]:
    """Close the trackers, also after an error: TensorBoard's thread is to end before the interpreter does.

    Those that tell how a run ended are told: finished, stopped by a signal, or failed.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        for tracker in accelerator.trackers:
            with suppress(OSError), own_output(tracker.name):  # a full disk, which is reported already
                close(tracker, error)
        accelerator.trackers = []


def close(tracker: GeneralTracker, error: BaseException | None) -> None:
    """Close one tracker; `error` is what ended the run before its time."""
    if tracker.name == "wandb" and error is not None:
        tracker.tracker.finish(exit_code=getattr(error, "exit_code", 1))
    elif tracker.name == "mlflow" and error is not None:
        import mlflow

        mlflow.end_run("KILLED" if isinstance(error, StoppedError | KeyboardInterrupt) else "FAILED")
    else:
        tracker.finish()


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
