"""`ramstrans plan`."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar, results, say
from ramstrans.errors import ConfigError, OutputError, UsageError
from ramstrans.training.config import RunConfig

if TYPE_CHECKING:
    from rich.table import Table

    from ramstrans.console import Progress
    from ramstrans.training.planning.plan import Plan


def add_options(parser: Parser) -> None:
    """Options of `plan`: those of `train`, and what there is to train on."""
    parser.add_argument(
        "--config", action="config", help="YAML file of these options, or the name of one that comes along."
    )
    parser.add_class_arguments(RunConfig, as_group=False, skip={"output", "overwrite"})
    parser.add_argument(
        "--memory", type=str | None, help="Of each process, e.g. 12GB or 80GiB; default: what is free here."
    )
    parser.add_argument("--processes", type=PositiveInt, default=1, help="Devices that share the work.")
    parser.add_argument(
        "--num_images", type=PositiveInt | None, help="Training images; default: those of --data.root."
    )
    parser.add_argument(
        "--num_classes", type=PositiveInt | None, help="Classes, where --data.root is not given."
    )
    parser.add_argument("--output", type=Path | None, help="Write the plan to this .json file too.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace that file.")


def run(options: Namespace, given: list[str]) -> int:
    """Say which batch, accumulation, checkpointing and precision fit, from a few measured steps."""
    check_output(options.output, overwrite=options.overwrite)
    from ramstrans.files import write_file
    from ramstrans.memory import parse_bytes
    from ramstrans.training.planning.plan import plan

    memory = None if options.memory is None else parse_bytes(options.memory)
    with progress_bar() as progress:
        config, num_images = task_of(options, progress)
        planned = plan(config, num_images, memory=memory, processes=options.processes, progress=progress)
    console = results()
    console.print(ways_table(planned))
    for line in notes(planned):
        console.print(line, markup=False, highlight=False)
    if options.output is not None:
        content = {"command": shlex.join(["ramstrans", *given])} | planned.to_json()
        write_file(options.output, (json.dumps(content, indent=2) + "\n").encode())
        say(f"plan: {options.output}")
    console.print(planned.best().options(), markup=False, highlight=False, soft_wrap=True)
    return 0


def check_output(path: Path | None, *, overwrite: bool) -> None:
    """Raise if the plan could not be written, before anything is measured.

    Raises:
        UsageError: The file is not called .json.
        OutputError: It exists and may not be replaced.
    """
    if path is None:
        return
    if path.suffix != ".json":
        raise UsageError(f"--output {path} is no .json file; rename it")
    if path.is_dir():
        raise OutputError(f"--output {path} is a folder; give a file")
    if path.exists() and not overwrite:
        raise OutputError(f"--output {path} exists; give another, or --overwrite true to replace it")


def task_of(options: Namespace, progress: "Progress") -> tuple[RunConfig, int]:
    """The run that is planned, with its number of classes, and its number of training images.

    Raises:
        UsageError: Neither a data set nor what stands for it was given.
        ConfigError: The data set has another number of classes.
        DataError: The data set cannot be used.
    """
    has_data = options.data.root is not None
    built = Parser()
    add_options(built)
    values = built.instantiate(options)
    names = {field.name for field in dataclasses.fields(RunConfig)} - {"output", "overwrite"}
    config = RunConfig(**{name: values[name] for name in names})
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
            "plan does not know how many images and classes there are; give --num_images and --num_classes, "
            "or --data.root"
        )
    model = dataclasses.replace(config.model, num_classes=num_classes)
    return dataclasses.replace(config, model=model), num_images


def ways_table(planned: "Plan") -> "Table":
    """A row for each way to take the steps."""
    from rich.table import Table

    from ramstrans.memory import format_bytes

    task, ground = planned.task, planned.ground
    table = Table(
        title=f"{task.batch_size} images a step, {task.images_per_process} a process; "
        f"{format_bytes(ground.memory)} each",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("precision")
    table.add_column("checkpointing")
    for heading in ("most", "accumulation", "images", "peak", "s/step", "hours"):
        table.add_column(heading, justify="right")
    for way in planned.ways:
        table.add_row(
            way.precision,
            "yes" if way.gradient_checkpointing else "no",
            str(way.most_images),
            "does not fit"
            if way.gradient_accumulation_steps is None
            else str(way.gradient_accumulation_steps),
            str(way.images),
            format_bytes(way.peak),
            f"{way.seconds:.3g}",
            f"{way.hours:,.1f}",
        )
    return table


def notes(planned: "Plan") -> list[str]:
    """What of the table was measured, and what was not, a line each."""
    from ramstrans.training.planning.fits import MARGIN

    task, ground, device = planned.task, planned.ground, planned.device
    tried = " and ".join(map(str, planned.depths))
    whole = len(planned.depths) == 1
    attention = {trial.precision: f"{trial.precision} {trial.attention}" for trial in planned.trials}
    lines = [
        f"Measured on {device} in one process: steps of a few random images, "
        + ("the whole model" if whole else f"{tried} of {planned.depth} blocks, the rest in proportion")
        + f"; attention: {', '.join(attention.values())}.",
        "Most: images that fit at a time. Images: that pass at a time, in `accumulation` parts.",
        f"Peak: tensors of weights, gradients, optimiser and activations; {MARGIN:.0%} of the memory is left "
        "free for libraries and gaps. Evaluations are not in it.",
        f"Hours: {task.steps:,} steps, as fast as {device} takes them with nothing else to do; no "
        "evaluations, no waiting for data.",
    ]
    if ground.processes > 1:
        how = "FSDP" if ground.fsdp else "DDP"
        lines.append(
            f"{ground.processes} processes ({how}): reckoned from one, as if none waited for another."
        )
    if device.type == "cpu":
        lines.append(
            "Another device takes other times, and a GPU's kernels other scratch space; for one, plan with "
            "--training.attention fused, which it takes."
        )
    return lines
