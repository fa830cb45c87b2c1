"""What `ramstrans plan` prints: tables, and notes below them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ramstrans.console import format_duration

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.table import Table

    from ramstrans.training.choose import Ranking
    from ramstrans.training.plan import Plan

NOTES = """\
Max images: most images of one process that fit at once, of 1, 2, 4, ...; accumulation: micro-batches of them.
Peak: tensors of weights, gradients, optimiser and activations; a tenth of the memory is left free.
Hours: all steps at the speed of this device, without evaluations and waiting for data.
On a CPU, steps after one of more than a few seconds are extrapolated linearly; other devices differ."""

CHOOSE_NOTES = """\
Best first: of what fits, more multiply-adds are expected to be better. Accuracy was not measured.
GMACs: billions of multiply-adds per image, forward, all scales. Peak: of the largest step that fits.
Time: all steps and evaluations at the speed of this device, without waiting for data.
Estimated, not measured: by the speed of the largest model that was measured before."""


def plan_table(left: tuple[str, ...], right: tuple[str, ...], last: tuple[str, ...] = ()) -> "Table":
    """A table with some columns of text, of numbers, and of text again."""
    from rich.table import Table

    table = Table(*left, box=None, pad_edge=False)
    for heading in right:
        table.add_column(heading, justify="right")
    for heading in last:
        table.add_column(heading)
    return table


def candidates_table(planned: "Plan") -> "Table":
    """Make a row for each combination of precision and gradient checkpointing."""
    from ramstrans.training.memory import format_bytes

    numbers = ("max images", "accumulation", "peak", "s/step", "hours")
    table = plan_table(("precision", "checkpointing"), numbers)
    for precision, checkpointing, largest in planned.candidates:
        cells = ["0", "does not fit"]
        if largest is not None:
            seconds = planned.seconds(largest)
            cells = [str(largest.images), str(planned.accumulation_steps(largest))]
            cells += [format_bytes(largest.peak), f"{seconds:.3g}", f"{planned.steps * seconds / 3600:,.1f}"]
        table.add_row(precision, "yes" if checkpointing else "no", *cells)
    return table


def ranking_table(ranking: "Ranking") -> "Table":
    """Make a row for each backbone and image size."""
    from ramstrans.training.memory import format_bytes

    def cell(value: float | None, shown: Callable[[float], str]) -> str:
        return "" if value is None else shown(value)

    table = plan_table(("", "backbone"), ("size", "GMACs", "s/image", "peak", "time"), ("",))
    for rank, judged in enumerate(ranking.judged, start=1):
        choice, fits = judged.choice, not judged.reason
        with_checkpoints = " with gradient checkpointing" if judged.gradient_checkpointing else ""
        table.add_row(
            str(rank) if fits else "",
            choice.backbone,
            str(choice.image_size),
            f"{choice.macs / 1e9:.3g}",
            cell(judged.seconds_per_image, "{:.2g}".format),
            cell(judged.peak, format_bytes),
            cell(judged.seconds, format_duration),
            f"fits{with_checkpoints}" if fits else judged.reason,
        )
    return table


def trials_table(trials: "list[FrozenTrial]") -> "Table":
    """Make a row for each trial of a search."""
    names = (name.partition(".")[2].replace("_", " ") for name in trials[0].params)
    table = plan_table(("trial",), (*names, "top-1 %", "loss", "epochs"), ("",))
    for trial in trials:
        found = trial.user_attrs
        cells = [f"{value:.3g}" for value in trial.params.values()]
        cells += [f"{found['top1']:.1f}", f"{found['loss']:.3f}"] if "top1" in found else ["", ""]
        how = "stopped early" if trial.state.name == "PRUNED" else ""
        how += " the recipe" if "recipe" in found else ""
        table.add_row(str(trial.number + 1), *cells, str(len(trial.intermediate_values)), how.strip())
    return table


def search_notes(best: "FrozenTrial", num_images: int) -> list[str]:
    """Say on what a trial was chosen, and how sure the choice is."""
    from ramstrans.evaluation.metrics import wilson_interval

    top1 = best.user_attrs["top1"]
    low, high = wilson_interval(round(top1 * num_images / 100), num_images)
    return [
        f"Trial {best.number + 1} has {top1:.1f} % of {num_images} validation images right (95 % interval "
        f"{low:.1f} - {high:.1f} %); trials within it may be as good.",
        "Trials are shorter than the run, and the best of several looks better than it is.",
    ]
