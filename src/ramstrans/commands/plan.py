"""`ramstrans plan`."""

from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands import train
from ramstrans.commands.options import Parser
from ramstrans.console import Progress, progress_bar, results
from ramstrans.errors import UsageError
from ramstrans.options import parse_bytes
from ramstrans.plain import counted
from ramstrans.training.config import RunConfig

if TYPE_CHECKING:
    from rich.table import Table

    from ramstrans.training.plan import Plan

NOTES = """\
Max images: most images of one process that fit at once, of 1, 2, 4, ...; accumulation: micro-batches of them.
Peak: tensors of weights, gradients, optimiser and activations; a tenth of the memory is left free.
Hours: all steps at the speed of this device, without evaluations and waiting for data.
On a CPU, steps after one of more than a few seconds are extrapolated linearly; other devices differ."""


IMPORTANT = {
    "What": ("--memory", "--processes", "--num_images"),
    "Run": ("--data.name", "--model.backbone", "--model.weights", "--model.image_size"),
    "Recipe": ("--config", "--training.epochs", "--training.batch_size"),
}
"""The options that `--help` shows."""


def add_options(parser: Parser) -> None:
    """Options of `plan`: those of `train`, and the resources and size of the run."""
    train.add_run_options(parser, skip={"output", "overwrite"})
    parser.important = IMPORTANT
    parser.add_argument(
        "--memory",
        type=str | None,
        help="Memory per process, e.g. 12GB; default: what is free on this device.",
    )
    parser.add_argument(
        "--processes", type=PositiveInt, default=1, help="Processes that divide the images of a step (DDP)."
    )
    parser.add_argument(
        "--num_images", type=PositiveInt | None, help="Training images; default: those of DATA."
    )


def run(options: Namespace, _given: list[str]) -> int:
    """Measure which batch, accumulation, checkpointing and precision fit into memory."""
    memory = None if options.memory is None else parse_bytes(options.memory)
    from ramstrans.training.memory import format_bytes
    from ramstrans.training.plan import plan

    with progress_bar() as progress:
        config, num_images = workload(options, progress)
        planned = plan(config, num_images, memory=memory, processes=options.processes, progress=progress)
    console = results()
    console.print(
        f"{counted(config.training.batch_size, 'image')} per step, {planned.images} per process; "
        f"{planned.steps:,} steps; {format_bytes(planned.memory)} per process; measured on {planned.device}",
        highlight=False,
    )
    console.print(candidates_table(planned))
    console.print(NOTES, markup=False, highlight=False)
    console.print(planned.options(planned.best()), markup=False, highlight=False, soft_wrap=True)
    return 0


def workload(options: Namespace, progress: Progress) -> tuple[RunConfig, int]:
    """Return the run to plan, its number of classes filled in, and its number of training images.

    Raises:
        UsageError: Neither a data set nor the numbers were given.
        ConfigError: The data set has another number of classes.
        DataError: The data set cannot be used.
    """
    from ramstrans.training.setup import with_classes_of, with_length_for

    config, num_images = train.run_config(options), options.num_images
    has_numbers = None not in (num_images, config.model.num_classes)
    if config.data.root is not None or (config.data.name == "toybirds" and not has_numbers):
        from ramstrans.data.build import build_image_set

        images = build_image_set(config.data, progress)
        config, num_val = with_classes_of(config, images), len(images.of_split("val"))
        num_images = num_images or len(images.of_split("train"))
        return with_length_for(config, num_images, num_val), num_images
    if not has_numbers:
        raise UsageError(
            "plan needs the number of images and classes; give DATA, or --num_images and --model.num_classes"
        )
    return with_length_for(config, num_images), num_images


def candidates_table(planned: "Plan") -> "Table":
    """Make a row for each combination of precision and gradient checkpointing."""
    from rich.table import Table

    from ramstrans.training.memory import format_bytes

    table = Table("precision", "checkpointing", box=None, pad_edge=False)
    for heading in ("max images", "accumulation", "peak", "s/step", "hours"):
        table.add_column(heading, justify="right")
    for precision, checkpointing, largest in planned.candidates:
        cells = ["0", "does not fit"]
        if largest is not None:
            seconds = planned.seconds(largest)
            cells = [str(largest.images), str(planned.accumulation_steps(largest))]
            cells += [format_bytes(largest.peak), f"{seconds:.3g}", f"{planned.steps * seconds / 3600:,.1f}"]
        table.add_row(precision, "yes" if checkpointing else "no", *cells)
    return table
