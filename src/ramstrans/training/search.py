"""A small search for a recipe on the validation split, by Optuna (https://arxiv.org/abs/1907.10902).

Short runs, each with other values of a few options; hopeless ones are stopped early. The first trial is the
recipe itself. Test images are never evaluated.
"""

import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from accelerate.utils import set_seed
from matplotlib.figure import Figure
from torch import Tensor

from ramstrans.console import Progress, no_progress
from ramstrans.data.loading.loader import ImageLoader
from ramstrans.errors import ConfigError, DataError, OutputError, StoppedError, TrainingError
from ramstrans.evaluation.report.style import FUSED_COLOR, RIGHT_COLOR, save_figure, scale_color
from ramstrans.files import check_output_folder, make_folder
from ramstrans.models.methods.build import build_model
from ramstrans.training.config import SEARCH_FILE, WHERE, RunConfig
from ramstrans.training.log import MetricsLog
from ramstrans.training.loop import TrainLoop
from ramstrans.training.memory import OUT_OF_MEMORY
from ramstrans.training.optim import num_steps
from ramstrans.training.plan import with_training
from ramstrans.training.recipe import with_drop_path
from ramstrans.training.run_folder import options_of
from ramstrans.training.setup import Prepared, build_accelerator

if TYPE_CHECKING:
    import optuna

STUDY = "search"

logger = logging.getLogger(__name__)

EPOCH_SHARE, MIN_EPOCHS = 1 / 4, 3
"""A trial has this share of the run's epochs, at least so many, and not more than the run."""

NUM_UNPRUNED = 4
"""Trials that are never stopped early: the median of fewer says little."""


class Range(NamedTuple):
    """The values of an option that are tried: its own, and from `low` to `high`, perhaps on a log scale."""

    own: float
    low: float
    high: float
    log: bool = False


@dataclass
class TrialLoop(TrainLoop):
    """The training loop of a trial: reports each epoch, and stops if other trials were better by then.

    Attributes:
        trial: Optuna's.
        scores: Of the epochs so far.
    """

    trial: "optuna.Trial | None" = None
    scores: list[float] = field(default_factory=list)

    def validate(self, epoch: int) -> dict[str, Any]:
        """Validate, report, go on or raise `optuna.TrialPruned`."""
        import optuna

        assert self.trial is not None
        assert self.val_loader is not None
        row = super().validate(epoch)
        if row["is_best"]:
            self.trial.set_user_attr("top1", row["top1_fused"])
            self.trial.set_user_attr("loss", row["loss_fused"])
        self.scores.append(score(row, len(self.val_loader.dataset)))
        self.trial.report(self.scores[-1], epoch)
        if self.trial.should_prune() and not self.is_over:
            raise optuna.TrialPruned
        return row


def score(row: Mapping[str, Any], num_images: int) -> float:
    """One number in the order of `validation.rank`: top-1 in percent, less a part of one image by the loss.

    >>> better, worse = {"top1_fused": 50.0, "loss_fused": 1.0}, {"top1_fused": 50.0, "loss_fused": 3.0}
    >>> score(better, 10), score(worse, 10)
    (45.0, 42.5)
    """
    loss = row["loss_fused"]
    return float(row["top1_fused"] - 100 / num_images * (loss / (1 + loss) if math.isfinite(loss) else 1))


def ranges(config: RunConfig) -> dict[str, Range]:
    """What is tried of each option, around the run's own value; a backbone may lack stochastic depth."""
    training, model = config.training, config.model
    tried = {
        "training.lr": Range(training.lr, training.lr / 10, training.lr * 10, log=True),
        "training.weight_decay": Range(training.weight_decay, 0.0, max(0.3, training.weight_decay)),
        "training.layer_decay": Range(training.layer_decay, min(0.6, training.layer_decay), 1.0),
    }
    if with_drop_path(model, rate=0.1) != model or model.drop_path:
        tried["model.drop_path"] = Range(model.drop_path, 0.0, max(0.3, model.drop_path))
    return tried


