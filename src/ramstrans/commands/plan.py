"""`ramstrans plan`."""

import dataclasses
import json
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.configs import NamedConfig
from ramstrans.commands.options import CONFIG_HELP, Parser
from ramstrans.console import Progress, progress_bar, results
from ramstrans.errors import ConfigError, UsageError
from ramstrans.files import check_output, write_file
from ramstrans.training.config import RunConfig

if TYPE_CHECKING:
    from rich.table import Table

    from ramstrans.training.plan import Plan

logger = logging.getLogger(__name__)

NOTES = """\
Max images: most images of one process that fit at once, of 1, 2, 4, ...; accumulation: micro-batches of them.
Peak: tensors of weights, gradients, optimiser and activations; a tenth of the memory is left free.
Hours: all steps at the speed of this device, without evaluations and waiting for data.
On a CPU, steps after one of more than a few seconds are extrapolated linearly; other devices differ."""


def add_options(parser: Parser) -> None:
    """Options of `plan`: those of `train`, and the resources and size of the run."""
    parser.add_argument("--config", action=NamedConfig, help=CONFIG_HELP)
    parser.add_class_arguments(RunConfig, as_group=False, skip={"output", "overwrite"})
    parser.add_argument(
        "--memory",
        type=str | None,
        help="Memory per process, e.g. 12GB; default: what is free on this device.",
    )
    parser.add_argument(
        "--processes", type=PositiveInt, default=1, help="Processes that divide the images of a step (DDP)."
    )
    parser.add_argument(
        "--num_images", type=PositiveInt | None, help="Training images; default: those of --data.root."
    )
    parser.add_argument(
        "--num_classes", type=PositiveInt | None, help="Classes, if --data.root is not given."
    )
    parser.add_argument("--output", type=Path | None, help="Also write the plan to this .json file.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace that file.")


def run(options: Namespace, given: list[str]) -> int:
    """Measure which batch, accumulation, checkpointing and precision fit into memory."""
    check_output(options.output, overwrite=options.overwrite, suffixes=(".json",))
    from ramstrans.training.memory import format_bytes, parse_bytes
    from ramstrans.training.plan import plan

    memory = None if options.memory is None else parse_bytes(options.memory)
    with progress_bar() as progress:
        config, num_images = workload(options, progress)
        planned = plan(config, num_images, memory=memory, processes=options.processes, progress=progress)
    console = results()
    console.print(
        f"{planned.batch_size} images per step, {planned.images_per_process} per process; "
        f"{planned.steps:,} steps; {format_bytes(planned.memory)} per process; measured on {planned.device}",
        highlight=False,
    )
    console.print(candidates_table(planned))
    console.print(NOTES, markup=False, highlight=False)
    if options.output is not None:
        candidates = [candidate._asdict() for candidate in planned.candidates]
        content = (
            {"command": shlex.join(["ramstrans", *given])} | planned._asdict() | {"candidates": candidates}
        )
        write_file(options.output, (json.dumps(content, indent=2) + "\n").encode())
        logger.info("plan: %s", options.output)
    console.print(planned.best().options(), markup=False, highlight=False, soft_wrap=True)
    return 0


def workload(options: Namespace, progress: Progress) -> tuple[RunConfig, int]:
    """Return the run to plan, its number of classes filled in, and its number of training images.

    Raises:
        UsageError: Neither a data set nor the numbers were given.
        ConfigError: The data set has another number of classes.
        DataError: The data set cannot be used.
    """
    has_numbers = None not in (options.num_images, options.num_classes or options.model.num_classes)
    has_data = options.data.root is not None or (options.data.name == "toybirds" and not has_numbers)
    names = {field.name for field in dataclasses.fields(RunConfig)} - {"output", "overwrite"}
    config = RunConfig(**{name: options[name] for name in names})
    num_images, num_classes = options.num_images, options.num_classes or config.model.num_classes
    if has_data:
        from ramstrans.data.build import build_image_set

        images = build_image_set(config.data, progress)
        num_images = num_images or len(images.of_split("train"))
        if num_classes not in (None, len(images.class_names)):
            raise ConfigError(
                f"num_classes is {num_classes}; the data set has {len(images.class_names)}: leave it out"
            )
        num_classes = len(images.class_names)
    if num_images is None or num_classes is None:
        raise UsageError(
            "plan needs the number of images and classes; give --num_images and --num_classes, or --data.root"
        )
    model = dataclasses.replace(config.model, num_classes=num_classes)
    return dataclasses.replace(config, model=model), num_images


def candidates_table(planned: "Plan") -> "Table":
    """Make a row for each combination of precision and gradient checkpointing."""
    from rich.table import Table

    from ramstrans.training.memory import format_bytes

    table = Table("precision", "checkpointing", box=None, pad_edge=False)
    for heading in ("max images", "accumulation", "peak", "s/step", "hours"):
        table.add_column(heading, justify="right")
    for one in planned.candidates:
        cells = [one.precision, "yes" if one.gradient_checkpointing else "no", str(one.max_images)]
        if one.peak is None or one.seconds is None:
            cells.append("does not fit")
        else:
            cells += [str(one.gradient_accumulation_steps), format_bytes(one.peak), f"{one.seconds:.3g}"]
            cells.append(f"{one.hours:,.1f}")
        table.add_row(*cells)
    return table