def with_values(config: RunConfig, values: Mapping[str, float]) -> RunConfig:
    """The run with other values of the options that are tried."""
    named = {name.partition(".")[2]: value for name, value in values.items()}
    model = replace(config.model, drop_path=named.pop("drop_path", config.model.drop_path))
    return replace(with_training(config, **named), model=model)


def short(config: RunConfig, steps_per_epoch: int) -> RunConfig:
    """The run as short as a trial, evaluated after each epoch, without checkpoints."""
    epochs = math.ceil(num_steps(config.training, steps_per_epoch) / steps_per_epoch)
    epochs = min(epochs, max(MIN_EPOCHS, math.ceil(EPOCH_SHARE * epochs)))
    return with_training(config, epochs=epochs, evaluate_every=1, patience=None, checkpoint_every=0)


def check_optuna() -> None:
    """Raise ConfigError unless Optuna is installed."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f"--search needs optuna, which cannot be imported ({error}); pip install 'ramstrans[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # errors of trials are reported here


def search(
    prepared: Prepared,
    num_trials: int,
    output: Path,
    *,
    seconds: float | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> "optuna.Study":
    """Try recipes; a search that is in the folder already goes on until it has that many trials.

    Args:
        prepared: The run; its model is the start of every trial.
        num_trials: Finished trials at the end, those that were stopped early included.
        output: Folder for the search and a log of each trial.
        seconds: After which no trial starts; None: no limit.
        overwrite: Start again instead of going on.
        progress: Called after each step.

    Raises:
        DataError: There are no validation images.
        OutputError: The folder holds a search for another run, or cannot be written.
        StoppedError: A signal came; the same call goes on.
        TrainingError: A step does not fit into memory.
    """
    check_optuna()
    if not prepared.images.of_split("val"):
        raise DataError("a search needs validation images; give --data.val_fraction, e.g. 0.2")
    study = open_study(prepared, output, overwrite=overwrite)
    loaders = prepared.loaders()
    start = {name: weight.clone() for name, weight in prepared.model.state_dict().items()}

    def told(done: int, total: int, what: str) -> None:
        progress(done, total, f"trial {len(finished(study)) + 1} of {num_trials}, {what}")

    remaining = num_trials - len(finished(study))
    if remaining > 0:
        run = partial(
            run_trial, prepared=prepared, loaders=loaders, start=start, output=output, progress=told
        )
        study.optimize(run, remaining, timeout=seconds)
    return study


def open_study(prepared: Prepared, output: Path, *, overwrite: bool) -> "optuna.Study":
    """Create the search of a folder, or open the one that is there."""
    import optuna

    config, path = prepared.config, output / SEARCH_FILE
    check_output_folder(output, SEARCH_FILE, overwrite=True)  # that of a search may be gone on with
    make_folder(output, empty=overwrite)
    study = optuna.create_study(
        storage=f"sqlite:///{path.absolute()}", study_name=STUDY, direction="maximize", load_if_exists=True
    )
    identity = identity_of(prepared)
    if study.user_attrs.setdefault("run", identity) != identity:
        raise OutputError(
            f"--output {output} holds a search for a run with other options or data; give another, or "
            "--overwrite true to replace it"
        )
    study.set_user_attr("run", identity)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=NUM_UNPRUNED, n_warmup_steps=2)
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # its process was killed
    is_waiting = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
    if not (finished(study) or is_waiting):
        own = {name: tried.own for name, tried in ranges(config).items()}
        study.enqueue_trial(own, user_attrs={"recipe": True})
    return study


def identity_of(prepared: Prepared) -> str:
    """What a search that goes on must have in common with the one before."""
    options = options_of(prepared.config)
    options["data"] = {name: value for name, value in options["data"].items() if name not in WHERE}
    for name in ("output", "overwrite", "device"):
        options.pop(name)
    return json.dumps({"options": options, "images": prepared.fingerprint()})


def finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """The trials that came to an end, or were stopped early because others were better."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def run_trial(
    trial: "optuna.Trial",
    prepared: Prepared,
    loaders: tuple[ImageLoader, ImageLoader | None],
    start: Mapping[str, Tensor],
    output: Path,
    progress: Progress,
) -> float:
    """Train with the values that Optuna suggests; return the score of the best epoch.

    Raises:
        optuna.TrialPruned: Others were better, or the steps were not finite.
    """
    import optuna

    values = {
        name: trial.suggest_float(name, tried.low, tried.high, log=tried.log)
        for name, tried in ranges(prepared.config).items()
    }
    logger.info("trial %d: %s", trial.number + 1, options_for(values))
    config = short(with_values(prepared.config, values), len(loaders[0]))
    accelerator = build_accelerator(config, Path())
    set_seed(config.seed)
    model = build_model(replace(config.model, weights=None))
    model.load_state_dict(start)
    path = output / f"trial-{trial.number:03}.jsonl"
    with suppress(FileNotFoundError):
        path.unlink()
    log = MetricsLog(path, accelerator)
    loop = TrialLoop(model, *loaders, config.training, accelerator, log, trial=trial)
    try:
        loop.run(progress)
    except optuna.TrialPruned:
        logger.info("trial %d was stopped early", trial.number + 1)
        raise
    except StoppedError as error:
        name = f"{output}: stopped in trial {trial.number + 1}; the same command line goes on"
        raise StoppedError(name, error.signal_number) from error
    except TrainingError as error:
        if str(error) == OUT_OF_MEMORY:
            raise
        logger.warning("trial %d: %s", trial.number + 1, error)
        raise optuna.TrialPruned from error
    return max(loop.scores)


def ranked(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """The finished trials: those that came to an end, best first, then those that were stopped early.

    Raises:
        TrainingError: None came to an end.
    """
    trials = finished(study)
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not done:
        raise TrainingError(
            "no trial came to its end; give more --time, or a recipe whose loss stays finite (--training.lr)"
        )
    return sorted(done, key=lambda one: -(one.value or 0.0)) + [one for one in trials if one not in done]


def options_for(values: Mapping[str, float]) -> str:
    """Format values of options for the command line.

    >>> options_for({"training.lr": 0.00012345, "model.drop_path": 0.1})
    '--training.lr 0.000123 --model.drop_path 0.1'
    """
    return " ".join(f"--{name} {value:.3g}" for name, value in values.items())


def plot_search(trials: "list[optuna.trial.FrozenTrial]", path: Path) -> None:
    """Plot the validation accuracy of the trials of `ranked` over each option, as a PNG file."""
    names = list(trials[0].params)
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).flat
    for axes in panels[len(names) :]:
        axes.remove()
    for axes, name in zip(panels, names, strict=False):
        for state, marker, color in (("COMPLETE", "o", scale_color(0)), ("PRUNED", "x", "#888888")):
            some = [one for one in trials if one.state.name == state and "top1" in one.user_attrs]
            label = {"COMPLETE": "to the end", "PRUNED": "stopped early"}[state]
            values = [one.params[name] for one in some]
            axes.plot(values, [one.user_attrs["top1"] for one in some], marker, color=color, label=label)
        best = trials[0]
        for recipe in (one for one in trials if "recipe" in one.user_attrs):
            axes.axvline(recipe.params[name], color=FUSED_COLOR, lw=1, ls="--", label="the recipe")
        axes.plot(best.params[name], best.user_attrs["top1"], "*", color=RIGHT_COLOR, ms=14, label="best")
        axes.set_xscale("log" if name.endswith(".lr") else "linear")
        axes.set(xlabel=name, ylabel="validation top-1, %")
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle("Search")
    save_figure(figure, path)
